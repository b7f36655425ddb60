#!/usr/bin/env bash
# Makes sure that a tool is there which the tests need, or installs Debian's, or says what to install.
#
#   tools/setup.sh            a Vulkan driver, for the WebGPU backend: Mesa's software adapter (llvmpipe); a C++ compiler, for
#                             the host driver of the CUDA backend
#   tools/setup.sh browser    a browser with WebGPU, for `make web-test`: Chromium
#   tools/setup.sh nvrtc      NVRTC, which compiles CUDA kernels without a GPU: NVIDIA's package, for this checkout only;
#                             prints the folder it is in
#   tools/setup.sh cuobjdump  the disassembler for what NVRTC makes, from the package of Triton; prints its path
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

# from_pip PACKAGE PATTERN: prints the file that matches in target/tools, after taking it from the Python package there.
from_pip() {
    local tools found
    tools="$(cd "$(dirname "$0")/.." && pwd)/target/tools"
    found=$(compgen -G "$tools/$2" | head -n 1 || true)
    if [ -z "$found" ]; then
        python3 -m pip --version >/dev/null 2>&1 || install "pip, which fetches $1" python3-pip
        echo "setup: fetching Python's package $1" >&2
        mkdir -p "$tools/wheels"
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$tools/wheels" "$1" >&2 \
            || { echo "setup: fetching $1 failed: python3 with pip and a package index are needed" >&2; return 1; }
        # Of a package as large as Triton only what is asked for.
        python3 - "$tools" "$2" <<'PYTHON'
import fnmatch, pathlib, sys, zipfile

tools, pattern = pathlib.Path(sys.argv[1]), sys.argv[2]
folder = pattern.rsplit("/", 1)[0]
for wheel in (tools / "wheels").glob("*.whl"):
    with zipfile.ZipFile(wheel) as package:
        for name in package.namelist():
            if fnmatch.fnmatch(name.rsplit("/", 1)[0], folder):
                (tools / package.extract(name, tools)).chmod(0o755)
    wheel.unlink()
PYTHON
        found=$(compgen -G "$tools/$2" | head -n 1 || true)
    fi
    [ -n "$found" ] || { echo "setup: $1 has no file $2" >&2; return 1; }
    echo "$found"
}

# Only Linux needs Vulkan (macOS has Metal, Windows Direct3D), and only there is the browser ours to install: elsewhere
# the test names it.
[ "$(uname -s)" = Linux ] || exit 0
case "${1:-}" in
    "")
        { has_driver && has_loader; } || install "Vulkan driver for the WebGPU backend" mesa-vulkan-drivers libvulkan1
        command -v "${CXX:-c++}" >/dev/null || install "C++ compiler for the CUDA backend's host driver" g++
        ;;
    nvrtc) dirname "$(from_pip nvidia-cuda-nvrtc 'nvidia/*/lib/libnvrtc.so.*')" ;;
    cuobjdump) from_pip triton 'triton/backends/nvidia/bin/cuobjdump' ;;
    browser) has_browser || install "browser for the test in a browser" chromium ;;
    *) echo "setup: unknown argument $1" >&2; exit 2 ;;
esac
