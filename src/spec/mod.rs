//! Specs: what a method lowers to. A spec says which elements share statistics, which statistic, and how it is
//! applied; it says nothing about devices. Everything below `norm` works on specs alone.

mod dropout;
mod fusion;
mod inner;
mod quantization;

pub use dropout::Dropout;
pub(crate) use dropout::{MULTIPLIERS, STEPS};
pub use fusion::{Activation, Branch, Epilogue, Fusion, Prologue, RotaryStyle};
pub use inner::{Inner, Mix};
pub use quantization::{Quantization, Scaling};

use crate::Result;
use crate::tensor::{Dims, Layout};

/// What to compute.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant, reason = "a call has one, on the stack")]
pub enum Spec {
    /// Statistics over some axes, then scale and shift.
    Norm(Norm),
    /// No statistics: a function of each element, then scale and shift.
    Pointwise(Pointwise),
}

/// A norm: elements that differ only in the `reduced` axes share statistics and make a *row*; their order in it is the
/// row-major one of those axes. The other axes, the *kept* ones, count rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// The input's shape, with axes split where only a part of one is reduced (channels into groups).
    pub shape: Dims,
    /// The axes of `shape` that share statistics, ascending. May be empty: then every element is a row.
    pub reduced: Dims,
    /// Along which axes weight and bias vary.
    pub affine: Affine,
    /// What is computed over a row.
    pub statistic: Statistic,
    /// The statistic sees the first `prefix` elements of the row; all are normalized by it. `1 <= prefix <= cols`.
    pub prefix: usize,
    /// Keeps the divisor away from zero. Not negative.
    pub eps: f64,
    /// Where eps enters.
    pub eps_position: EpsPosition,
    /// Added to the weight before it multiplies; 1 for weights stored as a difference from one.
    pub weight_offset: f64,
    /// Round the normalized value to the input dtype before the weight multiplies it.
    pub round_normalized: bool,
    /// The statistics are given and constant: the backward pass does not differentiate them.
    pub frozen: bool,
    /// What is done before and after, element by element.
    pub fusion: Fusion,
}

/// Along which axes of a spec's shape weight and bias vary, and the shape they come in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Affine {
    /// Axes of the spec's shape, ascending. Empty: one number for all.
    pub axes: Dims,
    /// The parameter's own shape: the sizes of `axes`, perhaps merged, perhaps with axes of size 1 between.
    pub shape: Dims,
}

/// A statistic of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Statistic {
    /// Mean and biased variance: the row is centred, then divided by its deviation.
    Moments,
    /// Mean of squares: the row is divided by its root mean square.
    MeanSquare,
    /// The p-norm `(Σ |x|^p)^(1/p)`, `p >= 1`; infinity is the largest magnitude. A row of zeros is left as it is where
    /// eps does not help.
    Norm(f64),
}

/// Where eps enters the divisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EpsPosition {
    /// `sqrt(statistic + eps)`
    #[default]
    Inside,
    /// `sqrt(statistic) + eps`
    Outside,
    /// `max(norm, eps)`; p-norms only.
    Floor,
}

/// A function of each element, with weight and bias.
#[derive(Debug, Clone, PartialEq)]
pub struct Pointwise {
    /// The input's shape.
    pub shape: Dims,
    /// Along which axes weight and bias vary.
    pub affine: Affine,
    /// The function.
    pub function: Function,
}

/// An elementwise function with a learned scalar `alpha`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Function {
    /// `tanh(alpha * x)`
    Tanh,
    /// The inverse square root unit `x / sqrt(alpha + x²)`, `alpha > 0`.
    InverseSquareRoot,
}

impl Spec {
    /// The shape that operands are viewed in.
    pub fn shape(&self) -> &[usize] {
        match self {
            Spec::Norm(norm) => &norm.shape,
            Spec::Pointwise(pointwise) => &pointwise.shape,
        }
    }

