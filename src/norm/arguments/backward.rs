//! The operands of a backward pass.

use super::inner::{
    self, InnerBackwardArguments, MIX_STATISTICS_NAME, MixBackwardArguments, STATISTICS_NAME,
};
use super::{
    check, check_alpha, check_fusion, check_input, check_output, check_per_row, expanded, fused, mask,
    parameter, refined, refined_mut, rotary::rotary,
};
use crate::backend::Backward;
use crate::norm::{Gradients, Parameters, hidden_dtype};
use crate::spec::{Epilogue, Prologue, STATISTICS, SUMS, Spec};
use crate::tensor::{View, ViewMut};
use crate::{Error, Result, Stream};

/// What a backward pass is asked for.
pub(in crate::norm) struct BackwardArguments<'a> {
    pub(in crate::norm) grad_output: &'a View<'a>,
    pub(in crate::norm) input: &'a View<'a>,
    pub(in crate::norm) statistics: Option<&'a View<'a>>,
    pub(in crate::norm) given: Option<&'a View<'a>>,
    pub(in crate::norm) grad_hidden: Option<&'a View<'a>>,
    pub(in crate::norm) grads: Gradients<'a>,
    pub(in crate::norm) sums: Option<ViewMut<'a>>,
    /// Of a spec whose fusion has a norm of the branch.
    pub(in crate::norm) inner: Option<InnerBackwardArguments<'a>>,
    /// Of one that mixes it with a norm of the residual.
    pub(in crate::norm) mix: Option<MixBackwardArguments<'a>>,
}

impl<'a> BackwardArguments<'a> {
    /// Of these tensors, with the row's own sums.
    pub(in crate::norm) fn new(grad_output: &'a View<'a>, input: &'a View<'a>, grads: Gradients<'a>) -> Self {
        let (statistics, given, grad_hidden, sums, inner, mix) = (None, None, None, None, None, None);
        BackwardArguments { grad_output, input, statistics, given, grad_hidden, grads, sums, inner, mix }
    }
}

