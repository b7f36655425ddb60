//! Where kernels run. A backend knows specs and plans, and no method.

#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod codes;
mod copy;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod kind;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod sources;
#[cfg(feature = "wgpu")]
pub mod wgpu;

use crate::plan::tree;
use crate::spec::{Norm, RotaryStyle, Spec};
use crate::tensor::{DType, Dims, Layout, View, ViewMut};
use crate::{Result, Stream, Workspace};

/// The operands of a forward pass, checked. All but the statistics and moments have the spec's shape: parameters and
/// masks are repeated, with strides of zero, along the axes they do not vary in.
pub(crate) struct Forward<'a> {
    pub(crate) input: View<'a>,
    pub(crate) weight: Option<View<'a>>,
    pub(crate) bias: Option<View<'a>>,
    /// One element.
    pub(crate) alpha: Option<View<'a>>,
    /// Elements where it is zero take no part: they are not read into statistics, and their output is zero.
    pub(crate) mask: Option<View<'a>>,
    /// `[rows, STATISTICS]` to normalize with, instead of the input's own.
    pub(crate) given: Option<View<'a>>,
    /// The other operand of the fusion's prologue.
    pub(crate) before: Option<View<'a>>,
    /// That of its epilogue.
    pub(crate) after: Option<View<'a>>,
    /// Added to the input before a residual is, and what that is multiplied by.
    pub(crate) branch_bias: Option<View<'a>>,
    pub(crate) branch_scale: Option<View<'a>>,
    pub(crate) rotary: Option<Rotary<'a>>,
    pub(crate) output: Option<ViewMut<'a>>,
    /// `[rows, scales of a row]` of float32, row-major: those of the codes that the output is quantized to.
    pub(crate) scales: Option<ViewMut<'a>>,
    /// `[cols]` of i32, side by side: 1 is written for each column that has an outlier, and nothing for others.
    pub(crate) flags: Option<ViewMut<'a>>,
    /// What is normalized, where that is not the input.
    pub(crate) hidden: Option<ViewMut<'a>>,
    /// `[rows, STATISTICS]`, row-major.
    pub(crate) statistics: Option<ViewMut<'a>>,
    /// `[rows, MOMENTS]`, row-major.
    pub(crate) moments: Option<ViewMut<'a>>,
    /// Those of the norm of the branch, where the fusion has one.
    pub(crate) inner: Option<Inner<'a>>,
    /// Those of the residual's norm, where the fusion mixes the two.
    pub(crate) mix: Option<Mix<'a>>,
}

impl<'a> Forward<'a> {
    /// Of a norm alone, asked for nothing.
    pub(crate) fn new(input: View<'a>) -> Self {
        Forward {
            input,
            weight: None,
            bias: None,
            alpha: None,
            mask: None,
            given: None,
            before: None,
            after: None,
            branch_bias: None,
            branch_scale: None,
            rotary: None,
            output: None,
            scales: None,
            flags: None,
            hidden: None,
            statistics: None,
            moments: None,
            inner: None,
            mix: None,
        }
    }
}

/// The operands of the norm of a branch in a forward pass.
pub(crate) struct Inner<'a> {
    pub(crate) weight: Option<View<'a>>,
    pub(crate) bias: Option<View<'a>>,
    /// `[rows, STATISTICS]`, row-major.
    pub(crate) statistics: Option<ViewMut<'a>>,
}

/// What a mix has beside them: alpha, and the operands of the residual's norm. A backend makes the weights of both norms of alpha.
pub(crate) struct Mix<'a> {
    pub(crate) alpha: View<'a>,
    pub(crate) weight: Option<View<'a>>,
    /// `[rows, STATISTICS]`, row-major.
    pub(crate) statistics: Option<ViewMut<'a>>,
}

/// The same of a mix in a backward pass.
pub(crate) struct MixBackward<'a> {
    pub(crate) alpha: View<'a>,
    pub(crate) weight: Option<View<'a>>,
    /// What the forward pass saved.
    pub(crate) statistics: View<'a>,
    pub(crate) grad_alpha: Option<ViewMut<'a>>,
    /// Made by a backend, as the weight is.
    pub(crate) grad_weight: Option<ViewMut<'a>>,
}

