//! The operands of the norm of a branch, by the names that [`Sandwich`](crate::norm::Sandwich) has for them, and of a mix with a norm
//! of the residual, by those of [`HypersphereStep`](crate::norm::HypersphereStep).

use super::{Named, check, check_narrow, check_per_row, expanded, parameter, refined};
use crate::backend::{Inner, InnerBackward, Mix, MixBackward};
use crate::norm::Parameters;
use crate::spec::{STATISTICS, Spec};
use crate::tensor::{View, ViewMut};
use crate::{Error, Result, Stream};

/// What a forward pass has for it.
pub(in crate::norm) struct InnerArguments<'a> {
    pub(in crate::norm) parameters: &'a Parameters<'a>,
    pub(in crate::norm) statistics: Option<ViewMut<'a>>,
}

/// What a backward pass has for it.
pub(in crate::norm) struct InnerBackwardArguments<'a> {
    pub(in crate::norm) parameters: &'a Parameters<'a>,
    pub(in crate::norm) statistics: &'a View<'a>,
    /// The hidden value, where there is no residual to make it of.
    pub(in crate::norm) hidden: Option<&'a View<'a>>,
    pub(in crate::norm) grad_weight: Option<ViewMut<'a>>,
    pub(in crate::norm) grad_bias: Option<ViewMut<'a>>,
}

/// What a forward pass has for a mix.
pub(in crate::norm) struct MixArguments<'a> {
    pub(in crate::norm) alpha: &'a View<'a>,
    pub(in crate::norm) statistics: Option<ViewMut<'a>>,
}

/// What a backward pass has for it.
pub(in crate::norm) struct MixBackwardArguments<'a> {
    pub(in crate::norm) alpha: &'a View<'a>,
    pub(in crate::norm) statistics: &'a View<'a>,
    pub(in crate::norm) grad_alpha: Option<ViewMut<'a>>,
}

pub(super) const STATISTICS_NAME: &str = "after.statistics";
/// Of the residual's norm.
pub(super) const MIX_STATISTICS_NAME: &str = "branch.statistics";

/// Weight and bias, for outputs to be compared with.
pub(super) fn named<'v, 'a>(parameters: Option<&'v Parameters<'a>>) -> [Named<'v, 'a>; 2] {
    [
        ("after.weight", parameters.and_then(|parameters| parameters.weight.as_ref())),
        ("after.bias", parameters.and_then(|parameters| parameters.bias.as_ref())),
    ]
}

/// Weight and bias, seen in the spec's shape.
fn seen<'v>(
    parameters: &Parameters<'v>,
    spec: &Spec,
    input: &View<'_>,
    stream: &Stream<'_>,
) -> Result<[Option<View<'v>>; 2]> {
    let weight = parameter("after.weight", parameters.weight.as_ref(), spec, input.dtype(), stream)?;
    let bias = parameter("after.bias", parameters.bias.as_ref(), spec, input.dtype(), stream)?;
    Ok([weight, bias])
}

/// The operands for the backend. The statistics have been checked.
pub(super) fn forward<'a>(
    arguments: InnerArguments<'a>,
    spec: &Spec,
    input: &View<'_>,
    stream: &Stream<'_>,
) -> Result<Inner<'a>> {
    let [weight, bias] = seen(arguments.parameters, spec, input, stream)?;
    Ok(Inner { weight, bias, statistics: arguments.statistics })
}

/// A hidden value that is given has the input's shape, and a dtype of its own.
pub(super) fn check_hidden(
    arguments: &InnerBackwardArguments<'_>,
    input: &View<'_>,
    stream: &Stream<'_>,
) -> Result<()> {
    let Some(hidden) = arguments.hidden else { return Ok(()) };
    check_narrow("hidden", hidden, input.dtype(), stream)?;
    check("hidden", hidden, input.shape(), hidden.dtype(), stream)
}

/// The operands for the backend. That the gradients are apart from all others has been checked.
pub(super) fn backward<'a>(
    arguments: InnerBackwardArguments<'a>,
    spec: &Spec,
    input: &View<'_>,
    stream: &Stream<'_>,
) -> Result<InnerBackward<'a>> {
    let InnerBackwardArguments { parameters, statistics, hidden, grad_weight, grad_bias } = arguments;
    let [weight, bias] = seen(parameters, spec, input, stream)?;
    check_per_row(STATISTICS_NAME, statistics, [spec.rows(), STATISTICS], input.dtype(), stream)?;
    let gradient = |name, view: Option<ViewMut<'a>>, of: &Option<View<'_>>| {
        let Some(view) = view else { return Ok(None) };
        let Some(of) = of else {
            return Err(Error::argument(name, "no gradient: the parameter is not bound", "a tensor"));
        };
        check(name, &view.as_view(), of.shape(), of.dtype(), stream)?;
        let layout = expanded(name, view.layout(), spec)?;
        view.with_layout(layout).map(Some)
    };
    Ok(InnerBackward {
        grad_weight: gradient("after.grad_weight", grad_weight, &parameters.weight)?,
        grad_bias: gradient("after.grad_bias", grad_bias, &parameters.bias)?,
        weight,
        bias,
        statistics: statistics.clone(),
        hidden: hidden.map(|view| refined("hidden", view, spec)).transpose()?,
    })
}

/// Alpha, seen in the spec's shape.
fn seen_alpha<'v>(alpha: &View<'v>, spec: &Spec, input: &View<'_>, stream: &Stream<'_>) -> Result<View<'v>> {
    check_narrow("alpha", alpha, input.dtype(), stream)?;
    alpha.clone().with_layout(expanded("alpha", alpha.layout(), spec)?)
}

/// The operands for the backend. The statistics have been checked.
pub(super) fn mix<'a>(
    arguments: MixArguments<'a>,
    spec: &Spec,
    input: &View<'_>,
    stream: &Stream<'_>,
) -> Result<Mix<'a>> {
    let alpha = seen_alpha(arguments.alpha, spec, input, stream)?;
    Ok(Mix { alpha, weight: None, statistics: arguments.statistics })
}

/// The operands for the backend. That the gradient is apart from all others has been checked.
pub(super) fn mix_backward<'a>(
    arguments: MixBackwardArguments<'a>,
    spec: &Spec,
    input: &View<'_>,
    stream: &Stream<'_>,
) -> Result<MixBackward<'a>> {
    let MixBackwardArguments { alpha, statistics, grad_alpha } = arguments;
    check_per_row(MIX_STATISTICS_NAME, statistics, [spec.rows(), STATISTICS], input.dtype(), stream)?;
    let seen = seen_alpha(alpha, spec, input, stream)?;
    let grad_alpha = match grad_alpha {
        None => None,
        Some(view) => {
            check("grad_alpha", &view.as_view(), alpha.shape(), alpha.dtype(), stream)?;
            let layout = expanded("grad_alpha", view.layout(), spec)?;
            Some(view.with_layout(layout)?)
        }
    };
    Ok(MixBackward {
        alpha: seen,
        weight: None,
        statistics: statistics.clone(),
        grad_alpha,
        grad_weight: None,
    })
}
