"""Breakages of the oracle."""

from __future__ import annotations

from .mutation import Mutation

MUTATIONS = [
    Mutation("oracle: gradient of a branch's output for that of its input", "src/oracle/inner.rs",
             "ExpectedGradients { input: inner.input,",
             "ExpectedGradients { input: around.input.clone(),",
             ("--features check --lib oracle",)),
]
