//! The CPU backend: SIMD chosen at run time, threads over fixed chunks of rows.
//!
//! `row` and `pointwise` hold the schedules. What they do to slices are small operations, each one body that [`Isa`]
//! compiles for every instruction set: sums in `lanes`, single passes in `elementwise`, tanh in `math`. `operand`
//! loads and stores any dtype and stride; `affine` sums parameter gradients over rows. Every sum is in the order of
//! [`crate::plan::tree`].

mod affine;
mod elementwise;
mod isa;
mod lanes;
mod math;
mod operand;
mod pointwise;
mod real;
mod row;
mod row_backward;

pub use isa::Isa;

use super::params_per_column;
use crate::plan::tree::{LEAF, chunk_rows};
use crate::plan::{self, Grid, Walk};
use crate::spec::{Norm, Pointwise, Spec};
use crate::tensor::{DType, Layout, Overlap, View, ViewMut, overlap};
use crate::{Error, Result, Workspace};
use operand::{Sink, Source};
use real::Real;
use smallvec::SmallVec;
use std::cell::RefCell;

/// How the CPU runs launches. The numbers do not depend on it.
#[derive(Debug, Clone)]
pub struct Cpu {
    isa: Isa,
    threads: Threads,
}

/// Where tasks run.
#[derive(Debug, Clone)]
enum Threads {
    /// On the calling thread.
    Caller,
    /// On the thread pool that the caller is in, or the global one.
    #[cfg(feature = "rayon")]
    Ambient,
    /// On a pool of their own.
    #[cfg(feature = "rayon")]
    Own(std::sync::Arc<rayon::ThreadPool>),
}

impl Default for Cpu {
    fn default() -> Self {
        #[cfg(feature = "rayon")]
        let threads = Threads::Ambient;
        #[cfg(not(feature = "rayon"))]
        let threads = Threads::Caller;
        Cpu { isa: Isa::best(), threads }
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

    /// The same on `threads` threads; without the feature `rayon` only 1 is possible.
    pub fn with_threads(self, threads: usize) -> Result<Self> {
        if threads == 1 {
            return Ok(Cpu { threads: Threads::Caller, ..self });
        }
        #[cfg(feature = "rayon")]
        if threads > 1 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let pool = pool.map_err(|e| Error::Backend {
                backend: "cpu",
                what: format!("a pool of {threads} threads"),
                reason: e.to_string(),
            })?;
            return Ok(Cpu { threads: Threads::Own(pool.into()), ..self });
        }
        let most = if cfg!(feature = "rayon") { "at least 1" } else { "1, without the feature rayon" };
        Err(Error::argument("threads", most, threads))
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Runs `task(0)` to `task(count - 1)`, on several threads where the work of `elements` a task is worth it.
    fn for_each(&self, count: usize, elements: usize, task: impl Fn(usize) + Send + Sync) {
        // With 2^16 elements spread out, RMSNorm spent some 40 % of its time on waking threads.
        if count <= 1 || count.saturating_mul(elements) < 1 << 17 {
            return (0..count).for_each(task);
        }
        match &self.threads {
            Threads::Caller => (0..count).for_each(task),
            #[cfg(feature = "rayon")]
            Threads::Ambient => par_for_each(count, task),
            #[cfg(feature = "rayon")]
            Threads::Own(pool) => pool.install(|| par_for_each(count, task)),
        }
    }
}

#[cfg(feature = "rayon")]
fn par_for_each(count: usize, task: impl Fn(usize) + Send + Sync) {
    use rayon::prelude::*;
    (0..count).into_par_iter().for_each(task);
}

/// Tiles of [`LEAF`] numbers.
type Tiles<'t, F> = [&'t mut [F]; TILES];

/// As many as the hungriest schedule needs.
const TILES: usize = 8;

