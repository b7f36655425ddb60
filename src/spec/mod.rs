//! Specs: what a method lowers to. A spec says which elements share statistics, which statistic, and how it is
//! applied; it says nothing about devices. Everything below `norm` works on specs alone.

/// What to compute.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Spec {
    /// Statistics over the trailing axes of each row, then scale and shift.
    Row(Row),
    /// No statistics: a function of each element, then scale and shift.
    Pointwise(Pointwise),
}

/// A norm whose statistics span the trailing axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// How many trailing axes make a row.
    pub axes: usize,
    /// What is computed over a row.
    pub statistic: Statistic,
    /// The statistic sees the first `prefix` columns; all columns are normalized by it. `1 <= prefix <= cols`.
    pub prefix: usize,
    /// Keeps the divisor away from zero. Not negative.
    pub eps: f64,
    /// Where eps enters.
    pub eps_position: EpsPosition,
    /// Added to the weight before it multiplies; 1 for weights stored as a difference from one.
    pub weight_offset: f64,
    /// Round the normalized value to the input dtype before the weight multiplies it.
    pub round_normalized: bool,
}

/// A statistic of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Statistic {
    /// Mean and biased variance: the row is centred, then divided by its deviation.
    Moments,
    /// Mean of squares: the row is divided by its root mean square.
    MeanSquare,
}

/// Where eps enters the divisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EpsPosition {
    /// `sqrt(statistic + eps)`
    #[default]
    Inside,
    /// `sqrt(statistic) + eps`
    Outside,
}

/// A function of each element, with weight and bias along the trailing axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Pointwise {
    /// How many trailing axes the weight spans.
    pub axes: usize,
    /// The function.
    pub function: Function,
}

/// An elementwise function with a learned scalar `alpha`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Function {
    /// `tanh(alpha * x)`
    Tanh,
}

impl Spec {
    /// How many trailing axes are columns; the others count rows.
    pub fn axes(&self) -> usize {
        match self {
            Spec::Row(row) => row.axes,
            Spec::Pointwise(pointwise) => pointwise.axes,
        }
    }

    /// Whether forward saves statistics for backward.
    pub fn has_statistics(&self) -> bool {
        matches!(self, Spec::Row(_))
    }

    /// The schedule's name: that of its files in every backend.
    pub fn schedule(&self) -> &'static str {
        match self {
            Spec::Row(_) => "row",
            Spec::Pointwise(_) => "pointwise",
        }
    }
}

/// Numbers saved per row by a forward pass, in this order, in the compute dtype:
/// `[mean, correction, rstd, exponent]`.
///
/// The row was read as `x * 2^-exponent` (the exponent is 0 unless the row's magnitude would overflow or underflow);
/// `mean` and `correction` are of that scaled row, its mean being their exact sum, and `rstd` is one over the divisor
/// of the scaled row. For mean-square statistics `mean` holds the scaled root mean square and `correction` is 0.
pub const STATISTICS: usize = 4;
