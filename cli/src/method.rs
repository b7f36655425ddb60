//! Methods by name, with the settings and parameters of the command line.

use crate::failure::{Failure, Result};
use clap::{Args, ValueEnum};
use normkit::spec::EpsPosition;
use normkit::tensor::View;
use normkit::{Cast, DyT, LayerNorm, Method, RmsNorm};

/// A method, as `Method::name` spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum MethodName {
    LayerNorm,
    RmsNorm,
    Dyt,
}

impl MethodName {
    pub(crate) const ALL: [MethodName; 3] = [MethodName::LayerNorm, MethodName::RmsNorm, MethodName::Dyt];

    pub(crate) fn name(self) -> &'static str {
        match self {
            MethodName::LayerNorm => "layer_norm",
            MethodName::RmsNorm => "rms_norm",
            MethodName::Dyt => "dyt",
        }
    }
}

/// Where RMSNorm rounds.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum CastName {
    Fp32,
    Llama,
    Gemma,
}

/// What a method can be told beside its tensors. Absent means the library's default.
#[derive(Args, Default)]
pub(crate) struct Settings {
    /// Keeps the divisor away from zero (layer_norm, rms_norm)
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) eps: Option<f64>,
    /// The scale inside tanh (dyt) [default: 0.5]
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
}

impl Settings {
    /// Refuses a setting that `method` would ignore.
    pub(crate) fn check(&self, method: MethodName) -> Result<()> {
        let given = [
            ("--eps", self.eps.is_some(), &[MethodName::LayerNorm, MethodName::RmsNorm][..]),
            ("--alpha", self.alpha.is_some(), &[MethodName::Dyt]),
            ("--eps-outside", self.eps_outside, &[MethodName::RmsNorm]),
            ("--partial", self.partial.is_some(), &[MethodName::RmsNorm]),
            ("--weight-offset", self.weight_offset.is_some(), &[MethodName::RmsNorm]),
            ("--cast", self.cast.is_some(), &[MethodName::RmsNorm]),
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
    /// One element; DyT needs it.
    pub(crate) alpha: Option<View<'a>>,
}

/// The method, ready to be applied to inputs that end with `normalized_shape`.
pub(crate) fn build<'a>(
    name: MethodName,
    normalized_shape: &[usize],
    settings: &Settings,
    tensors: Tensors<'a>,
) -> Box<dyn Method + 'a> {
    macro_rules! with_weight_and_bias {
        ($method:expr) => {{
            let mut method = $method;
            if let Some(weight) = tensors.weight {
                method = method.weight_view(weight);
            }
            if let Some(bias) = tensors.bias {
                method = method.bias_view(bias);
            }
            Box::new(method)
        }};
    }
    match name {
        MethodName::LayerNorm => {
            let mut method = LayerNorm::new(normalized_shape);
            if let Some(eps) = settings.eps {
                method = method.eps(eps);
            }
            with_weight_and_bias!(method)
        }
        MethodName::RmsNorm => {
            let mut method = RmsNorm::new(normalized_shape).partial(settings.partial.unwrap_or(1.0));
            if let Some(eps) = settings.eps {
                method = method.eps(eps);
            }
            if settings.eps_outside {
                method = method.eps_position(EpsPosition::Outside);
            }
            if let Some(offset) = settings.weight_offset {
                method = method.weight_offset(offset);
            }
            method = method.cast(match settings.cast {
                None | Some(CastName::Fp32) => Cast::Fp32,
                Some(CastName::Llama) => Cast::Llama,
                Some(CastName::Gemma) => Cast::Gemma,
            });
            with_weight_and_bias!(method)
        }
        MethodName::Dyt => {
            let mut method = DyT::new(normalized_shape);
            if let Some(alpha) = tensors.alpha {
                method = method.alpha_view(alpha);
            }
            with_weight_and_bias!(method)
        }
    }
}