/// The operands of the norm of a branch in a backward pass.
pub(crate) struct InnerBackward<'a> {
    pub(crate) weight: Option<View<'a>>,
    pub(crate) bias: Option<View<'a>>,
    /// What the forward pass saved.
    pub(crate) statistics: View<'a>,
    /// The hidden value in the place of the residual: it is then not made again.
    pub(crate) hidden: Option<View<'a>>,
    pub(crate) grad_weight: Option<ViewMut<'a>>,
    pub(crate) grad_bias: Option<ViewMut<'a>>,
}

/// The operands of a backward pass, checked; shapes as in [`Forward`]. Gradients of weight and bias, too, are seen in
/// the spec's shape: many indices name one element, which is written once.
pub(crate) struct Backward<'a> {
    pub(crate) grad_output: View<'a>,
    pub(crate) input: View<'a>,
    pub(crate) weight: Option<View<'a>>,
    /// Of use where an activation follows it.
    pub(crate) bias: Option<View<'a>>,
    pub(crate) alpha: Option<View<'a>>,
    pub(crate) mask: Option<View<'a>>,
    /// The other operand of the fusion's prologue. Without a residual, the input is the hidden value itself.
    pub(crate) before: Option<View<'a>>,
    /// That of its epilogue.
    pub(crate) after: Option<View<'a>>,
    pub(crate) branch_bias: Option<View<'a>>,
    pub(crate) branch_scale: Option<View<'a>>,
    pub(crate) rotary: Option<Rotary<'a>>,
    /// The gradient that the hidden value has beside the norm's.
    pub(crate) grad_hidden: Option<View<'a>>,
    pub(crate) statistics: Option<View<'a>>,
    /// `[rows, SUMS]` to use, instead of the input's own.
    pub(crate) given: Option<View<'a>>,
    pub(crate) grad_input: Option<ViewMut<'a>>,
    pub(crate) grad_weight: Option<ViewMut<'a>>,
    pub(crate) grad_bias: Option<ViewMut<'a>>,
    pub(crate) grad_alpha: Option<ViewMut<'a>>,
    pub(crate) grad_branch_bias: Option<ViewMut<'a>>,
    pub(crate) grad_branch_scale: Option<ViewMut<'a>>,
    pub(crate) grad_before: Option<ViewMut<'a>>,
    pub(crate) grad_after: Option<ViewMut<'a>>,
    /// `[rows, SUMS]`, row-major.
    pub(crate) sums: Option<ViewMut<'a>>,
    /// Those of the norm of the branch, where the fusion has one: `input` and `grad_input` are what it normalizes.
    pub(crate) inner: Option<InnerBackward<'a>>,
    /// Those of the residual's norm, where the fusion mixes the two: `before` and `grad_before` are what it normalizes.
    pub(crate) mix: Option<MixBackward<'a>>,
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl<'a> Backward<'a> {
    /// Of a norm alone, asked for nothing.
    pub(crate) fn new(grad_output: View<'a>, input: View<'a>) -> Self {
        Backward {
            grad_output,
            input,
            weight: None,
            bias: None,
            alpha: None,
            mask: None,
            before: None,
            after: None,
            branch_bias: None,
            branch_scale: None,
            rotary: None,
            grad_hidden: None,
            statistics: None,
            given: None,
            grad_input: None,
            grad_weight: None,
            grad_bias: None,
            grad_alpha: None,
            grad_branch_bias: None,
            grad_branch_scale: None,
            grad_before: None,
            grad_after: None,
            sums: None,
            inner: None,
            mix: None,
        }
    }
}

/// The operands of a rotary epilogue. The spec's rows are its last axis.
pub(crate) struct Rotary<'a> {
    pub(crate) style: RotaryStyle,
    /// Pairs of columns that are rotated.
    pub(crate) pairs: usize,
    /// In the spec's shape, but with as many columns as there are pairs; or, with positions, such rows to choose from.
    pub(crate) cos: View<'a>,
    pub(crate) sin: View<'a>,
    /// Which of them each row has: in the spec's shape without its columns.
    pub(crate) positions: Option<View<'a>>,
}

