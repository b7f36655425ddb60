#!/usr/bin/env bash
# Installs the C interface: capi/install.sh BUILT PREFIX [DESTDIR]
#
# BUILT is the folder that cargo has built the libraries into. The files go to DESTDIR/PREFIX, and normkit.pc says PREFIX.
set -euo pipefail
built=$1 prefix=$2 to="${3:-}$2"
here="$(cd "$(dirname "$0")" && pwd)"
version="$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"/\1/p' "$here/../Cargo.toml")"
case "$prefix" in
    /*) ;;
    *) echo "install: PREFIX: expected an absolute path, found $prefix" >&2; exit 2 ;;
esac
for library in libnormkit_capi.so libnormkit_capi.a; do
    [ -f "$built/$library" ] || { echo "install: no $library in $built; cargo build --release -p normkit-capi" >&2; exit 1; }
done

install -d "$to/include" "$to/lib/pkgconfig"
install -m 644 "$here/include/normkit.h" "$to/include/"
install -m 644 "$built/libnormkit_capi.a" "$to/lib/libnormkit.a"
# The library under its full version; the name that the loader looks for, which build.rs has chosen, and the linker's.
soname="$(LC_ALL=C readelf -d "$built/libnormkit_capi.so" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')"
install -m 755 "$built/libnormkit_capi.so" "$to/lib/libnormkit.so.$version"
ln -sf "libnormkit.so.$version" "$to/lib/$soname"
ln -sf "$soname" "$to/lib/libnormkit.so"
sed -e "s|@PREFIX@|$prefix|" -e "s|@VERSION@|$version|" "$here/normkit.pc.in" > "$to/lib/pkgconfig/normkit.pc"
chmod 644 "$to/lib/pkgconfig/normkit.pc"