thread_local! {
    /// Tiles, and row leaves of parameter gradients: kept between calls so that launches allocate nothing.
    static SCRATCH: RefCell<(Vec<u64>, Vec<u64>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Lends this thread's tiles, and the vector behind its row leaves.
fn with_tiles<F: Real, R>(body: impl FnOnce(Tiles<'_, F>, &mut Vec<u64>) -> R) -> R {
    SCRATCH.with(|scratch| {
        // Taken out while in use: a task that ran inside another's body would find it empty and grow its own.
        let (mut tiles, mut leaves) = scratch.take();
        tiles.resize(TILES * LEAF, 0);
        let numbers: &mut [F] = &mut bytemuck::cast_slice_mut(&mut tiles)[..TILES * LEAF];
        let mut parts = numbers.chunks_exact_mut(LEAF);
        let result =
            body(std::array::from_fn(|_| parts.next().expect("as many as there are tiles")), &mut leaves);
        scratch.replace((tiles, leaves));
        result
    })
}

/// `len` numbers from a thread's vector.
fn grown<F: Real>(memory: &mut Vec<u64>, len: usize) -> &mut [F] {
    let words = (len * size_of::<F>()).div_ceil(8);
    if memory.len() < words {
        memory.resize(words, 0);
    }
    &mut bytemuck::cast_slice_mut(memory)[..len]
}

/// An operand that is not in host memory; the arguments' checks exclude it.
fn foreign(name: &'static str) -> Error {
    Error::argument(name, "host memory", "memory of another device")
}

/// A launch's index space and the walks of its operands.
struct Folded {
    isa: Isa,
    grid: Grid,
    walks: SmallVec<[Walk; 8]>,
}

impl Folded {
    /// The first tensor is there; an absent one takes its place, so that walks keep their positions and axes merge.
    fn new(isa: Isa, spec: &Spec, tensors: &[Option<&Layout>]) -> Self {
        let present = tensors.iter().flatten().next().copied();
        let tensors: SmallVec<[&Layout; 8]> = tensors.iter().filter_map(|t| t.or(present)).collect();
        let (grid, walks) = plan::fold(spec.shape(), spec.row_axes(), &tensors);
        Folded { isa, grid, walks }
    }

    fn source<'a>(
        &'a self,
        name: &'static str,
        view: &'a View<'_>,
        walk: usize,
        copied: bool,
    ) -> Result<Source<'a>> {
        Source::new(view, &self.grid, &self.walks[walk], self.isa, copied).ok_or_else(|| foreign(name))
    }

    fn optional<'a>(
        &'a self,
        name: &'static str,
        view: Option<&'a View<'_>>,
        walk: usize,
    ) -> Result<Option<Source<'a>>> {
        view.map(|view| self.source(name, view, walk, false)).transpose()
    }

    fn sink<'a>(&'a self, name: &'static str, view: &'a mut ViewMut<'_>, walk: usize) -> Result<Sink<'a>> {
        Sink::new(view, &self.grid, &self.walks[walk], self.isa).ok_or_else(|| foreign(name))
    }

    fn optional_sink<'a>(
        &'a self,
        name: &'static str,
        view: Option<&'a mut ViewMut<'_>>,
        walk: usize,
    ) -> Result<Option<Sink<'a>>> {
        view.map(|view| self.sink(name, view, walk)).transpose()
    }
}

/// The index space of statistics: `[rows, 4]`, row-major; and of a single element.
fn small_grid(rows: usize, cols: usize, offset: usize) -> Folded {
    let layout = Layout::contiguous(&[rows, cols]);
    let (grid, mut walks) = plan::fold(&[rows, cols], &[1], &[&layout]);
    walks[0].offset = offset;
    Folded { isa: Isa::Portable, grid, walks }
}

/// Rows of a forward task: about 2^15 elements.
fn task_rows(cols: usize) -> usize {
    (1usize << 15).div_ceil(cols)
}

