//! The CPU backend: SIMD chosen at run time, threads over fixed chunks of rows.
//!
//! `norm` and `norm_backward` (with `backward_pass`) set up a norm's launch and choose its schedule: `row`, `column` or `split`, of
//! which each gives the same bits. They share `leaf` (moments and sums of one leaf), `statistics` (numbers per row: merged, finished) and
//! `gradient`. `row` leaves rows without anything out of the ordinary to `usual`, several at a time, and parts of 16-bit
//! rows to `direct`; rows that are spread in short runs are first brought together (`gathered`). `column` has `line_sums`
//! and `lines`, the same arithmetic along neighbouring rows. `pointwise` runs the functions without statistics, `tanh` and
//! `inverse_root`, by the passes of `curve`; `between` has the launches on numbers per row. Rows of a norm with something around it pass through `fused` and
//! `fused_backward`, which brings
//! them to `row` and takes the results on by the functions in `fusion`, and to 8 bits by `codes`, which `outliers` are
//! set apart from; `branch` has what a residual's branch is shifted and scaled by, and its gradients, `inner` a branch's norm of its
//! own, and `mix` the weights of two norms that are shares of one. Backward passes run by `chunks` of rows, whose sums they are to add.
//!
//! What is done to slices are small operations, each one body that [`Isa`] compiles for every instruction set: sums in
//! `lanes`, single passes in `elementwise`, powers in `power`. They compute with blocks of numbers (`simd`), for x86-64 in
//! registers that are named (`avx2`, `avx512`). `source` loads and `sink` stores any dtype and stride (`stored`), `reader` keeps what
//! was loaded; `affine` sums parameter gradients over rows. Every sum is in the order of [`crate::plan::tree`].

mod affine;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod backward_pass;
mod between;
mod branch;
mod chunks;
mod codes;
mod column;
mod column_backward;
mod copy;
mod curve;
#[cfg(test)]
mod definition;
mod direct;
mod dropout;
mod elementwise;
mod floats;
mod fused;
mod fused_backward;
mod fusion;
mod gathered;
mod gradient;
mod inner;
mod inverse_root;
mod isa;
mod lanes;
mod launch;
mod leaf;
mod leaf_backward;
mod line_sums;
mod lines;
mod memory;
mod mix;
mod norm;
mod norm_backward;
mod outliers;
mod pieces;
mod pointwise;
mod power;
mod reader;
pub(super) mod real;
mod rotary;
mod row;
mod row_backward;
mod runs;
mod simd;
mod sink;
mod source;
mod split;
mod statistics;
mod stored;
mod sub_rows;
mod tanh;
mod team;
mod threads;
mod usual;
mod usual_backward;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use copy::copy;
pub use isa::Isa;

use crate::spec::{Norm, Spec};
use crate::tensor::{DType, View, ViewMut};
use crate::{Error, Result, Workspace};
use team::Team;
use threads::Threads;

pub use threads::Pool;

/// How the CPU runs launches. The numbers do not depend on it.
///
/// By default with the best instruction set there is, on the rayon pool that the caller is in, or, outside of any, on the calling
/// thread and those that the process keeps for it: as many as rayon's global pool has. These serve one call at a time, and a call that meets
/// another runs on its own thread alone. Without the feature `rayon` work is done on the calling thread.
#[derive(Debug, Clone)]
pub struct Cpu {
    isa: Isa,
    threads: Threads,
    schedule: Option<Schedule>,
}

/// How a norm's rows are cut into tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Schedule {
    /// Rows one after the other, a chunk of them a task.
    Row,
    /// Neighbouring rows together, where they lie side by side; rows of other layouts as with [`Row`](Schedule::Row).
    Column,
    /// The parts of a row as tasks of their own, in three steps.
    Split,
}

impl Default for Cpu {
    fn default() -> Self {
        Cpu { isa: Isa::best(), threads: Threads::usual(), schedule: None }
    }
}

impl Cpu {
    /// The same with another instruction set; an error if this machine lacks it.
    pub fn with_isa(self, isa: Isa) -> Result<Self> {
        if !isa.is_available() {
            let here: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
            return Err(Error::argument("isa", format!("one of {}", here.join(", ")), isa));
        }
        Ok(Cpu { isa, ..self })
    }

    /// The same on `threads` threads, the calling one among them. The others are its own, shared by its clones.
    /// They serve one call at a time, and a call that meets another runs on its own thread alone; they stay awake for 200 µs after
    /// a call.
    pub fn with_threads(self, threads: usize) -> Result<Self> {
        if threads == 0 {
            return Err(Error::argument("threads", "at least 1", threads));
        }
        if threads == 1 {
            return Ok(Cpu { threads: Threads::Caller, ..self });
        }
        let team = Team::new(threads).map_err(|e| Error::Backend {
            backend: "cpu",
            what: format!("a team of {threads} threads"),
            reason: e.to_string(),
        })?;
        Ok(self.with_pool(std::sync::Arc::new(team)))
    }

    /// The same on an engine's own threads.
    pub fn with_pool(self, pool: std::sync::Arc<dyn Pool>) -> Self {
        Cpu { threads: Threads::Pool(pool), ..self }
    }

    /// The same with norms always run by one schedule, where it can run them. For experiments: the choice that is made
    /// without it is the quickest known, and the numbers are the same.
    pub fn with_schedule(self, schedule: Schedule) -> Self {
        Cpu { schedule: Some(schedule), ..self }
    }

    /// How many threads tasks run on.
    fn thread_count(&self) -> usize {
        self.threads.count()
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }
}

