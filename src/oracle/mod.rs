//! The definitions of the methods, in more digits than any kernel has, written to be read.
//!
//! Nothing here is fast or clever: a row is read, its statistics are computed as the paper writes them, and the result
//! is returned beside `mag`, the same expression with every term replaced by its absolute value. `mag` is the scale on
//! which a rounding error is small: where terms cancel, the result may be tiny while its error is that of the terms.
//!
//! Start with `layer_norm` and `rms_norm`, which normalize one row; `row` scales and shifts rows and writes the
//! gradients; `dyt` has no statistics. Every definition is generic over [`Real`]: float64 judges tensors of up to 32
//! bits, [`Dd`] judges float64. The gradients are checked against finite differences of the forward definitions.

mod dd;
mod dyt;
mod layer_norm;
mod real;
mod rms_norm;
pub mod round;
mod row;
#[cfg(test)]
mod tests;

pub use dd::Dd;
pub use real::{Real, exponent, power_of_two};

use crate::spec::Spec;
use crate::tensor::DType;
use crate::{Error, Result};
use ndarray::{Array2, ArrayView1, ArrayView2};

/// The operands of a method, as rows and columns.
#[derive(Clone)]
pub struct Problem<'a, R> {
    /// The input tensor's dtype: what a spec that rounds the normalized value rounds to.
    pub dtype: DType,
    /// `[rows, cols]`
    pub input: ArrayView2<'a, R>,
    /// `[cols]`
    pub weight: Option<ArrayView1<'a, R>>,
    /// `[cols]`
    pub bias: Option<ArrayView1<'a, R>>,
    /// The scalar of an elementwise function.
    pub alpha: Option<R>,
}

/// What an output should be. The gradient of a parameter is one row.
#[derive(Debug, Clone)]
pub struct Expected<R> {
    /// The result.
    pub value: Array2<R>,
    /// The result with every term replaced by its absolute value.
    pub mag: Array2<f64>,
    /// How far the result may lie off because a rounding inside the definition is a coin toss: the normalized value
    /// was to be rounded to 16 bits and is so near the middle of two of them that float32 cannot tell.
    pub slack: Array2<f64>,
}

/// What the gradients should be, whether or not the parameters are bound.
#[derive(Debug, Clone)]
pub struct ExpectedGradients<R> {
    /// `[rows, cols]`
    pub input: Expected<R>,
    /// `[1, cols]`
    pub weight: Expected<R>,
    /// `[1, cols]`
    pub bias: Expected<R>,
    /// `[1, 1]`; zero for methods that have no alpha.
    pub alpha: Expected<R>,
}

/// The output of a forward pass.
pub fn forward<R: Real>(spec: &Spec, problem: &Problem<'_, R>) -> Result<Expected<R>> {
    let alpha = problem.check(spec)?;
    Ok(match spec {
        Spec::Norm(spec) => row::forward(spec, problem),
        Spec::Pointwise(_) => dyt::forward(alpha, problem),
    })
}

/// The gradients of a backward pass, given the gradient of the output.
pub fn backward<R: Real>(
    spec: &Spec,
    problem: &Problem<'_, R>,
    grad_output: ArrayView2<'_, R>,
) -> Result<ExpectedGradients<R>> {
    let alpha = problem.check(spec)?;
    if grad_output.dim() != problem.input.dim() {
        let (expected, found) = (problem.input.shape(), grad_output.shape());
        return Err(Error::argument(
            "grad_output",
            format!("shape {expected:?}"),
            format!("shape {found:?}"),
        ));
    }
    Ok(match spec {
        Spec::Norm(spec) => row::backward(spec, problem, grad_output),
        Spec::Pointwise(_) => dyt::backward(alpha, problem, grad_output),
    })
}

impl<R: Real> Problem<'_, R> {
    /// Refuses operands that do not fit each other or the spec; gives alpha, or one where the spec has none.
    fn check(&self, spec: &Spec) -> Result<R> {
        let cols = self.input.ncols();
        if cols == 0 {
            return Err(Error::argument("input", "at least one column", "none"));
        }
        for (name, parameter) in [("weight", &self.weight), ("bias", &self.bias)] {
            if let Some(found) = parameter.as_ref().map(|p| p.len()).filter(|&len| len != cols) {
                return Err(Error::argument(name, format!("{cols} elements"), found));
            }
        }
        match spec {
            Spec::Norm(row) if !(1..=cols).contains(&row.prefix) => {
                Err(Error::argument("prefix", format!("within 1..={cols}"), row.prefix))
            }
            Spec::Norm(_) => Ok(R::new(1.0)),
            Spec::Pointwise(_) => self.alpha.ok_or_else(|| Error::argument("alpha", "one number", "none")),
        }
    }

    /// What column `col` of the normalized row is multiplied by.
    fn weight(&self, col: usize, offset: f64) -> R {
        self.weight.map_or(R::new(1.0), |weight| weight[col] + R::new(offset))
    }

    /// What is then added to it.
    fn bias(&self, col: usize) -> R {
        self.bias.map_or(R::new(0.0), |bias| bias[col])
    }
}

impl<R: Real> Expected<R> {
    fn zeros(rows: usize, cols: usize) -> Self {
        Expected {
            value: Array2::from_elem((rows, cols), R::new(0.0)),
            mag: Array2::zeros((rows, cols)),
            slack: Array2::zeros((rows, cols)),
        }
    }

    fn set(&mut self, at: (usize, usize), value: R, mag: f64) {
        self.value[at] = value;
        self.mag[at] = mag;
    }

    /// Adds a term to a parameter's gradient.
    fn add(&mut self, col: usize, term: R, mag: f64) {
        self.value[(0, col)] = self.value[(0, col)] + term;
        self.mag[(0, col)] += mag;
    }
}
