//! The methods with their options, before they are given parameters.

use crate::errors::value_error;
use normkit::tensor::View;
use normkit::{
    BatchNorm, Cast, DyT, GroupNorm, InstanceNorm, LayerNorm, Method, Normalize, QkNorm, RmsNorm, WeightNorm,
};
use pyo3::prelude::*;

/// A method and its options.
#[derive(Debug, Clone)]
pub(crate) enum Config {
    LayerNorm { normalized_shape: Vec<usize>, eps: f64 },
    RmsNorm { normalized_shape: Vec<usize>, eps: Option<f64>, offset: f64, cast: Cast, partial: f64 },
    BatchNorm { num_features: usize, eps: f64 },
    GroupNorm { num_groups: usize, num_channels: usize, eps: f64 },
    InstanceNorm { num_features: usize, eps: f64 },
    Normalize { p: f64, dim: isize, eps: f64 },
    DyT { normalized_shape: Vec<usize> },
    HeadNorm { kind: HeadKind, eps: f64 },
    WeightNorm { dim: Option<usize> },
}

/// How a head of queries or keys is normalized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadKind {
    Rms,
    L2,
    Layer,
}

/// The learned parameters of a call.
#[derive(Default)]
pub(crate) struct Bound<'a> {
    pub(crate) weight: Option<View<'a>>,
    pub(crate) bias: Option<View<'a>>,
    pub(crate) alpha: Option<View<'a>>,
}

/// A method that a call may take along while other Python threads run.
pub(crate) type Runnable<'a> = Box<dyn Method + Send + Sync + 'a>;

/// Binds those of the parameters that there are.
macro_rules! bound {
    ($norm:expr, $($call:ident: $view:expr),*) => {{
        let mut norm = $norm;
        $(if let Some(view) = $view {
            norm = norm.$call(view);
        })*
        Box::new(norm)
    }};
}

impl Config {
    /// The method with its parameters. Those that it has no use for are to have been [checked](Config::check).
    pub(crate) fn bind<'a>(&self, Bound { weight, bias, alpha }: Bound<'a>) -> Runnable<'a> {
        match self {
            Config::LayerNorm { normalized_shape, eps } => {
                bound!(LayerNorm::new(&normalized_shape[..]).eps(*eps), weight_view: weight, bias_view: bias)
            }
            Config::RmsNorm { normalized_shape, eps, offset, cast, partial } => {
                let mut norm = RmsNorm::new(&normalized_shape[..]);
                norm = norm.weight_offset(*offset).cast(*cast).partial(*partial);
                bound!(norm, eps: *eps, weight_view: weight, bias_view: bias)
            }
            Config::BatchNorm { num_features, eps } => {
                bound!(BatchNorm::new(*num_features).eps(*eps), weight_view: weight, bias_view: bias)
            }
            Config::GroupNorm { num_groups, num_channels, eps } => {
                let norm = GroupNorm::new(*num_groups, *num_channels).eps(*eps);
                bound!(norm, weight_view: weight, bias_view: bias)
            }
            Config::InstanceNorm { num_features, eps } => {
                bound!(InstanceNorm::new(*num_features).eps(*eps), weight_view: weight, bias_view: bias)
            }
            Config::Normalize { p, dim, eps } => Box::new(Normalize::new().p(*p).dim(*dim).eps(*eps)),
            Config::DyT { normalized_shape } => {
                let norm = DyT::new(&normalized_shape[..]);
                bound!(norm, alpha_view: alpha, weight_view: weight, bias_view: bias)
            }
            Config::HeadNorm { kind, eps } => {
                bound!(heads(*kind).eps(*eps).query().clone(), weight_view: weight, bias_view: bias)
            }
            Config::WeightNorm { dim } => bound!(WeightNorm::new(*dim), g_view: weight),
        }
    }

    /// Refuses parameters that the method has no use for.
    pub(crate) fn check(&self, weight: bool, bias: bool, alpha: bool) -> PyResult<()> {
        let takes = match self {
            Config::Normalize { .. } => (false, false, false),
            Config::WeightNorm { .. } => (true, false, false),
            Config::DyT { .. } => (true, true, true),
            _ => (true, true, false),
        };
        for (name, given, taken) in
            [("weight", weight, takes.0), ("bias", bias, takes.1), ("alpha", alpha, takes.2)]
        {
            if given && !taken {
                return Err(value_error(format!(
                    "{name}: expected None, since the method has none, found an array"
                )));
            }
        }
        if let Config::DyT { .. } = self
            && !alpha
        {
            return Err(value_error("alpha: expected an array of one element, found None"));
        }
        Ok(())
    }
}

/// The norm of queries and keys of this kind.
pub(crate) fn heads<'a>(kind: HeadKind) -> QkNorm<'a> {
    match kind {
        HeadKind::Rms => QkNorm::rms(),
        HeadKind::L2 => QkNorm::l2(),
        HeadKind::Layer => QkNorm::layer(),
    }
}

/// The cast mode of an RMS norm by its name.
pub(crate) fn cast(name: &str) -> Cast {
    match name {
        "llama" => Cast::Llama,
        "gemma" => Cast::Gemma,
        _ => Cast::Fp32,
    }
}

/// The kind of a QK norm by its name.
pub(crate) fn head_kind(name: &str) -> HeadKind {
    match name {
        "l2" => HeadKind::L2,
        "layer" => HeadKind::Layer,
        _ => HeadKind::Rms,
    }
}
