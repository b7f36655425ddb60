//! The methods with their options, before they are given parameters.

use crate::errors::value_error;
use normkit::norm::Rotary;
use normkit::spec::{Activation, Dropout, Epilogue, Fusion, Prologue, RotaryStyle};
use normkit::tensor::View;
use normkit::{
    BatchNorm, Cast, DyT, GroupNorm, InstanceNorm, LayerNorm, Method, Normalize, QkNorm, RmsNorm, WeightNorm,
};
use pyo3::prelude::*;

/// A method and its options.
#[derive(Debug, Clone)]
pub(crate) enum Config {
    LayerNorm {
        normalized_shape: Vec<usize>,
        eps: f64,
        fusion: Fusion,
    },
    RmsNorm {
        normalized_shape: Vec<usize>,
        eps: Option<f64>,
        offset: f64,
        cast: Cast,
        partial: f64,
        fusion: Fusion,
    },
    /// Of the last axis, by a scale and a shift of each sample or token; with `centred` a layer norm, else an RMS norm.
    Modulated {
        centred: bool,
        cols: usize,
        eps: f64,
    },
    /// Of groups of `group_size` of the last axis's `cols` elements.
    GatedRmsNorm {
        cols: usize,
        group_size: usize,
        eps: f64,
        norm_before_gate: bool,
    },
    BatchNorm {
        num_features: usize,
        eps: f64,
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
    },
    Normalize {
        p: f64,
        dim: isize,
        eps: f64,
    },
    DyT {
        normalized_shape: Vec<usize>,
    },
    /// With `rotary`, pairs of columns are rotated after it.
    HeadNorm {
        kind: HeadKind,
        eps: f64,
        rotary: Option<RotaryStyle>,
    },
    WeightNorm {
        dim: Option<usize>,
    },
}

/// How a head of queries or keys is normalized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadKind {
    Rms,
    L2,
    Layer,
}

