//! The methods with their options, before they are given parameters.

use crate::status::{Fault, Result};
use normkit::spec::{Activation, Dropout, Epilogue, EpsPosition, Fusion, Prologue};
use normkit::tensor::View;
use normkit::{
    BatchNorm, Cast, DyT, GroupNorm, InstanceNorm, LayerNorm, Method, Normalize, QkNorm, RmsNorm, WeightNorm,
};

/// A method and its options.
#[derive(Debug, Clone)]
pub(crate) enum Config {
    LayerNorm {
        normalized_shape: Vec<usize>,
        broadcast: bool,
        eps: f64,
        weight_offset: f64,
        fusion: Fusion,
    },
    RmsNorm {
        normalized_shape: Vec<usize>,
        broadcast: bool,
        eps: Option<f64>,
        eps_position: EpsPosition,
        partial: f64,
        weight_offset: f64,
        cast: Cast,
        fusion: Fusion,
    },
    Dyt {
        along: Along,
    },
    BatchNorm {
        num_features: usize,
        eps: f64,
        training: bool,
    },
    GroupNorm {
        num_groups: usize,
        num_channels: usize,
        eps: f64,
        fusion: Fusion,
    },
    InstanceNorm {
        num_features: usize,
        eps: f64,
        fusion: Fusion,
    },
    QkNorm {
        kind: Kind,
        eps: Option<f64>,
    },
    WeightNorm {
        dim: Option<usize>,
    },
    Normalize {
        p: f64,
        dim: isize,
        eps: f64,
    },
}

/// Where weight and bias of DyT vary.
#[derive(Debug, Clone)]
pub(crate) enum Along {
    Trailing(Vec<usize>),
    Channels(usize),
}

/// How a head of queries or keys is normalized.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    L2,
    Rms,
    Layer,
}

/// The tensors of a call that belong to the method.
#[derive(Default, Clone)]
pub(crate) struct Operands<'a> {
    pub(crate) weight: Option<View<'a>>,
    pub(crate) bias: Option<View<'a>>,
    pub(crate) alpha: Option<View<'a>>,
    pub(crate) mask: Option<View<'a>>,
    pub(crate) before: Option<View<'a>>,
    pub(crate) after: Option<View<'a>>,
}

/// Which optional tensors a call has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Given {
    pub(crate) weight: bool,
    pub(crate) bias: bool,
    pub(crate) alpha: bool,
    pub(crate) mask: bool,
    pub(crate) before: bool,
    pub(crate) after: bool,
    pub(crate) running_mean: bool,
    pub(crate) running_var: bool,
}

/// Makes calls on a builder for those arguments that there are.
macro_rules! bound {
    ($norm:expr, $($call:ident: $argument:expr),*) => {{
        let mut norm = $norm;
        $(if let Some(argument) = $argument {
            norm = norm.$call(argument);
        })*
        norm
    }};
}

/// Puts what surrounds a norm around it. A residual before it that is not there has been added to the input already.
macro_rules! fused {
    ($norm:expr, $fusion:expr, $before:expr, $after:expr) => {{
        let (mut norm, fusion) = ($norm, $fusion);
        match (fusion.prologue, $before) {
            (Prologue::Residual { input_scale, residual_scale }, Some(residual)) => {
                norm = norm.scaled_residual_view(input_scale, residual, residual_scale);
            }
            (Prologue::Residual { input_scale, residual_scale }, None) => {
                norm = norm.of_hidden(input_scale, residual_scale);
            }
            (Prologue::Gate, Some(gate)) => norm = norm.input_gate_view(gate),
            _ => {}
        }
        if let Some(Dropout { probability, seed, offset }) = fusion.dropout {
            norm = norm.dropout(probability, seed, offset);
        }
        match (fusion.epilogue, $after) {
            (Epilogue::Activation(activation), _) => norm = norm.activation(activation),
            (Epilogue::Residual, Some(residual)) => norm = norm.output_residual_view(residual),
            (Epilogue::Gate, Some(gate)) => norm = norm.output_gate_view(gate),
            _ => {}
        }
        norm
    }};
}

