//! The measure of the promise on numbers: how large an error is, and how large it may be.

use super::bound::Bound;
use super::case::Case;
use super::execute::Executed;
use super::operands;
use crate::Result;
use crate::oracle::{self, Dd, Index, Problem, Real};
use crate::tensor::DType;
use ndarray::{Array1, Array2};

/// The verdict on a case.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// One for each output that the case has.
    pub quantities: Vec<Quantity>,
}

/// The verdict on one output.
#[derive(Debug, Clone)]
pub struct Quantity {
    /// `output`, `hidden`, `grad_input`, or another gradient.
    pub name: &'static str,
    /// The largest error, as a share of what is allowed. At most 1 if the promise is kept; infinity where a NaN or an
    /// infinity is missing or misplaced.
    pub worst: f64,
    /// The largest error in ulp of the row's largest `mag`, in the dtype of the arithmetic, or for parameter gradients
    /// in half ulp of the sum of absolute terms; in ulp of the result where the output's dtype makes those larger.
    pub ulp: f64,
    /// The share of elements that are the number nearest to the exact result: 16-bit outputs of well-conditioned
    /// cases only.
    pub rounded: Option<f64>,
    /// Row and column of the worst element in the spec's rows, or 0 and the parameter; `None` if all are exact.
    pub at: Option<(usize, usize)>,
    /// Nothing around the output was written, nor anything that is only read.
    pub guards_intact: bool,
}

/// The least share of correctly rounded elements.
const ROUNDED: f64 = 0.999;

impl Quantity {
    /// Whether the output keeps the promise.
    pub fn passed(&self) -> bool {
        self.worst <= 1.0 && self.guards_intact && self.rounded.is_none_or(|share| share >= ROUNDED)
    }
}

impl Outcome {
    /// The largest error of any output, as a share of what is allowed.
    pub fn worst(&self) -> f64 {
        self.quantities.iter().map(|q| q.worst).fold(0.0, f64::max)
    }

    /// Whether every output keeps the promise.
    pub fn passed(&self) -> bool {
        !self.quantities.is_empty() && self.quantities.iter().all(Quantity::passed)
    }
}

/// Compares what `case` computed with its definition. `flushes` says that the device may take subnormal numbers for
/// zero.
pub(super) fn judge(case: &Case, executed: &Executed, flushes: bool) -> Result<Outcome> {
    match case.dtype {
        DType::F64 => judge_in::<Dd>(case, executed, flushes),
        _ => judge_in::<f64>(case, executed, flushes),
    }
}

fn judge_in<R: Real>(case: &Case, executed: &Executed, flushes: bool) -> Result<Outcome> {
    let spec = case.lower()?;
    let elements = Index::of_elements(&spec);
    let matrix = |values: &[f64]| Array2::from_shape_fn(elements.dim(), |at| R::new(values[elements.at(at)]));
    let numbers = |values: &Option<Vec<f64>>| -> Option<Array1<R>> {
        values.as_ref().map(|values| values.iter().map(|&x| R::new(x)).collect())
    };
    let (input, grad_output) = (matrix(&executed.input), matrix(&executed.grad_output));
    let (weight, bias) = (numbers(&executed.weight), numbers(&executed.bias));
    let mask = executed.mask.as_ref().zip(case.mask.as_ref()).map(|(values, mask)| {
        let shape = mask.shape.as_ref().unwrap_or(&case.shape);
        let whole = operands::broadcast(values, shape, &case.shape);
        Array2::from_shape_fn(elements.dim(), |at| whole[elements.at(at)] != 0.0)
    });
    let [before, after, grad_hidden] = [&executed.before, &executed.after, &executed.grad_hidden]
        .map(|values| values.as_deref().map(matrix));
    let branch = executed.branch.each_ref().map(numbers);
    let angles = executed.angles.as_ref().zip(case.pairs()).map(|(tables, pairs)| {
        let rows = elements.dim().0;
        tables.each_ref().map(|table| {
            Array2::from_shape_fn((rows, pairs), |(row, pair)| {
                let row = executed.positions.as_ref().map_or(row, |positions| positions[row] as usize);
                R::new(table[row * pairs + pair])
            })
        })
    });
    let given: Option<Vec<(R, R)>> = executed.running.as_ref().map(|(means, vars)| {
        means.iter().zip(vars).map(|(&mean, &var)| (R::new(mean), R::new(var))).collect()
    });
    let [inner_weight, inner_bias] = executed.of_inner.each_ref().map(numbers);
    let mix = numbers(&executed.mix);
    let problem = Problem {
        mix: mix.as_ref().map(|alpha| alpha.view()),
        weight: weight.as_ref().map(|w| w.view()),
        bias: bias.as_ref().map(|b| b.view()),
        alpha: numbers(&executed.alpha).map(|alpha| alpha[0]),
        mask: mask.as_ref().map(|mask| mask.view()),
        given: given.as_deref(),
        before: before.as_ref().map(|other| other.view()),
        after: after.as_ref().map(|other| other.view()),
        branch: branch.each_ref().map(|own| own.as_ref().map(|own| own.view())),
        angles: angles.as_ref().map(|angles| angles.each_ref().map(|table| table.view())),
        grad_hidden: grad_hidden.as_ref().map(|gradient| gradient.view()),
        of_inner: [
            inner_weight.as_ref().map(|weight| weight.view()),
            inner_bias.as_ref().map(|bias| bias.view()),
        ],
        ..Problem::new(case.dtype, input.view())
    };
    let (output, hidden) = (oracle::forward(&spec, &problem)?, oracle::hidden(&spec, &problem)?);
    let grads = oracle::backward(&spec, &problem, grad_output.view())?;

    let bound = Bound { case, spec: &spec, flushes };
    let terms = spec.rows() * spec.cols();
    let each = terms / oracle::parameters(&spec).max(1);
    let quantities = executed.outputs.iter().map(|actual| match actual.name {
        "output" => bound.elements(&output, actual, &elements),
        "hidden" => bound.elements(&hidden, actual, &elements),
        "grad_input" => bound.elements(&grads.input, actual, &elements),
        "grad_before" => bound.elements(&grads.before, actual, &elements),
        "grad_after" => bound.elements(&grads.after, actual, &elements),
        "grad_weight" => bound.sums(&grads.weight, actual, each),
        "grad_bias" => bound.sums(&grads.bias, actual, each),
        "grad_branch_bias" => bound.sums_of_gradients(&grads.branch[0], actual, each),
        "grad_branch_scale" => bound.sums_of_gradients(&grads.branch[1], actual, each),
        "grad_inner_weight" => bound.sums(&grads.of_inner[0], actual, each),
        "grad_inner_bias" => bound.sums(&grads.of_inner[1], actual, each),
        "grad_mix_alpha" => bound.sums_of_gradients(&grads.mix, actual, each),
        _ => bound.sums(&grads.alpha, actual, terms),
    });
    Ok(Outcome { quantities: quantities.collect() })
}
