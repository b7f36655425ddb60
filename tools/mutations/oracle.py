"""Breakages of the oracle."""

from __future__ import annotations

from .mutation import Mutation

MUTATIONS = [
    Mutation("oracle: a share of alpha for the rest of it", "src/oracle/inner.rs",
             "[Sized::new(R::new(1.0)).plus(Sized::new(-share)), Sized::new(share)]",
             "[Sized::new(share), Sized::new(R::new(1.0)).plus(Sized::new(-share))]",
             ("--features check --test hypersphere",)),
    Mutation("oracle: alpha's gradient where there is none", "src/oracle/inner.rs",
             "let sign = if z == 0.0 { 0.0 } else { z.signum() };",
             "let sign = z.signum();",
             ("--features check --lib oracle",)),
    Mutation("oracle: gradient of a branch's output for that of its input", "src/oracle/inner.rs",
             "ExpectedGradients { input: inner.input,",
             "ExpectedGradients { input: around.input.clone(),",
             ("--features check --lib oracle",)),
]