impl Config {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Config::LayerNorm { .. } => "layer_norm",
            Config::RmsNorm { .. } => "rms_norm",
            Config::Dyt { .. } => "dyt",
            Config::BatchNorm { .. } => "batch_norm",
            Config::GroupNorm { .. } => "group_norm",
            Config::InstanceNorm { .. } => "instance_norm",
            Config::QkNorm { .. } => "qk_norm",
            Config::WeightNorm { .. } => "weight_norm",
            Config::Normalize { .. } => "normalize",
        }
    }

    /// What surrounds the norm.
    pub(crate) fn fusion(&self) -> Fusion {
        match *self {
            Config::LayerNorm { fusion, .. }
            | Config::RmsNorm { fusion, .. }
            | Config::GroupNorm { fusion, .. }
            | Config::InstanceNorm { fusion, .. } => fusion,
            _ => Fusion::default(),
        }
    }

    /// The batch norm, with its parameters, if the method is one.
    pub(crate) fn batch_norm<'a>(&self, operands: Operands<'a>) -> Option<BatchNorm<'a>> {
        let Config::BatchNorm { num_features, eps, .. } = *self else { return None };
        let Operands { weight, bias, mask, .. } = operands;
        let norm = BatchNorm::new(num_features).eps(eps);
        Some(bound!(norm, weight_view: weight, bias_view: bias, mask_view: mask))
    }

    /// The method with its parameters, those of [`Config::check`]; a batch norm by the batch's statistics.
    pub(crate) fn bind<'a>(&self, operands: Operands<'a>) -> Box<dyn Method + 'a> {
        let fusion = self.fusion();
        let Operands { weight, bias, alpha, mask, before, after } = operands;
        match self {
            Config::LayerNorm { normalized_shape, broadcast, eps, weight_offset, .. } => {
                let norm = LayerNorm::new(&normalized_shape[..]).eps(*eps).weight_offset(*weight_offset);
                let norm = if *broadcast { norm.broadcast_parameters() } else { norm };
                let norm = fused!(norm, fusion, before, after);
                Box::new(bound!(norm, weight_view: weight, bias_view: bias, mask_view: mask))
            }
            Config::RmsNorm {
                normalized_shape,
                broadcast,
                eps,
                eps_position,
                partial,
                weight_offset,
                cast,
                ..
            } => {
                let norm = RmsNorm::new(&normalized_shape[..]).eps_position(*eps_position).partial(*partial);
                let norm = norm.weight_offset(*weight_offset).cast(*cast);
                let norm = if *broadcast { norm.broadcast_parameters() } else { norm };
                let norm = fused!(norm, fusion, before, after);
                Box::new(bound!(norm, eps: *eps, weight_view: weight, bias_view: bias, mask_view: mask))
            }
            Config::Dyt { along } => {
                let norm = match along {
                    Along::Trailing(normalized_shape) => DyT::new(&normalized_shape[..]),
                    Along::Channels(channels) => DyT::channels_first(*channels),
                };
                Box::new(bound!(norm, alpha_view: alpha, weight_view: weight, bias_view: bias))
            }
            Config::BatchNorm { num_features, eps, .. } => {
                let norm = BatchNorm::new(*num_features).eps(*eps);
                Box::new(bound!(norm, weight_view: weight, bias_view: bias, mask_view: mask))
            }
            Config::GroupNorm { num_groups, num_channels, eps, .. } => {
                let norm =
                    fused!(GroupNorm::new(*num_groups, *num_channels).eps(*eps), fusion, before, after);
                Box::new(bound!(norm, weight_view: weight, bias_view: bias, mask_view: mask))
            }
            Config::InstanceNorm { num_features, eps, .. } => {
                let norm = fused!(InstanceNorm::new(*num_features).eps(*eps), fusion, before, after);
                Box::new(bound!(norm, weight_view: weight, bias_view: bias, mask_view: mask))
            }
            Config::QkNorm { kind, eps } => {
                let norm = match kind {
                    Kind::L2 => QkNorm::l2(),
                    Kind::Rms => QkNorm::rms(),
                    Kind::Layer => QkNorm::layer(),
                };
                let norm = bound!(norm, eps: *eps).query().clone();
                Box::new(bound!(norm, weight_view: weight, bias_view: bias))
            }
            Config::WeightNorm { dim } => Box::new(bound!(WeightNorm::new(*dim), g_view: weight)),
            Config::Normalize { p, dim, eps } => Box::new(Normalize::new().p(*p).dim(*dim).eps(*eps)),
        }
    }

    /// Refuses tensors that the method has no use for, and those that are missing.
    pub(crate) fn check(&self, given: Given, is_backward: bool) -> Result<()> {
        let fusion = self.fusion();
        let is_norm =
            !matches!(self, Config::WeightNorm { .. } | Config::Normalize { .. } | Config::Dyt { .. });
        let is_batch = matches!(self, Config::BatchNorm { .. });
        let taken = [
            ("weight", given.weight, !matches!(self, Config::Normalize { .. })),
            ("bias", given.bias, !matches!(self, Config::Normalize { .. } | Config::WeightNorm { .. })),
            ("alpha", given.alpha, matches!(self, Config::Dyt { .. })),
            ("mask", given.mask, is_norm && !matches!(self, Config::QkNorm { .. })),
            ("before", given.before, fusion.prologue.operand().is_some()),
            ("after", given.after, fusion.epilogue.operand().is_some()),
            ("running_mean", given.running_mean, is_batch),
            ("running_var", given.running_var, is_batch),
        ];
        for (name, given, taken) in taken {
            if given && !taken {
                let expected = format!("NULL, since this {} has no use for it", self.name());
                return Err(Fault::argument(name, expected, "a tensor"));
            }
        }
        let is_frozen = matches!(self, Config::BatchNorm { training: false, .. });
        // A hidden value in place of the input makes up for a residual before the norm, and the gradient of one after it is
        // that of the output.
        let is_residual = matches!(fusion.prologue, Prologue::Residual { .. });
        let needs_before = fusion.prologue.operand().is_some() && !(is_backward && is_residual);
        let needs_after = fusion.epilogue.operand().is_some()
            && !(is_backward && matches!(fusion.epilogue, Epilogue::Residual));
        let needed = [
            ("alpha", given.alpha, matches!(self, Config::Dyt { .. })),
            ("before", given.before, needs_before),
            ("after", given.after, needs_after),
            ("running_mean", given.running_mean, is_frozen || given.running_var),
            ("running_var", given.running_var, is_frozen || given.running_mean),
        ];
        for (name, given, needed) in needed {
            if needed && !given {
                return Err(Fault::argument(name, "a tensor", "NULL"));
            }
        }
        Ok(())
    }

    /// What C calls arguments: pairs of the Rust library's name and C's.
    pub(crate) fn names(&self) -> Vec<(&'static str, &'static str)> {
        let mut names = match self {
            Config::WeightNorm { .. } => vec![("v", "input"), ("g", "weight"), ("grad_g", "grad_weight")],
            Config::BatchNorm { .. } | Config::InstanceNorm { .. } => vec![("num_channels", "num_features")],
            Config::QkNorm { .. } => vec![("query", "input"), ("key", "input")],
            _ => Vec::new(),
        };
        let fusion = self.fusion();
        names.extend(fusion.prologue.operand().map(|name| (name, "before")));
        // Where both are of one kind, the message names the first.
        names.extend(fusion.epilogue.operand().map(|name| (name, "after")));
        names.push(("probability", "fusion.dropout_probability"));
        names
    }
}

/// The activation after a norm by its number in `normkit_epilogue`, if it is one.
pub(crate) fn activation(number: i32) -> Option<Activation> {
    use crate::options::Epilogue as Number;
    [
        (Number::Relu as i32, Activation::Relu),
        (Number::Silu as i32, Activation::Silu),
        (Number::Gelu as i32, Activation::Gelu),
        (Number::GeluTanh as i32, Activation::GeluTanh),
    ]
    .into_iter()
    .find_map(|(own, activation)| (own == number).then_some(activation))
}