/// Runs a forward pass.
pub(crate) fn forward(spec: &Spec, operands: super::Forward<'_>, cpu: &Cpu) -> Result<()> {
    tracing::debug!(target: "normkit", backend = "cpu", isa = %cpu.isa, "forward");
    match (spec, operands.input.dtype().compute()) {
        (Spec::Norm(norm), DType::F64) => forward_norm::<f64>(spec, norm, operands, cpu),
        (Spec::Norm(norm), _) => forward_norm::<f32>(spec, norm, operands, cpu),
        (Spec::Pointwise(function), DType::F64) => forward_pointwise::<f64>(spec, function, operands, cpu),
        (Spec::Pointwise(function), _) => forward_pointwise::<f32>(spec, function, operands, cpu),
    }
}

/// Runs a backward pass.
pub(crate) fn backward(
    spec: &Spec,
    operands: super::Backward<'_>,
    workspace: &mut Workspace,
    cpu: &Cpu,
) -> Result<()> {
    tracing::debug!(target: "normkit", backend = "cpu", isa = %cpu.isa, "backward");
    match (spec, operands.input.dtype().compute()) {
        (Spec::Norm(norm), DType::F64) => backward_norm::<f64>(spec, norm, operands, workspace, cpu),
        (Spec::Norm(norm), _) => backward_norm::<f32>(spec, norm, operands, workspace, cpu),
        (Spec::Pointwise(_), DType::F64) => backward_pointwise::<f64>(spec, operands, workspace, cpu),
        (Spec::Pointwise(_), _) => backward_pointwise::<f32>(spec, operands, workspace, cpu),
    }
}

/// Runs a launch between passes.
pub(crate) fn between(_: DType, _: super::Between<'_>, _: &Cpu) -> Result<()> {
    todo!("TEMPORARY")
}

fn forward_norm<F: Real>(
    whole: &Spec,
    spec: &Norm,
    mut operands: super::Forward<'_>,
    cpu: &Cpu,
) -> Result<()> {
    let super::Forward { input, weight, bias, output, statistics, .. } = &mut operands;
    let Some(output) = output else { todo!("TEMPORARY") };
    let (weight, bias) = (weight.as_ref(), bias.as_ref());
    let in_place = overlap(input, &output.as_view()) == Overlap::Same;
    let layouts =
        [Some(&*input), Some(&output.as_view()), weight, bias].map(|t| t.map(|t| t.layout().clone()));
    let folded = Folded::new(cpu.isa, whole, &layouts.each_ref().map(|l| l.as_ref()));
    let Grid { rows, cols, .. } = folded.grid;
    let statistics_grid =
        small_grid(rows, crate::spec::STATISTICS, statistics.as_ref().map_or(0, |s| s.layout().offset()));
    let job = row::Forward {
        spec,
        cols,
        input: folded.source("input", input, 0, in_place)?,
        weight: folded.optional("weight", weight, 2)?,
        bias: folded.optional("bias", bias, 3)?,
        output: folded.sink("output", output, 1)?,
        statistics: statistics_grid.optional_sink("statistics", statistics.as_mut(), 0)?,
    };
    let step = task_rows(cols);
    cpu.for_each(rows.div_ceil(step), step * cols, |task| {
        let range = task * step..rows.min((task + 1) * step);
        with_tiles::<F, _>(|tiles, _| row::forward(&job, cpu.isa, range, tiles));
    });
    Ok(())
}