impl Rotary<'_> {
    /// The layout of a table as if it had all of a row's `cols` columns, to be walked with the other operands: only the first
    /// `pairs` columns are there.
    pub(crate) fn layout(&self, table: &View<'_>, cols: usize) -> Layout {
        let own = table.layout();
        let (of_rows, of_pairs) = own.strides().split_at(own.rank() - 1);
        match &self.positions {
            // The first row, in the place of each.
            Some(positions) => columns(positions.shape(), &[], cols, of_pairs, own.offset()),
            None => columns(&own.shape()[..of_rows.len()], of_rows, cols, of_pairs, own.offset()),
        }
    }

    /// That of the positions, likewise: one for all columns of a row.
    pub(crate) fn positions_layout(&self, cols: usize) -> Option<Layout> {
        let own = self.positions.as_ref()?.layout();
        Some(columns(own.shape(), own.strides(), cols, &[0], own.offset()))
    }

    /// Rows to choose from, and how far they are apart in cos and in sin; none without positions.
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    pub(crate) fn choice(&self) -> [isize; 3] {
        match self.positions {
            Some(_) => {
                [self.cos.shape()[0] as isize, self.cos.layout().strides()[0], self.sin.layout().strides()[0]]
            }
            None => [0; 3],
        }
    }
}

/// A layout of `kept` axes, with strides of zero if there are none for them, and of one of `cols` columns.
fn columns(kept: &[usize], strides: &[isize], cols: usize, last: &[isize], offset: usize) -> Layout {
    let shape: Dims = kept.iter().copied().chain([cols]).collect();
    let mut all: Dims<isize> = Dims::from_elem(0, kept.len());
    all[..strides.len()].copy_from_slice(strides);
    all.extend_from_slice(last);
    Layout::of_some(&shape, &all, offset)
}

