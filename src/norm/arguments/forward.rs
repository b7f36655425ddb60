//! The operands of a forward pass.

use super::inner::{self, InnerArguments, MIX_STATISTICS_NAME, MixArguments, STATISTICS_NAME};
use super::{
    Named, check, check_alpha, check_apart, check_fusion, check_input, check_output, check_per_row,
    check_replacing, fused, mask, parameter, refined, refined_mut, rotary::rotary,
};
use crate::backend::Forward;
use crate::norm::{Parameters, hidden_dtype};
use crate::spec::{MOMENTS, Prologue, STATISTICS, Spec};
use crate::tensor::{DType, View, ViewMut};
use crate::{Error, Result, Stream};

/// What a forward pass is asked for.
pub(in crate::norm) struct ForwardArguments<'a> {
    pub(in crate::norm) input: &'a View<'a>,
    pub(in crate::norm) given: Option<&'a View<'a>>,
    pub(in crate::norm) output: Option<ViewMut<'a>>,
    pub(in crate::norm) scales: Option<ViewMut<'a>>,
    pub(in crate::norm) flags: Option<ViewMut<'a>>,
    pub(in crate::norm) hidden: Option<ViewMut<'a>>,
    pub(in crate::norm) statistics: Option<ViewMut<'a>>,
    pub(in crate::norm) moments: Option<ViewMut<'a>>,
    /// Of a spec whose fusion has a norm of the branch.
    pub(in crate::norm) inner: Option<InnerArguments<'a>>,
    /// Of one that mixes it with a norm of the residual.
    pub(in crate::norm) mix: Option<MixArguments<'a>>,
}

impl<'a> ForwardArguments<'a> {
    /// Of this input, asked for nothing.
    pub(in crate::norm) fn new(input: &'a View<'a>) -> Self {
        let (given, output, scales, flags, hidden) = (None, None, None, None, None);
        let (statistics, moments, inner, mix) = (None, None, None, None);
        ForwardArguments { input, given, output, scales, flags, hidden, statistics, moments, inner, mix }
    }
}

