//! Two norms of one call: both are checked before either runs, and they run together.

use super::arguments::{BackwardArguments, ForwardArguments};
use super::{Method, steps};
use crate::backend::{self, Backward, Forward};
use crate::tensor::{Overlap, View, ViewMut, overlap};
use crate::{Error, Result, Stream, Workspace};

/// One of two tensors, for queries and for keys.
pub struct Pair<T> {
    /// Of the queries.
    pub query: T,
    /// Of the keys.
    pub key: T,
}

/// What an argument of one of the two norms is called in a call of both.
pub(super) type Names = fn(&'static str) -> &'static str;

/// One of the two, with what it is asked for.
pub(super) struct One<'a, A> {
    pub(super) method: &'a dyn Method,
    pub(super) names: Names,
    pub(super) arguments: A,
}

/// An operand, by the name that it has in a call of its norm alone.
type Operand<V> = (&'static str, Option<V>);

/// Two forward passes.
pub(super) fn forward(both: [One<'_, ForwardArguments<'_>>; 2], stream: &Stream<'_>) -> Result<()> {
    let names = both.each_ref().map(|one| one.names);
    let [first, second] = both.map(|One { method, names, arguments }| {
        steps::prepare_forward(method, arguments, stream).map_err(|error| renamed(error, names))
    });
    let (first, second) = (first?, second?);
    check_apart([&written(&first.1), &written(&second.1)], [&read(&first.1), &read(&second.1)], names)?;
    backend::forward_together([first, second], stream)
}

/// Two backward passes.
pub(super) fn backward(
    both: [One<'_, BackwardArguments<'_>>; 2],
    workspace: &mut Workspace,
    stream: &Stream<'_>,
) -> Result<()> {
    let names = both.each_ref().map(|one| one.names);
    let [first, second] = both.map(|One { method, names, arguments }| {
        steps::prepare_backward(method, arguments, stream).map_err(|error| renamed(error, names))
    });
    let (first, second) = (first?, second?);
    check_apart(
        [&written_backward(&first.1), &written_backward(&second.1)],
        [&read_backward(&first.1), &read_backward(&second.1)],
        names,
    )?;
    backend::backward_together([first, second], workspace, stream)
}

/// An error of one norm's in the names of both.
pub(super) fn renamed(error: Error, names: Names) -> Error {
    match error {
        Error::Argument { name, expected, found } => Error::Argument { name: names(name), expected, found },
        Error::UnsupportedDType { name, dtype, backend } => {
            Error::UnsupportedDType { name: names(name), dtype, backend }
        }
        other => other,
    }
}

/// What one norm writes is apart from what the other reads and writes: which of them comes first is nobody's business.
fn check_apart(
    written: [&[Operand<View<'_>>]; 2],
    read: [&[Operand<&View<'_>>]; 2],
    names: [Names; 2],
) -> Result<()> {
    for (one, other) in [(0, 1), (1, 0)] {
        for (name, output) in written[one].iter().filter_map(|(name, view)| Some((name, view.as_ref()?))) {
            let of_other = written[other].iter().map(|(name, view)| (name, view.as_ref()));
            let of_other = read[other].iter().map(|(name, view)| (name, *view)).chain(of_other);
            for (beside, view) in of_other.filter_map(|(name, view)| Some((name, view?))) {
                if overlap(output, view) != Overlap::None {
                    let expected = format!("memory apart from {}", names[other](beside));
                    return Err(Error::argument(names[one](name), expected, "an overlap"));
                }
            }
        }
    }
    Ok(())
}

fn written<'v>(operands: &'v Forward<'_>) -> [Operand<View<'v>>; 7] {
    let Forward { output, scales, flags, hidden, statistics, moments, inner, .. } = operands;
    let inner = inner.as_ref().and_then(|inner| inner.statistics.as_ref());
    [
        ("output", output.as_ref()),
        ("scales", scales.as_ref()),
        ("flags", flags.as_ref()),
        ("hidden", hidden.as_ref()),
        ("statistics", statistics.as_ref()),
        ("moments", moments.as_ref()),
        ("inner statistics", inner),
    ]
    .map(as_views)
}

fn read<'v>(operands: &'v Forward<'v>) -> [Operand<&'v View<'v>>; 15] {
    let Forward { input, weight, bias, alpha, mask, given, before, after, rotary, inner, .. } = operands;
    let (rotary, inner) = (rotary.as_ref(), inner.as_ref());
    [
        ("input", Some(input)),
        ("weight", weight.as_ref()),
        ("bias", bias.as_ref()),
        ("alpha", alpha.as_ref()),
        ("mask", mask.as_ref()),
        ("given statistics", given.as_ref()),
        ("before", before.as_ref()),
        ("after", after.as_ref()),
        ("branch_bias", operands.branch_bias.as_ref()),
        ("branch_scale", operands.branch_scale.as_ref()),
        ("cos", rotary.map(|rotary| &rotary.cos)),
        ("sin", rotary.map(|rotary| &rotary.sin)),
        ("positions", rotary.and_then(|rotary| rotary.positions.as_ref())),
        ("inner weight", inner.and_then(|inner| inner.weight.as_ref())),
        ("inner bias", inner.and_then(|inner| inner.bias.as_ref())),
    ]
}

fn written_backward<'v>(operands: &'v Backward<'_>) -> [Operand<View<'v>>; 11] {
    let Backward { grad_input, grad_weight, grad_bias, grad_alpha, grad_before, grad_after, .. } = operands;
    let inner = operands.inner.as_ref();
    [
        ("grad_input", grad_input.as_ref()),
        ("grad_weight", grad_weight.as_ref()),
        ("grad_bias", grad_bias.as_ref()),
        ("grad_alpha", grad_alpha.as_ref()),
        ("grad_branch_bias", operands.grad_branch_bias.as_ref()),
        ("grad_branch_scale", operands.grad_branch_scale.as_ref()),
        ("grad_before", grad_before.as_ref()),
        ("grad_after", grad_after.as_ref()),
        ("sums", operands.sums.as_ref()),
        ("inner grad_weight", inner.and_then(|inner| inner.grad_weight.as_ref())),
        ("inner grad_bias", inner.and_then(|inner| inner.grad_bias.as_ref())),
    ]
    .map(as_views)
}

fn read_backward<'v>(operands: &'v Backward<'v>) -> [Operand<&'v View<'v>>; 20] {
    let Backward { grad_output, input, weight, bias, alpha, mask, before, after, .. } = operands;
    let (rotary, inner) = (operands.rotary.as_ref(), operands.inner.as_ref());
    [
        ("grad_output", Some(grad_output)),
        ("input", Some(input)),
        ("weight", weight.as_ref()),
        ("bias", bias.as_ref()),
        ("alpha", alpha.as_ref()),
        ("mask", mask.as_ref()),
        ("before", before.as_ref()),
        ("after", after.as_ref()),
        ("branch_bias", operands.branch_bias.as_ref()),
        ("branch_scale", operands.branch_scale.as_ref()),
        ("cos", rotary.map(|rotary| &rotary.cos)),
        ("sin", rotary.map(|rotary| &rotary.sin)),
        ("positions", rotary.and_then(|rotary| rotary.positions.as_ref())),
        ("grad_hidden", operands.grad_hidden.as_ref()),
        ("statistics", operands.statistics.as_ref()),
        ("sums", operands.given.as_ref()),
        ("inner weight", inner.and_then(|inner| inner.weight.as_ref())),
        ("inner bias", inner.and_then(|inner| inner.bias.as_ref())),
        ("inner statistics", inner.map(|inner| &inner.statistics)),
        ("hidden", inner.and_then(|inner| inner.hidden.as_ref())),
    ]
}

fn as_views<'v>((name, view): Operand<&'v ViewMut<'_>>) -> Operand<View<'v>> {
    (name, view.map(|view| view.as_view()))
}
