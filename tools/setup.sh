#!/usr/bin/env bash
# Makes sure that a tool is there which the tests need, or installs Debian's, or says what to install.
#
#   tools/setup.sh            a Vulkan driver, for the WebGPU backend: Mesa's software adapter (llvmpipe); a C++ compiler, for
#                             the host driver of the CUDA backend; pkg-config and valgrind, for the tests of the C interface
#   tools/setup.sh browser    a browser with WebGPU, for `make web-test`: Chromium
#   tools/setup.sh venv       a virtual environment of Python in target/venv, with PyTorch and what else the tests of the
#                             Python package need; prints its path
#   tools/setup.sh nvrtc      NVRTC, which compiles CUDA kernels without a GPU: it comes with PyTorch; prints its folder
#   tools/setup.sh cuobjdump  the disassembler for what NVRTC makes, which comes with PyTorch, too; prints its path
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
    echo "setup: installing $*" >&2
    "${run[@]}" apt-get update -qq
    if ! DEBIAN_FRONTEND=noninteractive "${run[@]}" apt-get install -qq --no-install-recommends "$@" >/dev/null; then
        echo "setup: no $what, and installing $* failed" >&2
        return 1
    fi
}

# The virtual environment of this checkout, with what python/requirements-test.txt names; made anew when that changes.
venv() {
    local root target wanted
    root="$(cd "$(dirname "$0")/.." && pwd)"
    target="$root/target/venv"
    wanted="$root/python/requirements-test.txt"
    if ! cmp -s "$wanted" "$target/requirements.txt"; then
        python3 -c 'import ensurepip, venv' 2>/dev/null || install "virtual environments of Python" python3-venv >&2
        echo "setup: installing Python packages into target/venv" >&2
        python3 -m venv --clear "$target"
        "$target/bin/pip" install --quiet --disable-pip-version-check -r "$wanted" >&2 \
            || { echo "setup: a package index is needed for $wanted" >&2; return 1; }
        cp "$wanted" "$target/requirements.txt"
    fi
    echo "$target"
}

# in_venv WHAT PATTERN: prints the first file of the environment's packages that matches.
in_venv() {
    local found
    found=$(compgen -G "$(venv)/lib/python3.*/site-packages/$2" | head -n 1 || true)
    [ -n "$found" ] || { echo "setup: no $1 among the packages in target/venv" >&2; return 1; }
    echo "$found"
}

# Only Linux needs Vulkan (macOS has Metal, Windows Direct3D), and only there is the browser ours to install: elsewhere
# the test names it.
[ "$(uname -s)" = Linux ] || exit 0
case "${1:-}" in
    "")
        { has_driver && has_loader; } || install "Vulkan driver for the WebGPU backend" mesa-vulkan-drivers libvulkan1
        command -v "${CXX:-c++}" >/dev/null || install "C++ compiler for the CUDA backend's host driver" g++
        command -v pkg-config >/dev/null || install "pkg-config for the tests of the C interface" pkg-config
        command -v valgrind >/dev/null || install "valgrind for the tests of the C interface" valgrind
        ;;
    venv) venv ;;
    nvrtc) dirname "$(in_venv NVRTC 'nvidia/*/lib/libnvrtc.so.*')" ;;
    cuobjdump) in_venv disassembler 'triton/backends/nvidia/bin/cuobjdump' ;;
    browser) has_browser || install "browser for the test in a browser" chromium ;;
    *) echo "setup: unknown argument $1" >&2; exit 2 ;;
esac
