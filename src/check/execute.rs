//! Runs a case and brings back what was written.

use super::arena::Arena;
use super::case::{Case, Parameters};
use super::operands;
use crate::norm::{
    Gradients, HiddenFrom, HypersphereGradients, HypersphereStatistics, HypersphereStep, RotaryTables,
    Sandwich, SandwichGradients, SandwichStatistics,
};
use crate::spec::Spec;
use crate::tensor::{DType, View, ViewMut};
use crate::{Error, Result, Stream, Workspace};

/// What a case wrote to one of its outputs.
#[derive(Debug, Clone)]
pub struct Computed {
    /// `output`, `hidden`, `grad_input`, or another gradient.
    pub name: &'static str,
    /// The output's dtype.
    pub dtype: DType,
    /// The elements in row-major order.
    pub values: Vec<f64>,
    /// Nothing around the elements was written, nor anything that is only read.
    pub guards_intact: bool,
}

impl Computed {
    /// The elements' bits, with every NaN as the same one, for comparing runs.
    pub fn bits(&self) -> Vec<u64> {
        self.values.iter().map(|x| if x.is_nan() { u64::MAX } else { x.to_bits() }).collect()
    }
}

/// A case's operands, as they are after rounding to their dtypes, and its results. Tensors of the input's shape are in
/// its row-major order.
pub(super) struct Executed {
    pub(super) input: Vec<f64>,
    pub(super) grad_output: Vec<f64>,
    pub(super) weight: Option<Vec<f64>>,
    pub(super) bias: Option<Vec<f64>>,
    pub(super) alpha: Option<Vec<f64>>,
    /// In the mask's own shape.
    pub(super) mask: Option<Vec<f64>>,
    pub(super) before: Option<Vec<f64>>,
    pub(super) after: Option<Vec<f64>>,
    /// Bias and scale.
    pub(super) branch: [Option<Vec<f64>>; 2],
    /// Cosines and sines, in the tables' own shape.
    pub(super) angles: Option<[Vec<f64>; 2]>,
    /// Which of their rows each row has.
    pub(super) positions: Option<Vec<f64>>,
    pub(super) grad_hidden: Option<Vec<f64>>,
    /// Weight and bias of the norm of a branch.
    pub(super) of_inner: [Option<Vec<f64>>; 2],
    /// Alpha of a mix.
    pub(super) mix: Option<Vec<f64>>,
    /// Means and variances.
    pub(super) running: Option<(Vec<f64>, Vec<f64>)>,
    pub(super) outputs: Vec<Computed>,
}

/// Outputs in the order they are reported.
const OUTPUTS: [&str; 13] = [
    "output",
    "hidden",
    "grad_input",
    "grad_weight",
    "grad_bias",
    "grad_alpha",
    "grad_before",
    "grad_after",
    "grad_branch_bias",
    "grad_branch_scale",
    "grad_inner_weight",
    "grad_inner_bias",
    "grad_mix_alpha",
];

/// Runs the forward and the backward pass of `case`.
pub(super) fn execute(case: &Case, stream: &Stream<'_>) -> Result<Executed> {
    let mut arena = operands::arena(case)?;
    let before = arena.bytes().to_vec();
    match stream {
        Stream::Cpu(_) => {
            let parts = arena.split();
            let mut views = Views::default();
            for (slot, memory) in parts {
                if slot.written {
                    views.written.push((slot.name, slot.view_mut(memory)?));
                } else {
                    views.read.push((slot.name, slot.view(memory)?));
                }
            }
            views.run(case, stream)?;
        }
        #[cfg(feature = "wgpu")]
        Stream::Wgpu(wgpu) => super::wgpu::run(case, &mut arena, stream, wgpu.device())?,
        #[cfg(feature = "cuda")]
        Stream::Cuda(cuda) => super::cuda::run(case, &mut arena, stream, cuda.device())?,
        #[cfg(not(any(feature = "wgpu", feature = "cuda")))]
        Stream::Never(never, _) => match *never {},
    }
    Ok(Executed::new(&arena, &before))
}

