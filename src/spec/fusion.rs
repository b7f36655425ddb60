//! What else is done to a norm's elements in the one pass over memory: before their statistics are taken, and after they
//! are normalized.

use super::{Dropout, Inner, Mix, Quantization};

/// What surrounds a norm: `output = epilogue(norm(prologue(input)))`, in one pass over memory.
///
/// The methods' builder calls set it: `residual`, `branch_bias`, `branch_scale`, `input_gate`, `output_residual`, `output_gate`,
/// `activation`, `rotary`. The norm
/// sees the hidden value unrounded; `docs/numerics.md` has every operation, those of the gradients too.
///
/// ```
/// use normkit::prelude::*;
/// use normkit::spec::Activation;
/// let x = HostTensor::from_vec(vec![1.0f32, 2.0], &[1, 2])?;
/// let stream = HostTensor::from_vec(vec![2.0f32, 2.0], &[1, 2])?;
/// // h = x + stream, y = h / rms(h)
/// let norm = RmsNorm::new([2]).eps(0.0).residual(&stream);
/// let (y, h, saved) = norm.forward_hidden(&x)?;
/// assert_eq!(h.to_f64(), [3.0, 4.0]);
/// let grads = norm.backward_hidden(&y, Some(&h), &x, &saved)?;
/// assert_eq!(grads.input.to_f64(), grads.before.unwrap().to_f64());
/// // max(layer_norm(x), 0)
/// let norm = LayerNorm::new([2]).eps(0.0).activation(Activation::Relu);
/// assert_eq!(norm.forward(&x)?.to_f64(), [0.0, 1.0]);
/// # Ok::<(), normkit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Fusion {
    /// What is normalized, the *hidden* value.
    pub prologue: Prologue,
    /// What becomes of the normalized, scaled and shifted value.
    pub epilogue: Epilogue,
    /// Elements of the input that a residual before the norm is not added to.
    pub dropout: Option<Dropout>,
    /// What the input is shifted and scaled by before a residual is added to it.
    pub branch: Branch,
    /// The input is normalized before a residual is added to it.
    pub inner: Option<Inner>,
    /// The residual is normalized, too, and both have a share in the sum.
    pub mix: Option<Mix>,
    /// The result becomes codes.
    pub quantization: Option<Quantization>,
}

/// Which operands the input, the *branch* that a residual is added to, is shifted and scaled by before that: each has the shape
/// of the norm's weight and varies along the same axes.
///
/// ```text
/// h = input_scale * scale * (input + bias) + residual_scale * residual
/// ```
///
/// Dropout leaves elements of `input + bias` out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Branch {
    /// The bias of the linear layer before.
    pub bias: bool,
    /// A scale of each column: LayerScale (Touvron et al. 2021, arXiv 2103.17239).
    pub scale: bool,
}

/// What is normalized.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Prologue {
    /// The input itself.
    #[default]
    None,
    /// `input_scale * input + residual_scale * residual`; its other operand is the residual.
    Residual {
        /// Multiplies the input.
        input_scale: f64,
        /// Multiplies the residual.
        residual_scale: f64,
    },
    /// `input * silu(gate)`; its other operand is the gate.
    Gate,
}

/// What becomes of the normalized, scaled and shifted value `v`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Epilogue {
    /// It is the output.
    #[default]
    None,
    /// `f(v)`
    Activation(Activation),
    /// `residual + v`; its other operand is the residual.
    Residual,
    /// `v * silu(gate)`; its other operand is the gate.
    Gate,
    /// Rotary position embedding: pairs of columns are rotated by the angles of the row's position, whose cosines and sines are in
    /// tables; see [`Rotary`](crate::norm::Rotary).
    ///
    /// ```text
    /// y_first  = v_first * cos - v_second * sin
    /// y_second = v_second * cos + v_first * sin
    /// ```
    ///
    /// A row of such a norm is the last axis of the input and nothing else.
    Rotary {
        /// Which columns make a pair.
        style: RotaryStyle,
        /// The first so many columns are rotated, an even number; those from there on pass through.
        dims: usize,
    },
}

/// Which of the `dims` columns that are rotated make pair `i`, `i < dims / 2`, first and second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RotaryStyle {
    /// `(i, i + dims / 2)`, as in GPT-NeoX, Llama and most models since.
    HalfSplit,
    /// `(2 i, 2 i + 1)`, as in the paper (Su et al. 2021, arXiv 2104.09864) and GPT-J.
    Interleaved,
}

/// A function of each element without parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Activation {
    /// `max(v, 0)`
    Relu,
    /// `v / (1 + exp(-v))`
    Silu,
    /// `v Φ(v)`, Φ being the normal distribution: the exact GELU.
    Gelu,
    /// `v / (1 + exp(-2 u))` with `u = sqrt(2 / π) (v + 0.044715 v³)`: GELU by way of tanh.
    GeluTanh,
}

impl Fusion {
    /// Whether there is nothing around the norm.
    pub fn is_none(&self) -> bool {
        *self == Fusion::default()
    }

    /// What a residual before the norm multiplies the input and the residual by: the input's scale is that of elements which
    /// dropout keeps.
    pub(crate) fn scales(&self) -> [f64; 2] {
        match self.prologue {
            Prologue::Residual { input_scale, residual_scale } => {
                let factor = self.dropout.map_or(1.0, |dropout| dropout.factor());
                [input_scale * factor, residual_scale]
            }
            _ => [1.0; 2],
        }
    }
}

impl Branch {
    /// Whether there is neither.
    pub fn is_none(self) -> bool {
        self == Branch::default()
    }
}

impl Prologue {
    /// What its other operand is called; `None` if it has none.
    pub fn operand(self) -> Option<&'static str> {
        match self {
            Prologue::None => None,
            Prologue::Residual { .. } => Some("residual"),
            Prologue::Gate => Some("gate"),
        }
    }
}

impl Epilogue {
    /// What its other operand is called; `None` if it has none.
    pub fn operand(self) -> Option<&'static str> {
        match self {
            Epilogue::None | Epilogue::Activation(_) | Epilogue::Rotary { .. } => None,
            Epilogue::Residual => Some("residual"),
            Epilogue::Gate => Some("gate"),
        }
    }

    /// Whether its derivative depends on `v`.
    pub fn is_curved(self) -> bool {
        matches!(self, Epilogue::Activation(_))
    }
}
