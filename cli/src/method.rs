//! Methods by name, with the settings and parameters of the command line.

use crate::failure::{Failure, Result};
use clap::{Args, ValueEnum};
use normkit::spec::{Epilogue, EpsPosition, Fusion, Prologue};
use normkit::tensor::View;
use normkit::{
    BatchNorm, Cast, DeviceTensor, DyT, Eln, GroupNorm, InstanceNorm, LayerNorm, LayerNorm2d, Method,
    Normalize, QkNorm, RmsNorm, WeightNorm,
};

/// A method, as `Method::name` spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum MethodName {
    LayerNorm,
    RmsNorm,
    Dyt,
    Eln,
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    #[value(name = "layer_norm_2d")]
    LayerNorm2d,
    QkNorm,
    Normalize,
    WeightNorm,
}

use MethodName as Name;

impl MethodName {
    pub(crate) const ALL: [MethodName; 11] = [
        Name::LayerNorm,
        Name::RmsNorm,
        Name::Dyt,
        Name::Eln,
        Name::BatchNorm,
        Name::GroupNorm,
        Name::InstanceNorm,
        Name::LayerNorm2d,
        Name::QkNorm,
        Name::Normalize,
        Name::WeightNorm,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Name::LayerNorm => "layer_norm",
            Name::RmsNorm => "rms_norm",
            Name::Dyt => "dyt",
            Name::Eln => "eln",
            Name::BatchNorm => "batch_norm",
            Name::GroupNorm => "group_norm",
            Name::InstanceNorm => "instance_norm",
            Name::LayerNorm2d => "layer_norm_2d",
            Name::QkNorm => "qk_norm",
            Name::Normalize => "normalize",
            Name::WeightNorm => "weight_norm",
        }
    }

    /// Whether it works on the last axes, whose sizes are its parameters' shape.
    pub(crate) fn is_trailing(self) -> bool {
        matches!(self, Name::LayerNorm | Name::RmsNorm | Name::Dyt | Name::Eln)
    }

    /// The alpha that a method starts with; `None` for methods without.
    pub(crate) fn first_alpha(self) -> Option<f64> {
        match self {
            Name::Dyt => Some(0.5),
            Name::Eln => Some(100.0),
            _ => None,
        }
    }

    /// The shape of its parameters for an input of `shape`; `None` for methods that have none.
    pub(crate) fn parameter_shape(self, shape: &[usize], settings: &Settings) -> Option<Vec<usize>> {
        let size = |axis: usize| shape.get(axis).map(|&size| vec![size]);
        match self {
            _ if self.is_trailing() => size(shape.len().wrapping_sub(1)),
            Name::QkNorm if settings.kind.unwrap_or_default() == Kind::L2 => Some(vec![1]),
            Name::QkNorm => size(shape.len().wrapping_sub(1)),
            Name::Normalize => None,
            Name::WeightNorm => match settings.dim.unwrap_or(Dim::Axis(0)) {
                Dim::Axis(axis) => usize::try_from(axis).ok().and_then(size),
                Dim::None => Some(vec![1]),
            },
            _ => size(1),
        }
    }

    /// Whether it can have a bias.
    pub(crate) fn has_bias(self) -> bool {
        !matches!(self, Name::RmsNorm | Name::Normalize | Name::WeightNorm | Name::QkNorm)
    }
}

/// Where RMSNorm rounds.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum CastName {
    Fp32,
    Llama,
    Gemma,
}

/// Which norm the heads of queries and keys get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    L2,
    #[default]
    Rms,
    Layer,
}

/// An axis, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dim {
    Axis(isize),
    None,
}

impl std::str::FromStr for Dim {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "none" => Ok(Dim::None),
            _ => text.parse().map(Dim::Axis).map_err(|_| "expected an axis or none".into()),
        }
    }
}

