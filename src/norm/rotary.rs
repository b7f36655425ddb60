//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864) after a norm of heads, in its one pass over memory.

use super::Parameters;
use crate::spec::{Epilogue, RotaryStyle};
use crate::tensor::{DType, HostTensor, Tensor, View};
use crate::{Error, Result};

/// Rotary position embedding: what [`QkNorm::rotary`](super::QkNorm::rotary), and the calls of the same name of
/// [`HeadNorm`](super::HeadNorm), [`RmsNorm`](super::RmsNorm) and [`LayerNorm`](super::LayerNorm), do to the
/// normalized, scaled and shifted value `v` of each row, which is a head.
///
/// With `R` the columns that are rotated, [`dims`](Rotary::dims), pair `i < R / 2` is
///
/// ```text
/// half-split:   first = i,    second = i + R / 2
/// interleaved:  first = 2 i,  second = 2 i + 1
///
/// y_first  = v_first * cos[p, i] - v_second * sin[p, i]
/// y_second = v_second * cos[p, i] + v_first * sin[p, i]
/// ```
///
/// and the columns from `R` on are `v` itself. Backward rotates the gradient back, then goes through the norm:
///
/// ```text
/// grad_v_first  = g_first * cos[p, i] + g_second * sin[p, i]
/// grad_v_second = g_second * cos[p, i] - g_first * sin[p, i]
/// ```
///
/// cos and sin are constants: they have no gradient. They may have any float dtype (float64 beside float64 only) and any strides.
///
/// **Which angles a row has.** For an input `[a, b, ..., heads, d]` the axes of cos and sin but the last, `R / 2`, are the input's
/// first ones, from the left: each of the input's size, or 1 to repeat. Axes of the input that they lack are repeated, too. So
/// `[tokens, R / 2]` serves `[tokens, heads, d]`, `[batch, seq, R / 2]` or `[1, seq, R / 2]` serves `[batch, seq, heads, d]`, and
/// `[batch, 1, seq, R / 2]` serves `[batch, heads, seq, d]`.
///
/// **With [`positions`](Rotary::positions)** cos and sin are `[rows, R / 2]`, a row for each position, and the integers in `positions`
/// name the row of each token: their axes are the input's first ones in the same way, without `R / 2`. Positions in host memory are
/// checked before anything is written. On a device, where nobody can look at them first, a position that the tables do not have makes the
/// rotated columns NaN, and nothing is read out of range.
///
/// Results that are rotated cannot become codes of 8 bits in the same pass.
///
/// Views make other tables fit without a copy: of transformers' `[batch, seq, R]`, both halves of which are the same, the first
/// half; of vLLM's and FlashInfer's cache `[positions, R]`, the first half for cos and the second for sin.
///
/// ```
/// use normkit::norm::{Rotary, rotary_tables};
/// use normkit::prelude::*;
/// use normkit::tensor::DType;
/// // Two tokens with one head of four columns: the first is at position 0, which changes nothing.
/// let q = HostTensor::from_vec(vec![1.0f32, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0], &[2, 1, 4])?;
/// let [cos, sin] = rotary_tables(10_000.0, 4, 2, 1.0, DType::F32)?;
/// let norm = RmsNorm::new([4]).eps(0.0).rotary(&Rotary::half_split(&cos, &sin));
/// let y = norm.forward(&q)?.to_f64();
/// assert_eq!(&y[..4], [2.0, 0.0, 0.0, 0.0]);
/// assert_eq!(y[4..], [2.0 * cos.to_f64()[2], 0.0, 2.0 * sin.to_f64()[2], 0.0]);
/// # Ok::<(), normkit::Error>(())
/// ```
#[derive(Clone)]
pub struct Rotary<'a> {
    style: RotaryStyle,
    dims: Option<usize>,
    tables: Result<RotaryTables<'a>>,
}

/// The operands of a [`Rotary`] embedding.
#[derive(Clone)]
pub struct RotaryTables<'a> {
    /// The cosines of the angles.
    pub cos: View<'a>,
    /// Their sines; of the same shape.
    pub sin: View<'a>,
    /// Which row of both each token has; without them, the tables repeat along the axes that they lack.
    pub positions: Option<View<'a>>,
}

impl<'a> Rotary<'a> {
    /// Pairs are `(i, i + dims / 2)`, as in GPT-NeoX, Llama and most models since.
    pub fn half_split(cos: &'a impl Tensor, sin: &'a impl Tensor) -> Self {
        Rotary::new(RotaryStyle::HalfSplit, cos.view(), sin.view())
    }