/// Small launches on numbers per row, between the passes over tensors. Operands are checked; those of `[rows, n]` are
/// row-major, those of `[rows]` have any stride and any dtype that the compute dtype holds.
pub(crate) enum Between<'a> {
    /// Moments of the union of the parts' elements, merged in order.
    MergeMoments { norm: &'a Norm, parts: &'a [View<'a>], output: ViewMut<'a> },
    /// Sums over the union of the parts' elements, added in order.
    MergeSums { parts: &'a [View<'a>], output: ViewMut<'a> },
    /// Statistics from moments.
    Finish { norm: &'a Norm, moments: View<'a>, output: ViewMut<'a> },
    /// Statistics from a mean and a variance.
    FromRunning { norm: &'a Norm, mean: View<'a>, var: View<'a>, output: ViewMut<'a> },
    /// `running = (1 - factor) * running + factor * batch`, the variance being the unbiased one.
    UpdateRunning { moments: View<'a>, mean: ViewMut<'a>, var: ViewMut<'a>, factor: f64 },
}

/// Runs or enqueues a launch between passes; `dtype` is the compute dtype.
pub(crate) fn between(dtype: DType, launch: Between<'_>, stream: &Stream<'_>) -> Result<()> {
    match stream {
        Stream::Cpu(cpu) => cpu::between(dtype, launch, cpu),
        #[cfg(feature = "wgpu")]
        Stream::Wgpu(stream) => wgpu::between(dtype, launch, stream),
        #[cfg(feature = "cuda")]
        Stream::Cuda(stream) => cuda::between(dtype, launch, stream),
        #[cfg(not(any(feature = "wgpu", feature = "cuda")))]
        Stream::Never(never, _) => match *never {},
    }
}

/// Codes of i8 in columns whose flag is not 0 become 0. Columns are the axes of the codes from `kept` on, and not empty.
pub(crate) fn zero_columns(
    codes: &ViewMut<'_>,
    flags: &View<'_>,
    kept: usize,
    stream: &Stream<'_>,
) -> Result<()> {
    match stream {
        Stream::Cpu(cpu) => cpu::zero_columns(codes, flags, kept, cpu),
        #[cfg(feature = "wgpu")]
        Stream::Wgpu(stream) => wgpu::zero_columns(codes, flags, kept, stream),
        #[cfg(feature = "cuda")]
        Stream::Cuda(stream) => cuda::zero_columns(codes, flags, kept, stream),
        #[cfg(not(any(feature = "wgpu", feature = "cuda")))]
        Stream::Never(never, _) => match *never {},
    }
}

/// Runs or enqueues a forward pass.
pub(crate) fn forward(spec: &Spec, operands: Forward<'_>, stream: &Stream<'_>) -> Result<()> {
    match stream {
        Stream::Cpu(cpu) => cpu::forward_of(spec, operands, cpu),
        #[cfg(feature = "wgpu")]
        Stream::Wgpu(stream) => wgpu::forward(spec, operands, stream),
        #[cfg(feature = "cuda")]
        Stream::Cuda(stream) => cuda::forward(spec, operands, stream),
        #[cfg(not(any(feature = "wgpu", feature = "cuda")))]
        Stream::Never(never, _) => match *never {},
    }
}

/// Runs or enqueues forward passes of which none writes what another reads or writes. Backends run them at once where they can.
pub(crate) fn forward_together<const N: usize>(
    problems: [(Spec, Forward<'_>); N],
    stream: &Stream<'_>,
) -> Result<()> {
    match stream {
        Stream::Cpu(cpu) => cpu::forward_together(&problems, cpu),
        #[cfg(feature = "wgpu")]
        Stream::Wgpu(stream) => {
            problems.into_iter().try_for_each(|(spec, operands)| wgpu::forward(&spec, operands, stream))
        }
        #[cfg(feature = "cuda")]
        Stream::Cuda(stream) => cuda::forward_together(&problems, stream),
        #[cfg(not(any(feature = "wgpu", feature = "cuda")))]
        Stream::Never(never, _) => match *never {},
    }
}

/// Runs or enqueues a backward pass.
pub(crate) fn backward(
    spec: &Spec,
    operands: Backward<'_>,
    workspace: &mut Workspace,
    stream: &Stream<'_>,
) -> Result<()> {
    match stream {
        Stream::Cpu(cpu) => cpu::backward_of(spec, operands, workspace, cpu),
        #[cfg(feature = "wgpu")]
        Stream::Wgpu(stream) => wgpu::backward(spec, operands, workspace, stream),
        #[cfg(feature = "cuda")]
        Stream::Cuda(stream) => cuda::backward(spec, operands, workspace, stream),
        #[cfg(not(any(feature = "wgpu", feature = "cuda")))]
        Stream::Never(never, _) => match *never {},
    }
}

/// Runs or enqueues backward passes of which none writes what another reads or writes.
pub(crate) fn backward_together<const N: usize>(
    problems: [(Spec, Backward<'_>); N],
    workspace: &mut Workspace,
    stream: &Stream<'_>,
) -> Result<()> {
    match stream {
        Stream::Cpu(cpu) => cpu::backward_together(&problems, workspace, cpu),
        #[cfg(feature = "wgpu")]
        Stream::Wgpu(stream) => {
            let mut each = problems.into_iter();
            each.try_for_each(|(spec, operands)| wgpu::backward(&spec, operands, workspace, stream))
        }
        #[cfg(feature = "cuda")]
        Stream::Cuda(stream) => cuda::backward_together(problems, workspace, stream),
        #[cfg(not(any(feature = "wgpu", feature = "cuda")))]
        Stream::Never(never, _) => match *never {},
    }
}

/// Bytes of scratch that backward passes keep at most that run together.
pub(crate) fn workspace_size_together<const N: usize>(problems: [(&Spec, DType); N]) -> usize {
    // Each begins where memory would.
    let of = |(spec, dtype)| workspace_size(spec, dtype).next_multiple_of(256);
    problems.into_iter().map(of).fold(0, usize::saturating_add)
}

/// Numbers per column whose sums over rows a backward pass of `spec` may need.
pub(crate) fn params_per_column(spec: &Spec) -> usize {
    match spec {
        // weight, bias
        Spec::Norm(norm) if norm.fusion.branch.is_none() => 2,
        // and those of the branch
        Spec::Norm(_) => 4,
        // weight, bias, alpha
        Spec::Pointwise(_) => 3,
    }
}

/// Bytes of scratch that a backward pass keeps at most: of the sums over rows, one lot for each chunk of rows.
pub(crate) fn workspace_size(spec: &Spec, dtype: DType) -> usize {
    let (shape, axes) = (spec.shape(), &spec.affine().axes[..]);
    let parameters: usize = axes.iter().map(|&axis| shape[axis]).product();
    // Rows of these sums: the indices of the axes that no parameter varies along, less those within a row of the norm.
    let within: &[usize] = match spec {
        Spec::Norm(norm) => &norm.reduced,
        Spec::Pointwise(_) => &[],
    };
    let rows: usize = (0..shape.len())
        .filter(|axis| !axes.contains(axis) && !within.contains(axis))
        .map(|axis| shape[axis])
        .product();
    let (params, size) = (params_per_column(spec), dtype.compute().size());
    // Chunks are those of one norm, so that each norm's sums are what it would have alone.
    let fusion = spec.fusion();
    let norms = 1 + usize::from(fusion.inner.is_some()) + usize::from(fusion.mix.is_some());
    rows.div_ceil(tree::chunk_rows(rows, parameters, params, size)) * parameters * params * size * norms
}