/// The operands of a forward pass, or what is wrong with them.
pub(in crate::norm) fn forward<'a>(
    spec: &Spec,
    parameters: &'a Parameters<'a>,
    arguments: ForwardArguments<'a>,
    stream: &Stream<'_>,
) -> Result<Forward<'a>> {
    let ForwardArguments { input, given, output, scales, flags, hidden, statistics, moments, inner, mix } =
        arguments;
    check_input(input, stream)?;
    let dtype = input.dtype();
    let fusion = spec.fusion();
    check_fusion(fusion, parameters, false)?;
    let before = fused(fusion.prologue.operand(), parameters.before.as_ref(), spec, input, stream)?;
    let after = fused(fusion.epilogue.operand(), parameters.after.as_ref(), spec, input, stream)?;
    let rotary = rotary(spec, parameters, input, stream)?;
    let weight = parameter("weight", parameters.weight.as_ref(), spec, dtype, stream)?;
    let bias = parameter("bias", parameters.bias.as_ref(), spec, dtype, stream)?;
    let branch_bias = parameter("branch_bias", parameters.branch_bias.as_ref(), spec, dtype, stream)?;
    let branch_scale = parameter("branch_scale", parameters.branch_scale.as_ref(), spec, dtype, stream)?;
    check_alpha(parameters.alpha.as_ref(), dtype, stream)?;
    let mask = mask(parameters.mask.as_ref(), spec, input, stream)?;
    let rows = spec.rows();
    // On the stack, as a call on a short row costs little more than its checks.
    let [inner_weight, inner_bias] = inner::named(inner.as_ref().map(|inner| inner.parameters));
    let mut others: [Named<'_, '_>; 18] = [
        ("weight", parameters.weight.as_ref()),
        ("bias", parameters.bias.as_ref()),
        ("alpha", parameters.alpha.as_ref()),
        ("mask", parameters.mask.as_ref()),
        ("given statistics", given),
        // Those that are written, once they are checked.
        ("statistics", None),
        ("moments", None),
        (STATISTICS_NAME, None),
        (MIX_STATISTICS_NAME, None),
        ("hidden", None),
        ("cos", parameters.tables.as_ref().map(|tables| &tables.cos)),
        ("sin", parameters.tables.as_ref().map(|tables| &tables.sin)),
        ("positions", parameters.tables.as_ref().and_then(|tables| tables.positions.as_ref())),
        ("branch_bias", parameters.branch_bias.as_ref()),
        ("branch_scale", parameters.branch_scale.as_ref()),
        inner_weight,
        inner_bias,
        ("alpha", mix.as_ref().map(|mix| mix.alpha)),
    ];
    let none = "none: this method has no statistics";
    if let Some(view) = given {
        check_per_row("statistics", view, [rows, STATISTICS], dtype, stream)?;
    }
    let saved = [
        ("statistics", STATISTICS, statistics.as_ref().map(|view| view.as_view())),
        ("moments", MOMENTS, moments.as_ref().map(|view| view.as_view())),
        (
            STATISTICS_NAME,
            STATISTICS,
            inner.as_ref().and_then(|inner| inner.statistics.as_ref()).map(|view| view.as_view()),
        ),
        (
            MIX_STATISTICS_NAME,
            STATISTICS,
            mix.as_ref().and_then(|mix| mix.statistics.as_ref()).map(|view| view.as_view()),
        ),
    ];
    let of_fusion = [
        (fusion.prologue.operand().unwrap_or("before"), parameters.before.as_ref()),
        (fusion.epilogue.operand().unwrap_or("after"), parameters.after.as_ref()),
    ];
    // What has the input's shape may be written over what has it, element for element.
    let read = [("input", Some(input)), of_fusion[0], of_fusion[1]];
    for (written, (name, per_row, view)) in saved.iter().enumerate() {
        let Some(view) = view else { continue };
        if !spec.has_statistics() {
            return Err(Error::argument(name, none, "a tensor"));
        }
        check_per_row(name, view, [rows, *per_row], dtype, stream)?;
        check_output(name, view, None, &others)?;
        check_apart(name, view, &read)?;
        others[5 + written].1 = Some(view);
    }
    let hidden_view = hidden.as_ref().map(|view| view.as_view());
    if let Some(view) = &hidden_view {
        if fusion.prologue == Prologue::None {
            let expected = "none: this method normalizes its input itself";
            return Err(Error::argument("hidden", expected, "a tensor"));
        }
        check("hidden", view, input.shape(), hidden_dtype(parameters, dtype), stream)?;
        check_replacing("hidden", view, &read[..2], &others)?;
        check_apart("hidden", view, &read[2..])?;
    }
    others[9].1 = hidden_view.as_ref();
    let scales_view = scales.as_ref().map(|view| view.as_view());
    if let Some(output) = &output {
        let view = output.as_view();
        match fusion.quantization {
            None => {
                check("output", &view, input.shape(), dtype, stream)?;
                check_replacing("output", &view, &read, &others)?;
            }
            Some(quantization) => {
                check("codes", &view, input.shape(), quantization.dtype, stream)?;
                check_output("codes", &view, None, &others)?;
                check_apart("codes", &view, &read)?;
                let wanted = quantization.scales(spec.cols()).map(|scales| [rows, scales]);
                check_scales(scales_view.as_ref(), wanted, stream)?;
                if let Some(scales) = &scales_view {
                    check_output("scales", scales, None, &others)?;
                    check_apart("scales", scales, &read)?;
                    check_apart("scales", scales, &[("codes", Some(&view))])?;
                }
                if quantization.outliers.is_some() {
                    let flags = flags.as_ref().map(|view| view.as_view());
                    check_flags(flags.as_ref(), spec.cols(), stream)?;
                    let written = [("codes", Some(&view)), ("scales", scales_view.as_ref())];
                    if let Some(flags) = &flags {
                        check_output("flags", flags, None, &others)?;
                        check_apart("flags", flags, &read)?;
                        check_apart("flags", flags, &written)?;
                    }
                }
            }
        }
    }
    let inner = inner.map(|inner| inner::forward(inner, spec, input, stream)).transpose()?;
    let mix = mix.map(|mix| inner::mix(mix, spec, input, stream)).transpose()?;
    Ok(Forward {
        input: refined("input", input, spec)?,
        weight,
        bias,
        alpha: parameters.alpha.clone(),
        mask,
        given: given.cloned(),
        before,
        after,
        branch_bias,
        branch_scale,
        rotary,
        output: output.map(|view| refined_mut("output", view, spec)).transpose()?,
        scales,
        flags,
        hidden: hidden.map(|view| refined_mut("hidden", view, spec)).transpose()?,
        statistics,
        moments,
        inner,
        mix,
    })
}

/// The scales of codes: required where they are computed, else refused.
fn check_scales(scales: Option<&View<'_>>, wanted: Option<[usize; 2]>, stream: &Stream<'_>) -> Result<()> {
    match (scales, wanted) {
        (Some(scales), Some(wanted)) => check_per_row("scales", scales, wanted, DType::F32, stream),
        (None, Some(wanted)) => {
            Err(Error::argument("scales", format!("a tensor of shape {wanted:?}"), "none"))
        }
        (Some(_), None) => Err(Error::argument("scales", "none: the scale is given", "a tensor")),
        (None, None) => Ok(()),
    }
}

/// The flags of columns that have outliers: a number each, side by side.
pub(in crate::norm) fn check_flags(flags: Option<&View<'_>>, cols: usize, stream: &Stream<'_>) -> Result<()> {
    let Some(flags) = flags else {
        return Err(Error::argument("flags", format!("a tensor of shape [{cols}]"), "none"));
    };
    check("flags", flags, &[cols], DType::I32, stream)?;
    match flags.layout().strides() {
        [1] => Ok(()),
        _ if cols <= 1 => Ok(()),
        strides => Err(Error::argument("flags", "elements side by side", format!("strides {strides:?}"))),
    }
}
