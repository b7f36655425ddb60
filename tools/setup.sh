#!/usr/bin/env bash
# Makes sure that a tool is there which the tests need, or installs Debian's, or says what to install.
#
#   tools/setup.sh            a Vulkan driver, for the WebGPU backend: Mesa's software adapter (llvmpipe)
#   tools/setup.sh browser    a browser with WebGPU, for `make web-test`: Chromium
set -euo pipefail

# Drivers announce themselves in a manifest; the loader is the library libvulkan.so.1.
has_driver() {
    local manifests=(/usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json "${VK_ICD_FILENAMES:-${VK_DRIVER_FILES:-}}")
    local manifest
    for manifest in "${manifests[@]}"; do
        [ -n "$manifest" ] && [ -e "${manifest%%:*}" ] && return 0
    done
    return 1
}
has_loader() {
    { ldconfig -p 2>/dev/null || /sbin/ldconfig -p; } | grep 'libvulkan\.so\.1' >/dev/null
}
has_browser() {
    [ -n "${NORMKIT_BROWSER:-}" ] && return 0
    local name
    for name in chromium chromium-browser google-chrome google-chrome-stable chrome; do
        command -v "$name" >/dev/null && return 0
    done
    return 1
}

# install WHAT PACKAGES...: WHAT is for people.
install() {
    local what=$1
    shift
    local run=()
    if ! command -v apt-get >/dev/null; then
        echo "setup: no $what. Install one; Debian's packages are called: $*" >&2
        return 1
    elif [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
            echo "setup: no $what. Install one: sudo apt-get install $*" >&2
            return 1
        fi
        run=(sudo -n)
    fi
    echo "setup: installing $*"
    "${run[@]}" apt-get update -qq
    if ! DEBIAN_FRONTEND=noninteractive "${run[@]}" apt-get install -qq --no-install-recommends "$@" >/dev/null; then
        echo "setup: no $what, and installing $* failed" >&2
        return 1
    fi
}

# Only Linux needs Vulkan (macOS has Metal, Windows Direct3D), and only there is the browser ours to install: elsewhere
# the test names it.
[ "$(uname -s)" = Linux ] || exit 0
case "${1:-}" in
    "") { has_driver && has_loader; } || install "Vulkan driver for the WebGPU backend" mesa-vulkan-drivers libvulkan1 ;;
    browser) has_browser || install "browser for the test in a browser" chromium ;;
    *) echo "setup: unknown argument $1" >&2; exit 2 ;;
esac
