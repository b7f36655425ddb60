#!/usr/bin/env python3
"""Looks at the instructions of the kernels that tests/cuda_compile.rs has compiled: those whose variants say that they
move 16 bytes at a time must load so, and those that do not must not.

    sass_test.py FOLDER_OF_CUBINS CUOBJDUMP
"""

import re
import subprocess
import sys
from pathlib import Path

WIDE = re.compile(r"\bLDG\.[A-Z0-9.]*128\b")


def main():
    folder, cuobjdump = Path(sys.argv[1]), sys.argv[2]
    files = sorted(folder.glob("*.cubin"))
    if not files:
        sys.exit(f"{folder}: no .cubin files; run `cargo test --test cuda_compile` first")
    wrong, wide = [], 0
    for path in files:
        listing = subprocess.run([cuobjdump, "--dump-sass", path], check=True, capture_output=True, text=True).stdout
        if "LDG" not in listing and "STG" not in listing:
            sys.exit(f"{path}: no loads and no stores in what {cuobjdump} says")
        found, wanted = bool(WIDE.search(listing)), path.stem.endswith("-wide")
        wide += found
        # Pointwise kernels and stores may be wide where nothing is read so.
        if wanted and not found and not re.search(r"\bSTG\.[A-Z0-9.]*128\b", listing):
            wrong.append(f"{path.name}: no access of 16 bytes")
        if found and not wanted:
            wrong.append(f"{path.name}: an access of 16 bytes that its variant does not name")
    print(f"{len(files)} kernels, {wide} with loads of 16 bytes")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