    /// Pairs are `(2 i, 2 i + 1)`, as in GPT-J.
    pub fn interleaved(cos: &'a impl Tensor, sin: &'a impl Tensor) -> Self {
        Rotary::new(RotaryStyle::Interleaved, cos.view(), sin.view())
    }

    /// Of views.
    pub fn of_views(style: RotaryStyle, cos: View<'a>, sin: View<'a>) -> Self {
        Rotary::new(style, Ok(cos), Ok(sin))
    }

    fn new(style: RotaryStyle, cos: Result<View<'a>>, sin: Result<View<'a>>) -> Self {
        let tables = cos.and_then(|cos| sin.map(|sin| RotaryTables { cos, sin, positions: None }));
        Rotary { style, dims: None, tables }
    }

    /// The row of cos and sin that each token has: integers of 32 or 64 bits.
    pub fn positions(self, positions: &'a impl Tensor) -> Self {
        self.with_positions(positions.view())
    }

    /// As [`positions`](Rotary::positions), for a view.
    pub fn positions_view(self, positions: View<'a>) -> Self {
        self.with_positions(Ok(positions))
    }

    fn with_positions(mut self, positions: Result<View<'a>>) -> Self {
        self.tables = self
            .tables
            .and_then(|tables| positions.map(|view| RotaryTables { positions: Some(view), ..tables }));
        self
    }

    /// How many columns are rotated: even, at least 2, at most those of a head, and twice the last axis of cos and sin. Without
    /// this call, twice that axis.
    pub fn dims(mut self, dims: usize) -> Self {
        self.dims = Some(dims);
        self
    }
}

impl<'a> Parameters<'a> {
    /// Puts a rotary embedding after the norm.
    pub(super) fn rotate(&mut self, rotary: &Rotary<'a>) {
        let dims = match (&rotary.tables, rotary.dims) {
            (_, Some(dims)) => dims,
            (Ok(tables), None) => tables.cos.shape().last().map_or(0, |pairs| pairs.saturating_mul(2)),
            (Err(_), None) => 0,
        };
        self.fuse_after(Epilogue::Rotary { style: rotary.style, dims }, None);
        match &rotary.tables {
            Ok(tables) => self.tables = Some(Box::new(tables.clone())),
            Err(error) => self.error = Some(error.clone()),
        }
    }
}

/// The builder call of norms that a rotary embedding can follow.
macro_rules! bind_rotary {
    () => {
        /// Rotates pairs of each row's columns by the angles of its position, after the norm. Its rows are the last axis of the
        /// input alone.
        pub fn rotary(mut self, rotary: &$crate::norm::Rotary<'a>) -> Self {
            self.parameters.rotate(rotary);
            self
        }
    };
}
pub(crate) use bind_rotary;

/// Cosines and sines, each `[positions, dims / 2]`, of the angles
///
/// ```text
/// angle[p, i] = p / scale * theta^(-2 i / dims)
/// ```
///
/// computed in float64 and rounded once to `dtype`. `theta` is 10000 in the paper, 500000 in Llama 3, a million in Qwen3; a `scale`
/// above 1 stretches positions (linear interpolation, Chen et al. 2023, arXiv 2306.15595), 1 leaves them. `dims` is even and not
/// zero, `theta` and `scale` are finite and above zero.
pub fn rotary_tables(
    theta: f64,
    dims: usize,
    positions: usize,
    scale: f64,
    dtype: DType,
) -> Result<[HostTensor; 2]> {
    check_dims(dims)?;
    if !dtype.is_float() {
        return Err(Error::argument("dtype", "f16, bf16, f32 or f64", dtype));
    }
    for (name, number) in [("theta", theta), ("scale", scale)] {
        if !(number > 0.0 && number.is_finite()) {
            return Err(Error::argument(name, "a finite number above zero", number));
        }
    }
    let pairs = dims / 2;
    let [mut cos, mut sin] =
        [HostTensor::zeros(&[positions, pairs], dtype)?, HostTensor::zeros(&[positions, pairs], dtype)?];
    for i in (0..pairs).take_while(|_| positions > 0) {
        let frequency = theta.powf(-2.0 * i as f64 / dims as f64);
        for p in 0..positions {
            let angle = p as f64 / scale * frequency;
            cos.put(p * pairs + i, angle.cos());
            sin.put(p * pairs + i, angle.sin());
        }
    }
    Ok([cos, sin])
}

/// How many columns can be rotated at all.
pub(super) fn check_dims(dims: usize) -> Result<()> {
    if dims == 0 || !dims.is_multiple_of(2) {
        return Err(Error::argument("dims", "an even number of rotated columns, at least 2", dims));
    }
    Ok(())
}
