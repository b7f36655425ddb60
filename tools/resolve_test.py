#!/usr/bin/env python3
"""Checks that one program can have candle, burn and normkit with their CUDA features.

All of them use cudarc, of which a program has one, with the features of everybody: two ways of linking to CUDA that exclude each other
must not meet, and neither may two versions of it. Nothing is built, which would take CUDA's compiler: cargo is asked what it would build.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = f"""
[package]
name = "together"
version = "0.0.0"
edition = "2024"

[workspace]

[dependencies]
burn = {{ version = "~0.22.1", default-features = false, features = ["std", "cuda"] }}
candle-core = {{ version = "0.11", features = ["cuda"] }}
normkit = {{ path = "{ROOT}", features = ["cuda"] }}
"""
# cudarc's build script refuses any two of these.
EXCLUSIVE = {"dynamic-loading", "dynamic-linking", "static-linking"}


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Cargo.toml").write_text(MANIFEST)
        (Path(folder) / "src").mkdir()
        (Path(folder) / "src" / "lib.rs").write_text("")
        tree = subprocess.run(
            ["cargo", "tree", "--edges", "normal,features", "--invert", "cudarc"],
            cwd=folder,
            capture_output=True,
            text=True,
        )
    # With two versions, cargo says that the name is ambiguous.
    if tree.returncode != 0:
        print(tree.stderr, file=sys.stderr)
        return 1
    features = set(re.findall(r'^[├└]── cudarc feature "([^"]+)"', tree.stdout, re.MULTILINE))
    users = [user for user in ("candle-core", "cubecl-cuda", "normkit") if f"{user} v" not in tree.stdout]
    met = features & EXCLUSIVE
    if users or len(met) > 1:
        print(f"cudarc: not used by {users}, ways of linking {sorted(met)}", file=sys.stderr)
        return 1
    print(f"candle, burn and normkit share {tree.stdout.splitlines()[0]}: {', '.join(sorted(features))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