    /// Along which axes weight and bias vary.
    pub fn affine(&self) -> &Affine {
        match self {
            Spec::Norm(norm) => &norm.affine,
            Spec::Pointwise(pointwise) => &pointwise.affine,
        }
    }

    /// The axes that make a row: those that share statistics, or for pointwise functions those of the parameters.
    pub fn row_axes(&self) -> &[usize] {
        match self {
            Spec::Norm(norm) => &norm.reduced,
            Spec::Pointwise(pointwise) => &pointwise.affine.axes,
        }
    }

    /// Elements of a row.
    pub fn cols(&self) -> usize {
        self.row_axes().iter().map(|&axis| self.shape()[axis]).product()
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        let is_kept = |axis: &usize| !self.row_axes().contains(axis);
        (0..self.shape().len()).filter(is_kept).map(|axis| self.shape()[axis]).product()
    }

    /// What is done before and after the norm.
    pub fn fusion(&self) -> Fusion {
        match self {
            Spec::Norm(norm) => norm.fusion,
            Spec::Pointwise(_) => Fusion::default(),
        }
    }

    /// Whether forward saves statistics for backward.
    pub fn has_statistics(&self) -> bool {
        matches!(self, Spec::Norm(_))
    }
}

impl Affine {
    /// A parameter of this shape, seen in a spec's `shape`: repeated along the axes it does not vary in.
    pub(crate) fn expand(&self, shape: &[usize], parameter: &Layout) -> Option<Layout> {
        let sizes: Dims = self.axes.iter().map(|&axis| shape[axis]).collect();
        let own = parameter.reshaped(&sizes)?;
        let mut strides: Dims<isize> = Dims::from_elem(0, shape.len());
        for (&axis, &stride) in self.axes.iter().zip(own.strides()) {
            strides[axis] = stride;
        }
        // Axes along which it is repeated reach nothing that it did not.
        Some(Layout::of_some(shape, &strides, own.offset()))
    }

    /// Back from [`expand`](Affine::expand): a parameter that is seen in a spec's shape, along the axes it varies in.
    pub(crate) fn contract(&self, seen: &Layout) -> Result<Layout> {
        let sizes: Dims = self.axes.iter().map(|&axis| seen.shape()[axis]).collect();
        let strides: Dims<isize> = self.axes.iter().map(|&axis| seen.strides()[axis]).collect();
        Layout::strided(&sizes, &strides, seen.offset())
    }
}

/// Numbers saved per row by a forward pass, in this order, in the compute dtype:
/// `[mean, correction, rstd, exponent]`.
///
/// The row was read as `x * 2^-exponent` (the exponent is 0 unless the row's magnitude would overflow or underflow);
/// `mean` and `correction` are of that scaled row, its mean being their exact sum, and `rstd` is one over the divisor
/// of the scaled row. For statistics without a mean, `mean` holds the scaled root mean square where eps is added to it
/// and the scaled norm where the statistic is one (0 where eps took its place), and `correction` is 0.
pub const STATISTICS: usize = 4;

/// Numbers per row that can be stored, merged with those of other rows, and finished to statistics, in this order, in
/// the compute dtype: `[count, mean, correction, m2, exponent]`.
///
/// `count` elements took part, read as `x * 2^-exponent`; their mean is the exact sum of `mean` and `correction`, and
/// `m2` is the sum of squared differences from it (for other statistics the sum that is finished: of squares, of
/// powers, or the largest magnitude; the mean is 0).
pub const MOMENTS: usize = 5;

/// Numbers per row that a backward pass sums, in this order, in the compute dtype:
/// `[count, s1, s2, ties, g_exponent, w_exponent]`.
///
/// `s1 = Σ ghat` and `s2 = Σ ghat * x_hat` over `count` elements, with `ghat` read as
/// `(grad_output * 2^-g_exponent) * (weight * 2^-w_exponent)`; `ties` counts the elements that attain an infinity norm.
/// A weight that is constant in the row is left out of `ghat`.
pub const SUMS: usize = 6;
