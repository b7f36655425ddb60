#!/usr/bin/env bash
# Makes sure that there is a Vulkan driver, for the WebGPU backend. Where there is none, installs Debian's software
# adapter (Mesa's llvmpipe), or says what to install.
set -euo pipefail

packages="mesa-vulkan-drivers libvulkan1"

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

# Only Linux needs Vulkan: macOS has Metal, Windows Direct3D.
[ "$(uname -s)" = Linux ] || exit 0
has_driver && has_loader && exit 0

if command -v apt-get >/dev/null; then
    if [ "$(id -u)" = 0 ]; then
        run=()
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        run=(sudo -n)
    else
        echo "setup: no Vulkan driver for the WebGPU backend. Install one: sudo apt-get install $packages" >&2
        exit 1
    fi
    echo "setup: installing $packages"
    "${run[@]}" apt-get update -qq
    # shellcheck disable=SC2086 # two packages
    DEBIAN_FRONTEND=noninteractive "${run[@]}" apt-get install -qq --no-install-recommends $packages >/dev/null
else
    echo "setup: no Vulkan driver for the WebGPU backend. Install a driver and loader; Debian calls them $packages" >&2
    exit 1
fi
