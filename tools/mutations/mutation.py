"""What a breakage is."""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """A breakage: a text that occurs in a file exactly once, what to put in its place, and the arguments of the
    `cargo test` commands of which one must then fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def is_read(self) -> bool:
        """Whether the tests read the file when they run, and need not be built for it."""
        return self.file.startswith(("shaders/", "kernels/"))