impl Executed {
    /// What `arena` holds after the passes; `before` is its memory as it was before them.
    pub(super) fn new(arena: &Arena, before: &[u8]) -> Self {
        let intact: Vec<bool> = (0..arena.slots().len()).map(|slot| arena.is_intact(slot, before)).collect();
        let inputs_intact = arena.slots().iter().zip(&intact).all(|(slot, &intact)| slot.written || intact);
        let outputs = (arena.slots().iter().zip(&intact))
            .filter_map(|(slot, &intact)| {
                let name = OUTPUTS.into_iter().find(|&name| name == slot.name)?;
                let guards_intact = intact && inputs_intact;
                Some(Computed { name, dtype: slot.dtype, values: arena.values(name)?, guards_intact })
            })
            .collect();
        Executed {
            input: arena.values("input").unwrap_or_default(),
            grad_output: arena.values("grad_output").unwrap_or_default(),
            weight: arena.values("weight"),
            bias: arena.values("bias"),
            alpha: arena.values("alpha"),
            mask: arena.values("mask"),
            before: arena.values("before"),
            after: arena.values("after"),
            branch: ["branch_bias", "branch_scale"].map(|name| arena.values(name)),
            angles: arena.values("cos").zip(arena.values("sin")).map(<[_; 2]>::from),
            positions: arena.values("positions"),
            grad_hidden: arena.values("grad_hidden"),
            of_inner: [arena.values("inner_weight"), arena.values("inner_bias")],
            mix: arena.values("mix_alpha"),
            running: arena.values("running_mean").zip(arena.values("running_var")),
            outputs,
        }
    }
}

fn missing(name: &'static str) -> Error {
    Error::argument(name, "an operand", "none")
}

/// Views of a case's operands on one device, by name.
#[derive(Default)]
pub(super) struct Views<'a> {
    pub(super) read: Vec<(&'static str, View<'a>)>,
    pub(super) written: Vec<(&'static str, ViewMut<'a>)>,
}

