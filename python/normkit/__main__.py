"""``python -m normkit``: what can be used here, and why what cannot, cannot."""

from __future__ import annotations

import argparse
import json
import sys

import normkit


def describe() -> str:
    """One line for each device, aligned, and the names that ``backend=`` takes here."""
    found = normkit.devices()
    width = max(len(device["backend"]) for device in found)
    lines = [f"normkit {normkit.__version__}"]
    for device in found:
        reason = "" if device["usable"] == "yes" else "no: "
        lines.append(f"  {device['backend']:{width}}  {reason}{device['detail']}")
    names = ", ".join(f'"{name}"' for name in normkit.backends())
    lines.append(f"backend= takes None or one of {names}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Prints the description; the exit code is 0."""
    parser = argparse.ArgumentParser(prog="python -m normkit", description="What normkit can use here.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    if parser.parse_args(arguments).json:
        state = {"version": normkit.__version__, "backends": normkit.backends(), "devices": normkit.devices()}
        print(json.dumps(state, indent=2))
    else:
        print(describe())
    return 0


if __name__ == "__main__":
    sys.exit(main())