fn backward_norm<F: Real>(
    whole: &Spec,
    spec: &Norm,
    mut operands: super::Backward<'_>,
    workspace: &mut Workspace,
    cpu: &Cpu,
) -> Result<()> {
    let super::Backward {
        grad_output, input, weight, statistics, grad_input, grad_weight, grad_bias, ..
    } = &mut operands;
    let Some(statistics) = statistics else { return Err(foreign("statistics")) };
    let weight = weight.as_ref();
    let in_place =
        (grad_input.as_ref()).is_some_and(|view| overlap(grad_output, &view.as_view()) == Overlap::Same);
    let of = |view: &Option<ViewMut<'_>>| view.as_ref().map(|view| view.layout().clone());
    let written = [of(grad_input), of(grad_weight), of(grad_bias)];
    let folded = Folded::new(
        cpu.isa,
        whole,
        &[
            Some(grad_output.layout()),
            Some(input.layout()),
            written[0].as_ref(),
            weight.map(View::layout),
            written[1].as_ref(),
            written[2].as_ref(),
        ],
    );
    let Grid { rows, cols, .. } = folded.grid;
    let statistics_grid = small_grid(rows, crate::spec::STATISTICS, statistics.layout().offset());
    let job = row_backward::Backward {
        spec,
        cols,
        grad_output: folded.source("grad_output", grad_output, 0, in_place)?,
        input: folded.source("input", input, 1, false)?,
        statistics: statistics_grid.source("statistics", statistics, 0, false)?,
        weight: folded.optional("weight", weight, 3)?,
        grad_input: folded.optional_sink("grad_input", grad_input.as_mut(), 2)?,
        wants_weight: grad_weight.is_some(),
        wants_bias: grad_bias.is_some(),
    };
    let wanted = usize::from(job.wants_weight) + usize::from(job.wants_bias);
    let chunk = chunk_rows(rows, cols, params_per_column(whole), size_of::<F>());
    let partials = workspace.host::<F>(rows.div_ceil(chunk) * cols * wanted)?;
    run_chunks(rows, chunk, cols, cols * wanted, partials, cpu, |range, partials, leaves, tiles| {
        row_backward::backward(&job, cpu.isa, range, partials, leaves, tiles);
    });
    let weight = folded.optional_sink("grad_weight", grad_weight.as_mut(), 4)?;
    let bias = folded.optional_sink("grad_bias", grad_bias.as_mut(), 5)?;
    row_backward::finish(weight.as_ref(), bias.as_ref(), partials, cols, cpu);
    Ok(())
}

fn forward_pointwise<F: Real>(
    whole: &Spec,
    _: &Pointwise,
    mut operands: super::Forward<'_>,
    cpu: &Cpu,
) -> Result<()> {
    let super::Forward { input, weight, bias, alpha, output, .. } = &mut operands;
    let Some(output) = output else { return Ok(()) };
    let (weight, bias) = (weight.as_ref(), bias.as_ref());
    let in_place = overlap(input, &output.as_view()) == Overlap::Same;
    let layouts =
        [Some(&*input), Some(&output.as_view()), weight, bias].map(|t| t.map(|t| t.layout().clone()));
    let folded = Folded::new(cpu.isa, whole, &layouts.each_ref().map(|l| l.as_ref()));
    let Grid { rows, cols, .. } = folded.grid;
    let job = pointwise::Forward {
        cols,
        alpha: alpha_of::<F>(alpha.as_ref())?,
        input: folded.source("input", input, 0, in_place)?,
        weight: folded.optional("weight", weight, 2)?,
        bias: folded.optional("bias", bias, 3)?,
        output: folded.sink("output", output, 1)?,
    };
    let step = task_rows(cols);
    cpu.for_each(rows.div_ceil(step), step * cols, |task| {
        let range = task * step..rows.min((task + 1) * step);
        with_tiles::<F, _>(|tiles, _| pointwise::forward(&job, cpu.isa, range, tiles));
    });
    Ok(())
}