impl<'a> Views<'a> {
    fn read(&self, name: &'static str) -> Option<View<'a>> {
        self.read.iter().find(|(n, _)| *n == name).map(|(_, view)| view.clone())
    }

    fn take(&mut self, name: &'static str) -> Option<ViewMut<'a>> {
        let at = self.written.iter().position(|(n, _)| *n == name)?;
        Some(self.written.swap_remove(at).1)
    }

    /// Runs or enqueues the passes.
    pub(super) fn run(mut self, case: &Case, stream: &Stream<'_>) -> Result<()> {
        if case.fusion().mix.is_some() {
            return self.run_step(case, stream);
        }
        if case.fusion().inner.is_some() {
            return self.run_sandwich(case, stream);
        }
        let method = case.method(Parameters {
            weight: self.read("weight"),
            bias: self.read("bias"),
            alpha: self.read("alpha"),
            mask: self.read("mask"),
            branch: [self.read("branch_bias"), self.read("branch_scale")],
            others: [self.read("before"), self.read("after")],
            tables: self.read("cos").zip(self.read("sin")).map(|(cos, sin)| {
                let positions = self.read("positions");
                RotaryTables { cos, sin, positions }
            }),
            running: self.read("running_mean").zip(self.read("running_var")),
        })?;
        let input = self.read("input").ok_or_else(|| missing("input"))?;
        let grad_output = self.read("grad_output").ok_or_else(|| missing("grad_output"))?;
        let mut output = self.take("output").ok_or_else(|| missing("output"))?;
        let (mut statistics, mut hidden) = (self.take("statistics"), self.take("hidden"));
        method.forward_hidden_into(&input, &mut output, hidden.as_mut(), statistics.as_mut(), stream)?;
        // The pair that `in_place` gives is the way to read what has been written.
        let statistics = statistics.as_mut().map(|view| view.in_place().0);
        let grads = Gradients {
            input: self.take("grad_input"),
            weight: self.take("grad_weight"),
            bias: self.take("grad_bias"),
            alpha: self.take("grad_alpha"),
            before: self.take("grad_before"),
            after: self.take("grad_after"),
            branch_bias: self.take("grad_branch_bias"),
            branch_scale: self.take("grad_branch_scale"),
        };
        let (statistics, grad_hidden) = (statistics.as_ref(), self.read("grad_hidden"));
        let mut workspace = Workspace::new();
        method.backward_hidden_into(
            &grad_output,
            grad_hidden.as_ref(),
            &input,
            statistics,
            grads,
            &mut workspace,
            stream,
        )
    }

    /// The same of a norm with another one of its branch.
    fn run_sandwich(mut self, case: &Case, stream: &Stream<'_>) -> Result<()> {
        let norms = case.sandwich(
            Parameters { weight: self.read("weight"), bias: self.read("bias"), ..Parameters::default() },
            Parameters {
                weight: self.read("inner_weight"),
                bias: self.read("inner_bias"),
                ..Parameters::default()
            },
        )?;
        let norms = Sandwich::new(&*norms[0], &*norms[1]);
        let input = self.read("input").ok_or_else(|| missing("input"))?;
        let residual = self.read("before").ok_or_else(|| missing("before"))?;
        let grad_output = self.read("grad_output").ok_or_else(|| missing("grad_output"))?;
        let grad_hidden = self.read("grad_hidden");
        let mut output = self.take("output").ok_or_else(|| missing("output"))?;
        let mut hidden = self.take("hidden");
        let mut statistics = [
            self.take("inner_statistics").ok_or_else(|| missing("inner_statistics"))?,
            self.take("statistics").ok_or_else(|| missing("statistics"))?,
        ];
        let [after, before] = statistics.each_mut().map(|view| Some(view.reborrow()));
        let to = SandwichStatistics { after, before };
        norms.forward_into(&input, &residual, &mut output, hidden.as_mut(), to, stream)?;
        let statistics = statistics.each_mut().map(|view| view.in_place().0);
        let grads = SandwichGradients {
            input: self.take("grad_input"),
            residual: self.take("grad_before"),
            after_weight: self.take("grad_inner_weight"),
            after_bias: self.take("grad_inner_bias"),
            before_weight: self.take("grad_weight"),
            before_bias: self.take("grad_bias"),
        };
        norms.backward_into(
            &grad_output,
            grad_hidden.as_ref(),
            &input,
            HiddenFrom::Residual(&residual),
            statistics.each_ref(),
            grads,
            &mut Workspace::new(),
            stream,
        )
    }

    /// The same of a step on the hypersphere, whose stream is the input, and whose sublayer's output the residual.
    fn run_step(mut self, case: &Case, stream: &Stream<'_>) -> Result<()> {
        let Spec::Norm(norm) = case.lower()? else { return Err(case.unknown()) };
        let mix = norm.fusion.mix.ok_or_else(|| case.unknown())?;
        let alpha = self.read("mix_alpha").ok_or_else(|| missing("mix_alpha"))?;
        let step = HypersphereStep::of_view(alpha).alpha_scale(mix.alpha_scale).eps(norm.eps);
        let input = self.read("input").ok_or_else(|| missing("input"))?;
        let branch = self.read("before").ok_or_else(|| missing("before"))?;
        let grad_output = self.read("grad_output").ok_or_else(|| missing("grad_output"))?;
        let mut output = self.take("output").ok_or_else(|| missing("output"))?;
        let mut statistics = Vec::new();
        for name in ["inner_statistics", "mix_statistics", "statistics"] {
            statistics.push(self.take(name).ok_or_else(|| missing(name))?);
        }
        {
            let mut each = statistics.iter_mut().map(|view| Some(view.reborrow()));
            let mut next = || each.next().flatten();
            let to = HypersphereStatistics { input: next(), branch: next(), output: next() };
            step.forward_into(&input, &branch, &mut output, to, stream)?;
        }
        let saved: Vec<View<'_>> = statistics.iter_mut().map(|view| view.in_place().0).collect();
        let [of_input, of_branch, of_output] = &saved[..] else { return Err(missing("statistics")) };
        let grads = HypersphereGradients {
            input: self.take("grad_input"),
            branch: self.take("grad_before"),
            alpha: self.take("grad_mix_alpha"),
        };
        step.backward_into(
            &grad_output,
            &input,
            &branch,
            [of_input, of_branch, of_output],
            grads,
            &mut Workspace::new(),
            stream,
        )
    }
}