/// The operands of a backward pass, or what is wrong with them.
pub(in crate::norm) fn backward<'a>(
    spec: &Spec,
    parameters: &'a Parameters<'a>,
    arguments: BackwardArguments<'a>,
    stream: &Stream<'_>,
) -> Result<Backward<'a>> {
    let BackwardArguments { grad_output, input, statistics, given, grad_hidden, grads, sums, inner, mix } =
        arguments;
    if let Some(inner) = &inner {
        inner::check_hidden(inner, input, stream)?;
    }
    let saved_hidden = inner.as_ref().and_then(|inner| inner.hidden);
    check_input(input, stream)?;
    let dtype = input.dtype();
    check("grad_output", grad_output, input.shape(), dtype, stream)?;
    let weight = parameter("weight", parameters.weight.as_ref(), spec, dtype, stream)?;
    let bias = parameter("bias", parameters.bias.as_ref(), spec, dtype, stream)?;
    let branch_bias = parameter("branch_bias", parameters.branch_bias.as_ref(), spec, dtype, stream)?;
    let branch_scale = parameter("branch_scale", parameters.branch_scale.as_ref(), spec, dtype, stream)?;
    check_alpha(parameters.alpha.as_ref(), dtype, stream)?;
    let mask = mask(parameters.mask.as_ref(), spec, input, stream)?;
    let fusion = spec.fusion();
    check_fusion(fusion, parameters, true)?;
    let (prologue, epilogue) = (fusion.prologue.operand(), fusion.epilogue.operand());
    let before = fused(prologue, parameters.before.as_ref(), spec, input, stream)?;
    let after = fused(epilogue, parameters.after.as_ref(), spec, input, stream)?;
    let rotary = rotary(spec, parameters, input, stream)?;
    if let Some(view) = grad_hidden {
        if prologue.is_none() {
            let expected = "none: this method normalizes its input itself";
            return Err(Error::argument("grad_hidden", expected, "a tensor"));
        }
        let dtype = saved_hidden.map_or(hidden_dtype(parameters, dtype), |hidden| hidden.dtype());
        check("grad_hidden", view, input.shape(), dtype, stream)?;
    }
    let rows = spec.rows();
    match statistics {
        Some(view) if spec.has_statistics() => {
            check_per_row("statistics", view, [rows, STATISTICS], dtype, stream)?;
        }
        Some(_) => {
            return Err(Error::argument("statistics", "none: this method saves no statistics", "a tensor"));
        }
        None if spec.has_statistics() => {
            return Err(Error::argument("statistics", "those that the forward pass saved", "none"));
        }
        None => {}
    }
    for (name, view) in [("given sums", given), ("sums", sums.as_ref().map(|s| s.as_view()).as_ref())] {
        let Some(view) = view else { continue };
        check_per_row(name, view, [rows, SUMS], dtype, stream)?;
    }
    let bound = |name, target: &Option<ViewMut<'_>>, source: Option<&View<'_>>| match (target, source) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(Error::argument(name, "no gradient: the parameter is not bound", "a tensor")),
        (Some(target), Some(source)) => {
            check(name, &target.as_view(), source.shape(), source.dtype(), stream)
        }
    };
    bound("grad_input", &grads.input, Some(input))?;
    bound("grad_weight", &grads.weight, parameters.weight.as_ref())?;
    bound("grad_bias", &grads.bias, parameters.bias.as_ref())?;
    bound("grad_alpha", &grads.alpha, parameters.alpha.as_ref())?;
    let of_prologue = match fusion.prologue {
        // The hidden value in its place.
        Prologue::Residual { .. } => parameters.before.as_ref().or(saved_hidden).or(Some(input)),
        _ => parameters.before.as_ref(),
    };
    let of_epilogue = match fusion.epilogue {
        Epilogue::Residual => parameters.after.as_ref().or(Some(grad_output)),
        _ => parameters.after.as_ref(),
    };
    bound("grad_branch_bias", &grads.branch_bias, parameters.branch_bias.as_ref())?;
    bound("grad_branch_scale", &grads.branch_scale, parameters.branch_scale.as_ref())?;
    check_branch(&grads, parameters, sums.is_some())?;
    bound("grad_before", &grads.before, of_prologue)?;
    bound("grad_after", &grads.after, of_epilogue)?;
    let targets = [
        ("grad_input", grads.input.as_ref().map(|t| t.as_view())),
        ("grad_weight", grads.weight.as_ref().map(|t| t.as_view())),
        ("grad_bias", grads.bias.as_ref().map(|t| t.as_view())),
        ("grad_alpha", grads.alpha.as_ref().map(|t| t.as_view())),
        ("grad_before", grads.before.as_ref().map(|t| t.as_view())),
        ("grad_after", grads.after.as_ref().map(|t| t.as_view())),
        ("grad_branch_bias", grads.branch_bias.as_ref().map(|t| t.as_view())),
        ("grad_branch_scale", grads.branch_scale.as_ref().map(|t| t.as_view())),
        ("sums", sums.as_ref().map(|t| t.as_view())),
        ("after.grad_weight", inner.as_ref().and_then(|b| b.grad_weight.as_ref()).map(|t| t.as_view())),
        ("after.grad_bias", inner.as_ref().and_then(|b| b.grad_bias.as_ref()).map(|t| t.as_view())),
        ("grad_alpha", mix.as_ref().and_then(|mix| mix.grad_alpha.as_ref()).map(|t| t.as_view())),
    ];
    for (index, (name, target)) in targets.iter().enumerate() {
        let Some(target) = target else { continue };
        // What each may replace, element for element.
        let replaced = match *name {
            "grad_input" => Some(grad_output),
            "grad_before" => grad_hidden,
            _ => None,
        };
        let mut others = vec![
            ("input", Some(input)),
            ("weight", parameters.weight.as_ref()),
            ("alpha", parameters.alpha.as_ref()),
            ("mask", parameters.mask.as_ref()),
            ("statistics", statistics),
            ("given sums", given),
            ("bias", parameters.bias.as_ref().filter(|_| fusion.epilogue != Epilogue::None)),
            (prologue.unwrap_or("before"), parameters.before.as_ref()),
            (epilogue.unwrap_or("after"), parameters.after.as_ref()),
            ("branch_bias", parameters.branch_bias.as_ref()),
            ("branch_scale", parameters.branch_scale.as_ref()),
            ("cos", parameters.tables.as_ref().map(|tables| &tables.cos)),
            ("sin", parameters.tables.as_ref().map(|tables| &tables.sin)),
            ("positions", parameters.tables.as_ref().and_then(|tables| tables.positions.as_ref())),
        ];
        if let Some(inner) = &inner {
            others.extend(inner::named(Some(inner.parameters)));
            others.extend([(STATISTICS_NAME, Some(inner.statistics)), ("hidden", inner.hidden)]);
        }
        if let Some(mix) = &mix {
            others.extend([("alpha", Some(mix.alpha)), (MIX_STATISTICS_NAME, Some(mix.statistics))]);
        }
        if *name != "grad_input" {
            others.push(("grad_output", Some(grad_output)));
        }
        if *name != "grad_before" {
            others.push(("grad_hidden", grad_hidden));
        }
        others.extend(targets[..index].iter().map(|(name, view)| (*name, view.as_ref())));
        check_output(name, target, replaced, &others)?;
    }
    let inner = inner.map(|inner| inner::backward(inner, spec, input, stream)).transpose()?;
    let mix = mix.map(|mix| inner::mix_backward(mix, spec, input, stream)).transpose()?;
    let of_parameter = |name, view: Option<ViewMut<'a>>| {
        let Some(view) = view else { return Ok(None) };
        let layout = expanded(name, view.layout(), spec)?;
        view.with_layout(layout).map(Some)
    };
    Ok(Backward {
        grad_output: refined("grad_output", grad_output, spec)?,
        input: refined("input", input, spec)?,
        weight,
        bias,
        alpha: parameters.alpha.clone(),
        mask,
        before,
        after,
        branch_bias,
        branch_scale,
        rotary,
        grad_hidden: grad_hidden.map(|view| refined("grad_hidden", view, spec)).transpose()?,
        statistics: statistics.cloned(),
        given: given.cloned(),
        grad_input: grads.input.map(|view| refined_mut("grad_input", view, spec)).transpose()?,
        grad_weight: of_parameter("grad_weight", grads.weight)?,
        grad_bias: of_parameter("grad_bias", grads.bias)?,
        grad_alpha: grads.alpha,
        grad_branch_bias: of_parameter("grad_branch_bias", grads.branch_bias)?,
        grad_branch_scale: of_parameter("grad_branch_scale", grads.branch_scale)?,
        grad_before: grads.before.map(|view| refined_mut("grad_before", view, spec)).transpose()?,
        grad_after: grads.after.map(|view| refined_mut("grad_after", view, spec)).transpose()?,
        sums,
        inner,
        mix,
    })
}

/// Refuses gradients of a branch that what is given cannot tell.
fn check_branch(grads: &Gradients<'_>, parameters: &Parameters<'_>, are_sums_wanted: bool) -> Result<()> {
    let of_branch = [("grad_branch_bias", &grads.branch_bias), ("grad_branch_scale", &grads.branch_scale)];
    if let Some((name, _)) = of_branch.iter().find(|(_, target)| are_sums_wanted && target.is_some()) {
        return Err(Error::argument(name, "none: it needs the sums", "a tensor"));
    }
    if grads.branch_scale.is_some() && parameters.before.is_none() {
        let expected = "none: it needs the input of the forward pass and the residual, not the hidden value";
        return Err(Error::argument("grad_branch_scale", expected, "a tensor"));
    }
    Ok(())
}