/// The learned parameters of a call, and the other operands of what surrounds the norm.
#[derive(Default)]
pub(crate) struct Bound<'a> {
    pub(crate) weight: Option<View<'a>>,
    pub(crate) bias: Option<View<'a>>,
    pub(crate) alpha: Option<View<'a>>,
    pub(crate) before: Option<View<'a>>,
    pub(crate) after: Option<View<'a>>,
    /// Cosines, sines and positions of a rotary embedding.
    pub(crate) angles: [Option<View<'a>>; 3],
    /// Bias and scale of a residual's branch.
    pub(crate) branch: [Option<View<'a>>; 2],
}

/// A method that a call may take along while other Python threads run.
pub(crate) type Runnable<'a> = Box<dyn Method + Send + Sync + 'a>;

/// Binds those of the parameters that there are.
macro_rules! with {
    ($norm:expr, $($call:ident: $view:expr),*) => {{
        let mut norm = $norm;
        $(if let Some(view) = $view {
            norm = norm.$call(view);
        })*
        norm
    }};
}

/// The same as a method to run.
macro_rules! bound {
    ($($norm:tt)*) => {
        Box::new(with!($($norm)*))
    };
}

/// Puts what surrounds a norm around it. A residual before it that is not there has been added to the input already.
macro_rules! fused {
    ($norm:expr, $fusion:expr, $before:expr, $after:expr) => {{
        let (mut norm, fusion) = ($norm, $fusion);
        // Assigned where there is something to do: a norm is a kilobyte, which a plain call is not to move.
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
    /// The method with its parameters. Those that it has no use for are to have been [checked](Config::check).
    pub(crate) fn bind<'a>(&self, bound: Bound<'a>) -> Runnable<'a> {
        let Bound { weight, bias, alpha, before, after, angles, branch: [branch_bias, branch_scale] } = bound;
        let fusion = self.fusion();
        match self {
            Config::LayerNorm { normalized_shape, eps, .. } => {
                let norm = fused!(LayerNorm::new(&normalized_shape[..]).eps(*eps), fusion, before, after);
                let norm = with!(norm, branch_bias_view: branch_bias, branch_scale_view: branch_scale);
                bound!(norm, weight_view: weight, bias_view: bias)
            }
            Config::RmsNorm { normalized_shape, eps, offset, cast, partial, .. } => {
                let norm = fused!(RmsNorm::new(&normalized_shape[..]), fusion, before, after);
                let norm = norm.weight_offset(*offset).cast(*cast).partial(*partial);
                let norm = with!(norm, branch_bias_view: branch_bias, branch_scale_view: branch_scale);
                bound!(norm, eps: *eps, weight_view: weight, bias_view: bias)
            }
            Config::Modulated { centred: true, cols, eps } => {
                let norm = LayerNorm::new([*cols]).eps(*eps).weight_offset(1.0).broadcast_parameters();
                bound!(norm, weight_view: weight, bias_view: bias)
            }
            Config::Modulated { centred: false, cols, eps } => {
                let norm = RmsNorm::new([*cols]).eps(*eps).weight_offset(1.0).broadcast_parameters();
                bound!(norm, weight_view: weight, bias_view: bias)
            }
            Config::GatedRmsNorm { group_size, eps, .. } => {
                let norm = RmsNorm::new([*group_size]).eps(*eps).broadcast_parameters();
                let norm = fused!(norm, fusion, before, after);
                bound!(norm, weight_view: weight, bias_view: bias)
            }
            Config::BatchNorm { num_features, eps } => {
                bound!(BatchNorm::new(*num_features).eps(*eps), weight_view: weight, bias_view: bias)
            }
            Config::GroupNorm { num_groups, num_channels, eps, .. } => {
                let norm = GroupNorm::new(*num_groups, *num_channels).eps(*eps);
                bound!(fused!(norm, fusion, before, after), weight_view: weight, bias_view: bias)
            }
            Config::InstanceNorm { num_features, eps } => {
                bound!(InstanceNorm::new(*num_features).eps(*eps), weight_view: weight, bias_view: bias)
            }
            Config::Normalize { p, dim, eps } => Box::new(Normalize::new().p(*p).dim(*dim).eps(*eps)),
            Config::DyT { normalized_shape } => {
                let norm = DyT::new(&normalized_shape[..]);
                bound!(norm, alpha_view: alpha, weight_view: weight, bias_view: bias)
            }
            Config::HeadNorm { kind, eps, rotary } => {
                let norm = heads(*kind).eps(*eps);
                let norm = match (rotary, angles) {
                    (Some(style), [Some(cos), Some(sin), positions]) => {
                        norm.rotary(&embedding(*style, (cos, sin), positions))
                    }
                    _ => norm,
                };
                bound!(norm.query().clone(), weight_view: weight, bias_view: bias)
            }
            Config::WeightNorm { dim } => bound!(WeightNorm::new(*dim), g_view: weight),
        }
    }

    /// What surrounds the norm.
    pub(crate) fn fusion(&self) -> Fusion {
        match *self {
            Config::LayerNorm { fusion, .. }
            | Config::RmsNorm { fusion, .. }
            | Config::GroupNorm { fusion, .. } => fusion,
            Config::GatedRmsNorm { norm_before_gate: true, .. } => {
                Fusion { epilogue: Epilogue::Gate, ..Fusion::default() }
            }
            Config::GatedRmsNorm { norm_before_gate: false, .. } => {
                Fusion { prologue: Prologue::Gate, ..Fusion::default() }
            }
            _ => Fusion::default(),
        }
    }

    /// The same norm with this around it.
    pub(crate) fn fused(mut self, new: Fusion) -> PyResult<Self> {
        match &mut self {
            Config::LayerNorm { fusion, .. }
            | Config::RmsNorm { fusion, .. }
            | Config::GroupNorm { fusion, .. } => *fusion = new,
            _ => {
                return Err(value_error(
                    "fused: expected a layer_norm, rms_norm or group_norm, found another norm",
                ));
            }
        }
        Ok(self)
    }

    /// How many of the input's last axes make a row.
    pub(crate) fn axes(&self) -> usize {
        match self {
            Config::LayerNorm { normalized_shape, .. } | Config::RmsNorm { normalized_shape, .. } => {
                normalized_shape.len()
            }
            _ => 1,
        }
    }

    /// What the method's users call its arguments.
    pub(crate) fn names(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Config::WeightNorm { .. } => &[("input", "v"), ("weight", "g"), ("memory", "v")],
            Config::Modulated { .. } => &[("weight", "scale"), ("bias", "shift")],
            Config::HeadNorm { rotary: Some(_), .. } => &[("dims", "cos")],
            _ => &[],
        }
    }

    /// What its users call the argument `name`.
    pub(crate) fn called(&self, name: &'static str) -> &'static str {
        self.names().iter().find_map(|(own, called)| (*own == name).then_some(*called)).unwrap_or(name)
    }

    /// Refuses a rotary embedding's operands that are missing, or that the method has no use for.
    pub(crate) fn check_angles(&self, given: [bool; 3]) -> PyResult<()> {
        let takes = matches!(self, Config::HeadNorm { rotary: Some(_), .. });
        for (name, given) in ["cos", "sin", "positions"].into_iter().zip(given) {
            if given && !takes {
                let expected = "None, since the method has no use for it";
                return Err(value_error(format!("{name}: expected {expected}, found an array")));
            }
            if !given && takes && name != "positions" {
                return Err(value_error(format!("{name}: expected an array, found None")));
            }
        }
        Ok(())
    }

    /// Refuses a bias and a scale of a branch that the method does not have.
    pub(crate) fn check_branch(&self, given: [bool; 2]) -> PyResult<()> {
        let takes = matches!(self.fusion().prologue, Prologue::Residual { .. })
            && matches!(self, Config::LayerNorm { .. } | Config::RmsNorm { .. });
        for (name, _) in ["branch_bias", "branch_scale"].into_iter().zip(given).filter(|(_, given)| *given) {
            if !takes {
                let expected = "None, since the method has no use for it";
                return Err(value_error(format!("{name}: expected {expected}, found an array")));
            }
        }
        Ok(())
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
        if let Config::Modulated { .. } = self
            && !weight
        {
            return Err(value_error("scale: expected an array, found None"));
        }
        if let Config::DyT { .. } = self
            && !alpha
        {
            return Err(value_error("alpha: expected an array of one element, found None"));
        }
        Ok(())
    }
}

/// The rotary embedding by these tables.
pub(crate) fn embedding<'a>(
    style: RotaryStyle,
    (cos, sin): (View<'a>, View<'a>),
    positions: Option<View<'a>>,
) -> Rotary<'a> {
    let rotary = Rotary::of_views(style, cos, sin);
    match positions {
        Some(positions) => rotary.positions_view(positions),
        None => rotary,
    }
}

/// The style of pairs of columns.
pub(crate) fn rotary_style(interleaved: bool) -> RotaryStyle {
    if interleaved { RotaryStyle::Interleaved } else { RotaryStyle::HalfSplit }
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

/// The function after a norm by its name, in what surrounds the norm; None is none.
pub(crate) fn activated(name: Option<&str>) -> Fusion {
    let activation = match name {
        None => return Fusion::default(),
        Some("relu") => Activation::Relu,
        Some("silu") => Activation::Silu,
        Some("gelu") => Activation::Gelu,
        Some(_) => Activation::GeluTanh,
    };
    Fusion { epilogue: Epilogue::Activation(activation), ..Fusion::default() }
}
