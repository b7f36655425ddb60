//! The methods under check, built from a case.

use super::case::{ANY_SPEC, Case, Parameters};
use crate::norm::{
    self, BatchNorm, DyT, Eln, GroupNorm, InstanceNorm, LayerNorm, LayerNorm2d, Method, Normalize, QkNorm,
    RmsNorm, WeightNorm,
};
use crate::spec::Spec;
use crate::tensor::{DType, Tensor, View, ViewMut};
use crate::{Device, Error, Result};

/// How QKNorm normalizes a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeadKind {
    /// To unit length.
    L2,
    /// By its root mean square.
    Rms,
    /// Centred, and by its deviation.
    Layer,
}

/// The mean and the variance that a frozen norm is given, one of each for a row: drawn around these.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Given {
    /// The means are within plus and minus this.
    pub mean: f64,
    /// The variances are between a half and three halves of this.
    pub var: f64,
}

impl Default for Given {
    fn default() -> Self {
        Given { mean: 1.0, var: 1.0 }
    }
}

/// The method that `case` names, with its options and with these parameters bound.
pub(super) fn build<'a>(case: &Case, parameters: Parameters<'a>) -> Result<Box<dyn Method + 'a>> {
    // One line a parameter: the builders are types of their own, with calls of the same names.
    macro_rules! bind {
        ($method:expr, $($call:ident($view:expr)),* $(,)?) => {{
            #[allow(unused_mut, reason = "not every method has parameters")]
            let mut method = $method;
            $(if let Some(view) = $view { method = method.$call(view); })*
            method
        }};
    }
    let Parameters { weight, bias, alpha, mask, running, tables, .. } = parameters;
    let ([before, after], [branch_bias, branch_scale]) = (parameters.others, parameters.branch);
    let tables = tables.map(Box::new);
    let axes = case.shape.len().saturating_sub(case.normalized_axes);
    let normalized = case.shape[axes..].to_vec();
    let channels = case.shape.get(1).copied().unwrap_or(0);
    macro_rules! usual {
        ($method:expr) => {
            bind!($method.eps(case.eps), weight_view(weight), bias_view(bias), mask_view(mask))
                .with_parameters(|bound| {
                    (bound.fusion, bound.before, bound.after) = (case.fusion, before, after);
                    (bound.branch_bias, bound.branch_scale) = (branch_bias, branch_scale);
                    bound.tables = tables;
                })
        };
    }
    Ok(match case.method {
        "layer_norm" => Box::new(usual!(LayerNorm::new(normalized))),
        "rms_norm" => Box::new(usual!(
            RmsNorm::new(normalized)
                .eps_position(case.eps_position)
                .partial(case.partial)
                .weight_offset(case.weight_offset)
                .cast(case.cast)
        )),
        "batch_norm" => {
            let norm = usual!(BatchNorm::new(channels));
            match (case.frozen, running) {
                (Some(_), Some((mean, var))) => Box::new(norm.frozen(&Operand(mean), &Operand(var))?),
                _ => Box::new(norm),
            }
        }
        "group_norm" => Box::new(usual!(GroupNorm::new(case.groups, channels))),
        "instance_norm" => Box::new(usual!(InstanceNorm::new(channels))),
        "layer_norm_2d" => Box::new(usual!(LayerNorm2d::new(channels))),
        "weight_norm" => Box::new(bind!(WeightNorm::new(case.dim), g_view(weight))),
        "normalize" => {
            let dim = case.dim.map_or(-1, |dim| dim as isize);
            Box::new(Normalize::new().p(case.p).dim(dim).eps(case.eps))
        }
        "qk_norm" => {
            let both = match case.head {
                HeadKind::L2 => QkNorm::l2(),
                HeadKind::Rms => QkNorm::rms(),
                HeadKind::Layer => QkNorm::layer(),
            };
            // Queries and keys are two norms of the same kind; a test of its own runs them in one call.
            let head = both.eps(case.eps).query().clone();
            let head = bind!(head, weight_view(weight), bias_view(bias));
            Box::new(head.with_parameters(|bound| (bound.fusion, bound.tables) = (case.fusion, tables)))
        }
        "dyt" => {
            Box::new(bind!(DyT::new(normalized), alpha_view(alpha), weight_view(weight), bias_view(bias)))
        }
        "eln" => {
            Box::new(bind!(Eln::new(normalized), alpha_view(alpha), weight_view(weight), bias_view(bias)))
        }
        ANY_SPEC => {
            let mut bound = norm::Parameters::default();
            (bound.weight, bound.bias, bound.mask) = (weight, bias, mask);
            (bound.before, bound.after, bound.tables) = (before, after, tables);
            (bound.branch_bias, bound.branch_scale) = (branch_bias, branch_scale);
            bound.alpha = alpha.filter(|_| !case.has_rows());
            Box::new(AnySpec { spec: case.spec.clone().ok_or_else(|| case.unknown())?, parameters: bound })
        }
        _ => return Err(case.unknown()),
    })
}

/// A method that lowers to a spec of the caller's, so that what no method says can be checked, too.
struct AnySpec<'a> {
    spec: Spec,
    parameters: norm::Parameters<'a>,
}

impl Method for AnySpec<'_> {
    fn name(&self) -> &'static str {
        ANY_SPEC
    }

    fn lower(&self, _: &[usize], _: DType) -> Result<Spec> {
        Ok(self.spec.clone())
    }

    fn parameters(&self) -> &norm::Parameters<'_> {
        &self.parameters
    }
}

/// An operand as a tensor, for calls that take those.
struct Operand<'a>(View<'a>);

impl Tensor for Operand<'_> {
    fn device(&self) -> Device {
        self.0.device()
    }

    fn view(&self) -> Result<View<'_>> {
        Ok(self.0.clone())
    }

    fn view_mut(&mut self) -> Result<ViewMut<'_>> {
        Err(Error::argument("operand", "one that is written", "one that is read"))
    }

    fn empty(&self, _: &[usize], _: DType) -> Result<Self> {
        Err(Error::argument("operand", "a tensor that owns memory", "a view"))
    }
}