/// Runs a forward pass.
pub(crate) fn forward(spec: &Spec, operands: &super::Forward<'_>, cpu: &Cpu) -> Result<()> {
    tracing::debug!(target: "normkit", backend = "cpu", isa = %cpu.isa, "forward");
    match (spec, operands.input.dtype().compute()) {
        (Spec::Norm(spec), DType::F64) => norm::forward::<f64>(spec, operands, cpu),
        (Spec::Norm(spec), _) => norm::forward::<f32>(spec, operands, cpu),
        (Spec::Pointwise(spec), DType::F64) => pointwise::forward::<f64>(spec, operands, cpu),
        (Spec::Pointwise(spec), _) => pointwise::forward::<f32>(spec, operands, cpu),
    }
}

/// Runs a forward pass, that of a mix too.
pub(crate) fn forward_of(spec: &Spec, operands: super::Forward<'_>, cpu: &Cpu) -> Result<()> {
    match (spec, operands.input.dtype().compute()) {
        (Spec::Norm(norm), DType::F64) if norm.fusion.mix.is_some() => {
            mix::forward::<f64>(norm, operands, cpu)
        }
        (Spec::Norm(norm), _) if norm.fusion.mix.is_some() => mix::forward::<f32>(norm, operands, cpu),
        _ => forward(spec, &operands, cpu),
    }
}

/// Runs forward passes of which none writes what another reads or writes: norms of one compute dtype in one round of the threads.
pub(crate) fn forward_together(problems: &[(Spec, super::Forward<'_>)], cpu: &Cpu) -> Result<()> {
    let norms = norms_of(problems);
    let compute = |of: &(Spec, super::Forward<'_>)| of.1.input.dtype().compute();
    match (norms, problems.first().map(compute)) {
        (Some(norms), Some(dtype)) if problems.iter().all(|of| compute(of) == dtype) => {
            tracing::debug!(target: "normkit", backend = "cpu", isa = %cpu.isa, norms = norms.len(), "forward");
            match dtype {
                DType::F64 => norm::forward_together::<f64>(&norms, cpu),
                _ => norm::forward_together::<f32>(&norms, cpu),
            }
        }
        _ => problems.iter().try_for_each(|(spec, operands)| forward(spec, operands, cpu)),
    }
}

/// Runs backward passes of which none writes what another reads or writes: norms of one compute dtype in one round of the threads.
pub(crate) fn backward_together(
    problems: &[(Spec, super::Backward<'_>)],
    workspace: &mut Workspace,
    cpu: &Cpu,
) -> Result<()> {
    let norms = norms_of(problems);
    let compute = |of: &(Spec, super::Backward<'_>)| of.1.input.dtype().compute();
    match (norms, problems.first().map(compute)) {
        (Some(norms), Some(dtype)) if problems.iter().all(|of| compute(of) == dtype) => match dtype {
            DType::F64 => norm_backward::backward_together::<f64>(&norms, workspace, cpu),
            _ => norm_backward::backward_together::<f32>(&norms, workspace, cpu),
        },
        _ => {
            let mut each = problems.iter();
            each.try_for_each(|(spec, operands)| backward(spec, operands, workspace, cpu))
        }
    }
}

/// The problems, if all are norms.
fn norms_of<O>(problems: &[(Spec, O)]) -> Option<Vec<(&Norm, &O)>> {
    let norms = problems.iter().map(|(spec, operands)| match spec {
        Spec::Norm(norm) => Some((norm, operands)),
        Spec::Pointwise(_) => None,
    });
    norms.collect()
}

/// Runs a backward pass.
pub(crate) fn backward(
    spec: &Spec,
    operands: &super::Backward<'_>,
    workspace: &mut Workspace,
    cpu: &Cpu,
) -> Result<()> {
    tracing::debug!(target: "normkit", backend = "cpu", isa = %cpu.isa, "backward");
    match (spec, operands.input.dtype().compute()) {
        (Spec::Norm(spec), DType::F64) => norm_backward::backward::<f64>(spec, operands, workspace, cpu),
        (Spec::Norm(spec), _) => norm_backward::backward::<f32>(spec, operands, workspace, cpu),
        (Spec::Pointwise(spec), DType::F64) => pointwise::backward::<f64>(spec, operands, workspace, cpu),
        (Spec::Pointwise(spec), _) => pointwise::backward::<f32>(spec, operands, workspace, cpu),
    }
}

/// Codes of i8 in flagged columns become 0.
pub(crate) fn zero_columns(codes: &ViewMut<'_>, flags: &View<'_>, kept: usize, cpu: &Cpu) -> Result<()> {
    outliers::zero_columns(codes, flags, kept, cpu)
}

/// Runs a backward pass, that of a mix too.
pub(crate) fn backward_of(
    spec: &Spec,
    operands: super::Backward<'_>,
    workspace: &mut Workspace,
    cpu: &Cpu,
) -> Result<()> {
    match (spec, operands.input.dtype().compute()) {
        (Spec::Norm(norm), DType::F64) if norm.fusion.mix.is_some() => {
            mix::backward::<f64>(norm, operands, workspace, cpu)
        }
        (Spec::Norm(norm), _) if norm.fusion.mix.is_some() => {
            mix::backward::<f32>(norm, operands, workspace, cpu)
        }
        _ => backward(spec, &operands, workspace, cpu),
    }
}

/// Runs a launch between passes.
pub(crate) fn between(dtype: DType, launch: super::Between<'_>, _: &Cpu) -> Result<()> {
    match dtype {
        DType::F64 => between::run::<f64>(launch),
        _ => between::run::<f32>(launch),
    }
}