/// What a method can be told beside its tensors. Absent means the library's default.
#[derive(Args, Default, Clone)]
pub(crate) struct Settings {
    /// Keeps the divisor away from zero (all but dyt, eln, weight_norm)
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) eps: Option<f64>,
    /// The scale inside tanh (dyt) [default: 0.5]; the spread (eln) [default: 100]
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) alpha: Option<f64>,
    /// Add eps to the root mean square and not inside the root (rms_norm)
    #[arg(long)]
    pub(crate) eps_outside: bool,
    /// Take the statistic from the first P * columns only (rms_norm)
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) partial: Option<f64>,
    /// Added to the weight before it multiplies (rms_norm)
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) weight_offset: Option<f64>,
    /// Where to round (rms_norm)
    #[arg(long)]
    pub(crate) cast: Option<CastName>,
    /// Groups of channels (group_norm) [default: 32]
    #[arg(long, value_name = "G")]
    pub(crate) groups: Option<usize>,
    /// Which norm, inf for the largest magnitude (normalize) [default: 2]
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) p: Option<f64>,
    /// The axis of the vectors (normalize) [default: 1]; the axis that counts them, or none (weight_norm) [default: 0]
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) dim: Option<Dim>,
    /// The norm of the heads (qk_norm) [default: rms]
    #[arg(long)]
    pub(crate) kind: Option<Kind>,
}

impl Settings {
    /// Refuses a setting that `method` would ignore.
    pub(crate) fn check(&self, method: MethodName) -> Result<()> {
        let with_eps: Vec<Name> = (Name::ALL.into_iter())
            .filter(|name| !matches!(name, Name::Dyt | Name::Eln | Name::WeightNorm))
            .collect();
        let given = [
            ("--eps", self.eps.is_some(), &with_eps[..]),
            ("--alpha", self.alpha.is_some(), &[Name::Dyt, Name::Eln]),
            ("--eps-outside", self.eps_outside, &[Name::RmsNorm]),
            ("--partial", self.partial.is_some(), &[Name::RmsNorm]),
            ("--weight-offset", self.weight_offset.is_some(), &[Name::RmsNorm]),
            ("--cast", self.cast.is_some(), &[Name::RmsNorm]),
            ("--groups", self.groups.is_some(), &[Name::GroupNorm]),
            ("--p", self.p.is_some(), &[Name::Normalize]),
            ("--dim", self.dim.is_some(), &[Name::Normalize, Name::WeightNorm]),
            ("--kind", self.kind.is_some(), &[Name::QkNorm]),
        ];
        match given.iter().find(|(_, given, methods)| *given && !methods.contains(&method)) {
            None => Ok(()),
            Some((option, _, methods)) => {
                let methods: Vec<&str> = methods.iter().map(|m| m.name()).collect();
                let message =
                    format!("{option} is an option of {}, not of {}", methods.join(" and "), method.name());
                Err(Failure::new(message))
            }
        }
    }
}

/// The tensors that a method is given, on its device.
#[derive(Clone, Default)]
pub(crate) struct Tensors<'a> {
    pub(crate) weight: Option<View<'a>>,
    pub(crate) bias: Option<View<'a>>,
    /// One element; DyT and ELN need it.
    pub(crate) alpha: Option<View<'a>>,
    /// Running mean and variance for batch normalization; the batch's own without.
    pub(crate) running: Option<(&'a DeviceTensor, &'a DeviceTensor)>,
    /// What surrounds the norm.
    pub(crate) around: Around<'a>,
}

/// What surrounds a norm, with the tensors that it needs. Without its residual, a norm's input is the sum.
#[derive(Clone, Default)]
pub(crate) struct Around<'a> {
    pub(crate) fusion: Fusion,
    pub(crate) before: Option<View<'a>>,
    pub(crate) after: Option<View<'a>>,
}

