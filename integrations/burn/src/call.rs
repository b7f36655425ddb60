//! A method with its options, before it is given tensors.

use burn::serde::{Deserialize, Serialize};
use normkit::tensor::View;
use normkit::{
    BatchNorm, DyT, GroupNorm, InstanceNorm, LayerNorm, Method, QkNorm, Result, RmsNorm, Stream, WeightNorm,
};

/// A method and its options.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    /// Of the trailing axes of this shape; after a residual, if that is given.
    LayerNorm {
        /// The axes that share statistics.
        shape: Vec<usize>,
        /// Added to the variance.
        eps: f64,
    },
    /// Likewise, by the root mean square.
    RmsNorm {
        /// The axes that share statistics.
        shape: Vec<usize>,
        /// Added to the mean square.
        eps: f64,
    },
    /// With the batch's statistics; or with those given, as constants.
    BatchNorm {
        /// Channels.
        channels: usize,
        /// Added to the variance.
        eps: f64,
    },
    /// Of groups of channels.
    GroupNorm {
        /// Groups.
        groups: usize,
        /// Channels.
        channels: usize,
        /// Added to the variance.
        eps: f64,
    },
    /// Of each channel of each sample.
    InstanceNorm {
        /// Channels.
        channels: usize,
        /// Added to the variance.
        eps: f64,
    },
    /// `weight * tanh(alpha * x) + bias`
    Dyt {
        /// The shape of weight and bias.
        shape: Vec<usize>,
    },
    /// Of the last axis: queries or keys.
    Heads {
        /// Which norm.
        kind: HeadKind,
        /// What keeps the divisor away from zero.
        eps: f64,
    },
    /// `weight * v / ||v||`
    WeightNorm {
        /// The axis that is kept; none: one length for all.
        dim: Option<usize>,
    },
}

/// How queries and keys are normalized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "burn::serde")]
pub enum HeadKind {
    /// `x / sqrt(mean(x²) + eps)`
    Rms,
    /// `x / max(||x||, eps)`
    L2,
    /// `(x - mean) / sqrt(var + eps)`
    Layer,
}

/// The tensors of a call beside its input.
#[derive(Debug, Clone)]
pub(crate) struct Bound<T> {
    pub(crate) weight: Option<T>,
    pub(crate) bias: Option<T>,
    pub(crate) alpha: Option<T>,
    pub(crate) residual: Option<T>,
    /// Mean and variance to normalize by, constants.
    pub(crate) running: Option<[T; 2]>,
}

impl<T> Default for Bound<T> {
    fn default() -> Self {
        Bound { weight: None, bias: None, alpha: None, residual: None, running: None }
    }
}

/// Binds those parameters that there are.
macro_rules! with {
    ($norm:expr, $($call:ident: $view:expr),*) => {{
        let mut norm = $norm;
        $(if let Some(view) = $view {
            norm = norm.$call(view);
        })*
        norm
    }};
}
pub(crate) use with;

impl Call {
    /// The method with its parameters; running statistics are read in the order of `stream`.
    pub(crate) fn bind<'a>(
        &self,
        bound: Bound<View<'a>>,
        stream: &Stream<'_>,
    ) -> Result<Box<dyn Method + 'a>> {
        let Bound { weight, bias, alpha, residual, running } = bound;
        Ok(match self {
            Call::LayerNorm { shape, eps } => {
                let norm = LayerNorm::new(&shape[..]).eps(*eps);
                Box::new(with!(norm, weight_view: weight, bias_view: bias, residual_view: residual))
            }
            Call::RmsNorm { shape, eps } => {
                let norm = RmsNorm::new(&shape[..]).eps(*eps);
                Box::new(with!(norm, weight_view: weight, bias_view: bias, residual_view: residual))
            }
            Call::BatchNorm { channels, eps } => {
                let norm = with!(BatchNorm::new(*channels).eps(*eps), weight_view: weight, bias_view: bias);
                match running {
                    Some([mean, var]) => Box::new(norm.frozen_on(&mean, &var, stream)?),
                    None => Box::new(norm),
                }
            }
            Call::GroupNorm { groups, channels, eps } => {
                let norm = GroupNorm::new(*groups, *channels).eps(*eps);
                Box::new(with!(norm, weight_view: weight, bias_view: bias))
            }
            Call::InstanceNorm { channels, eps } => {
                let norm = InstanceNorm::new(*channels).eps(*eps);
                Box::new(with!(norm, weight_view: weight, bias_view: bias))
            }
            Call::Dyt { shape } => {
                let norm = DyT::new(&shape[..]);
                Box::new(with!(norm, alpha_view: alpha, weight_view: weight, bias_view: bias))
            }
            Call::Heads { kind, eps } => {
                let heads = match kind {
                    HeadKind::Rms => QkNorm::rms(),
                    HeadKind::L2 => QkNorm::l2(),
                    HeadKind::Layer => QkNorm::layer(),
                };
                let norm = heads.eps(*eps).query().clone();
                Box::new(with!(norm, weight_view: weight, bias_view: bias))
            }
            Call::WeightNorm { dim } => Box::new(with!(WeightNorm::new(*dim), g_view: weight)),
        })
    }

    /// Whether a backward pass needs more than the input.
    pub(crate) fn has_statistics(&self) -> bool {
        !matches!(self, Call::Dyt { .. })
    }
}