fn backward_pointwise<F: Real>(
    whole: &Spec,
    mut operands: super::Backward<'_>,
    workspace: &mut Workspace,
    cpu: &Cpu,
) -> Result<()> {
    let super::Backward {
        grad_output,
        input,
        weight,
        alpha,
        grad_input,
        grad_weight,
        grad_bias,
        grad_alpha,
        ..
    } = &mut operands;
    let weight = weight.as_ref();
    let in_place =
        (grad_input.as_ref()).is_some_and(|view| overlap(grad_output, &view.as_view()) == Overlap::Same);
    let of = |view: &Option<ViewMut<'_>>| view.as_ref().map(|view| view.layout().clone());
    let written = [of(grad_input), of(grad_weight), of(grad_bias)];
    let folded = Folded::new(
        cpu.isa,
        whole,
        &[
            Some(grad_output.layout()),
            Some(input.layout()),
            written[0].as_ref(),
            weight.map(View::layout),
            written[1].as_ref(),
            written[2].as_ref(),
        ],
    );
    let Grid { rows, cols, .. } = folded.grid;
    let job = pointwise::Backward {
        cols,
        alpha: alpha_of::<F>(alpha.as_ref())?,
        grad_output: folded.source("grad_output", grad_output, 0, in_place)?,
        input: folded.source("input", input, 1, false)?,
        weight: folded.optional("weight", weight, 3)?,
        grad_input: folded.optional_sink("grad_input", grad_input.as_mut(), 2)?,
        wants_weight: grad_weight.is_some(),
        wants_bias: grad_bias.is_some(),
        wants_alpha: grad_alpha.is_some(),
    };
    let wanted = job.params();
    let chunk = chunk_rows(rows, cols, params_per_column(whole), size_of::<F>());
    let partials = workspace.host::<F>(rows.div_ceil(chunk) * cols * wanted)?;
    run_chunks(rows, chunk, cols, cols * wanted, partials, cpu, |range, partials, leaves, tiles| {
        pointwise::backward(&job, cpu.isa, range, partials, leaves, tiles);
    });
    let weight = folded.optional_sink("grad_weight", grad_weight.as_mut(), 4)?;
    let bias = folded.optional_sink("grad_bias", grad_bias.as_mut(), 5)?;
    let alpha_grid = small_grid(1, 1, grad_alpha.as_ref().map_or(0, |view| view.layout().offset()));
    let alpha = alpha_grid.optional_sink("grad_alpha", grad_alpha.as_mut(), 0)?;
    pointwise::finish([weight.as_ref(), bias.as_ref(), alpha.as_ref()], partials, cols, cpu);
    Ok(())
}

/// The value of the scalar parameter.
fn alpha_of<F: Real>(alpha: Option<&View<'_>>) -> Result<F> {
    let Some(view) = alpha else { return Err(Error::argument("alpha", "a tensor of one element", "none")) };
    let grid = small_grid(1, 1, view.layout().offset());
    Ok(grid.source("alpha", view, 0, false)?.scalar())
}

/// Runs `body` on every chunk of rows, with the chunk's `stride` partial sums and as many row leaves.
fn run_chunks<F: Real>(
    rows: usize,
    chunk: usize,
    cols: usize,
    stride: usize,
    partials: &mut [F],
    cpu: &Cpu,
    body: impl Fn(std::ops::Range<usize>, &mut [F], &mut [F], Tiles<'_, F>) + Send + Sync,
) {
    let partials = Shared(partials.as_mut_ptr());
    cpu.for_each(rows.div_ceil(chunk), chunk * cols, |index| {
        // SAFETY: chunk `index` alone touches its `stride` numbers, of which the caller's slice holds one lot a chunk.
        let partials = unsafe { partials.part(index * stride, stride) };
        let range = index * chunk..rows.min((index + 1) * chunk);
        with_tiles::<F, _>(|tiles, leaves| body(range, partials, grown(leaves, stride), tiles));
    });
}

/// A slice that tasks share out among themselves.
struct Shared<F>(*mut F);

// SAFETY: tasks take disjoint parts; see `part`.
unsafe impl<F: Send> Send for Shared<F> {}
// SAFETY: as above.
unsafe impl<F: Send> Sync for Shared<F> {}

impl<F> Shared<F> {
    /// # Safety
    /// `start..start + len` is inside the slice, and no other live part meets it.
    #[allow(clippy::mut_from_ref, reason = "parts are disjoint by contract")]
    unsafe fn part(&self, start: usize, len: usize) -> &mut [F] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}