/// The method, ready to be applied to inputs of `shape`, of which `normalized` are the last axes that it works on.
pub(crate) fn build<'a>(
    name: MethodName,
    shape: &[usize],
    normalized: &[usize],
    settings: &Settings,
    tensors: Tensors<'a>,
) -> Result<Box<dyn Method + 'a>> {
    // The builders are types of their own, with calls of the same names.
    macro_rules! method {
        ($method:expr $(, $call:ident($value:expr))*) => {{
            let mut method = $method;
            $(if let Some(value) = $value { method = method.$call(value); })*
            method
        }};
    }
    // Those of the calls that put something around a norm.
    macro_rules! around {
        ($method:expr, $around:expr) => {{
            let (mut method, Around { fusion, before, after }) = ($method, $around);
            method = match (fusion.prologue, before) {
                (Prologue::Residual { input_scale, residual_scale }, Some(residual)) => {
                    method.scaled_residual_view(input_scale, residual, residual_scale)
                }
                (Prologue::Residual { input_scale, residual_scale }, None) => {
                    method.of_hidden(input_scale, residual_scale)
                }
                (Prologue::Gate, Some(gate)) => method.input_gate_view(gate),
                _ => method,
            };
            match (fusion.epilogue, after) {
                (Epilogue::Activation(activation), _) => method.activation(activation),
                (Epilogue::Residual, Some(residual)) => method.output_residual_view(residual),
                (Epilogue::Gate, Some(gate)) => method.output_gate_view(gate),
                _ => method,
            }
        }};
    }
    let Tensors { weight, bias, alpha, running, around } = tensors;
    let takes_around =
        !matches!(name, Name::Dyt | Name::Eln | Name::QkNorm | Name::Normalize | Name::WeightNorm);
    if !around.fusion.is_none() && !takes_around {
        return Err(Failure::new(format!("--before, --after: nothing is fused with {}", name.name())));
    }
    if bias.is_some() && !name.has_bias() && name != Name::RmsNorm {
        return Err(Failure::new(format!("--bias: {} has none", name.name())));
    }
    if weight.is_some() && name == Name::Normalize {
        return Err(Failure::new("--weight: normalize has none"));
    }
    let channels = || match shape {
        [_, channels, ..] => Ok(*channels),
        _ => {
            let message = format!("--input: {} expects [N, C, ...], found shape {shape:?}", name.name());
            Err(Failure::new(message))
        }
    };
    let eps = settings.eps;
    Ok(match name {
        Name::LayerNorm => {
            let norm = method!(LayerNorm::new(normalized), eps(eps), weight_view(weight), bias_view(bias));
            Box::new(around!(norm, around))
        }
        Name::RmsNorm => {
            let position = if settings.eps_outside { EpsPosition::Outside } else { EpsPosition::Inside };
            let cast = match settings.cast {
                None | Some(CastName::Fp32) => Cast::Fp32,
                Some(CastName::Llama) => Cast::Llama,
                Some(CastName::Gemma) => Cast::Gemma,
            };
            let norm = method!(
                RmsNorm::new(normalized).eps_position(position).cast(cast),
                eps(eps),
                partial(settings.partial),
                weight_offset(settings.weight_offset),
                weight_view(weight),
                bias_view(bias)
            );
            Box::new(around!(norm, around))
        }
        Name::Dyt => {
            Box::new(method!(DyT::new(normalized), alpha_view(alpha), weight_view(weight), bias_view(bias)))
        }
        Name::Eln => {
            Box::new(method!(Eln::new(normalized), alpha_view(alpha), weight_view(weight), bias_view(bias)))
        }
        Name::BatchNorm => {
            let norm = method!(BatchNorm::new(channels()?), eps(eps), weight_view(weight), bias_view(bias));
            let norm = around!(norm, around);
            match running {
                Some((mean, var)) => Box::new(norm.frozen(mean, var)?),
                None => Box::new(norm),
            }
        }
        Name::GroupNorm => {
            let norm = GroupNorm::new(settings.groups.unwrap_or(32), channels()?);
            Box::new(around!(method!(norm, eps(eps), weight_view(weight), bias_view(bias)), around))
        }
        Name::InstanceNorm => {
            let norm = InstanceNorm::new(channels()?);
            Box::new(around!(method!(norm, eps(eps), weight_view(weight), bias_view(bias)), around))
        }
        Name::LayerNorm2d => {
            let norm = LayerNorm2d::new(channels()?);
            Box::new(around!(method!(norm, eps(eps), weight_view(weight), bias_view(bias)), around))
        }
        Name::QkNorm => {
            let norm = match settings.kind.unwrap_or_default() {
                Kind::L2 => QkNorm::l2(),
                Kind::Rms => QkNorm::rms(),
                Kind::Layer => QkNorm::layer(),
            };
            Box::new(method!(method!(norm, eps(eps)).query().clone(), weight_view(weight)))
        }
        Name::Normalize => {
            let dim = match settings.dim {
                Some(Dim::None) => return Err(Failure::new("--dim: normalize expects an axis, found none")),
                Some(Dim::Axis(dim)) => Some(dim),
                None => None,
            };
            Box::new(method!(Normalize::new(), eps(eps), p(settings.p), dim(dim)))
        }
        Name::WeightNorm => {
            let dim = match settings.dim.unwrap_or(Dim::Axis(0)) {
                Dim::None => None,
                Dim::Axis(dim) => Some(usize::try_from(dim).map_err(|_| {
                    Failure::new(format!("--dim: weight_norm expects an axis from 0 up or none, found {dim}"))
                })?),
            };
            Box::new(method!(WeightNorm::new(dim), g_view(weight)))
        }
    })
}
