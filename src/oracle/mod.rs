//! The definitions of the methods, in more digits than any kernel has, written to be read.
//!
//! Nothing here is fast or clever: a row is read, its statistics are computed as the paper writes them, and the result
//! is returned beside `mag`, the same expression with every term replaced by its absolute value. `mag` is the scale on
//! which a rounding error is small: where terms cancel, the result may be tiny while its error is that of the terms.
//!
//! Start with `layer_norm`, `rms_norm` and `p_norm`, which normalize one row, whatever axes it is made of; `norm` scales
//! and shifts rows and writes the gradients. `tanh` and `inverse_square_root` are functions without statistics, which
//! `pointwise` scales and shifts. `fusion` is what may surround a norm, and `inner` a norm before a
//! residual. `index` says which elements make a row and which weight each has. Every definition is
//! generic over [`Real`]: float64 judges tensors of up to 32 bits, [`Dd`] judges float64. The gradients are checked
//! against finite differences of the forward definitions.

mod dd;
mod frozen;
mod fusion;
mod index;
mod inner;
mod inverse_square_root;
mod layer_norm;
mod norm;
mod p_norm;
mod pointwise;
mod real;
mod rms_norm;
pub mod round;
mod row;
mod running;
mod tanh;
#[cfg(test)]
mod tests;

pub use dd::Dd;
pub use index::{Index, parameters};
pub use real::{Real, exponent, power_of_two};
pub use running::update_running;

use crate::spec::{Epilogue, EpsPosition, Fusion, Norm, Spec, Statistic};
use crate::tensor::DType;
use crate::{Error, Result};
use fusion::{Kept, Rotation, Sized};
use ndarray::{Array2, ArrayView1, ArrayView2};

/// The operands of a spec, as its rows and columns; [`Index`] says where they lie in tensors.
#[derive(Clone)]
pub struct Problem<'a, R> {
    /// The input tensor's dtype: what a spec that rounds the normalized value rounds to.
    pub dtype: DType,
    /// `[rows, cols]`
    pub input: ArrayView2<'a, R>,
    /// The elements of the weight, in row-major order.
    pub weight: Option<ArrayView1<'a, R>>,
    /// The elements of the bias, in row-major order.
    pub bias: Option<ArrayView1<'a, R>>,
    /// The scalar of an elementwise function.
    pub alpha: Option<R>,
    /// `[rows, cols]`: which elements take part. The others are not in the statistics; their output and gradients are
    /// zero.
    pub mask: Option<ArrayView2<'a, bool>>,
    /// Mean and variance of each row, for a spec whose statistics are frozen.
    pub given: Option<&'a [(R, R)]>,
    /// `[rows, cols]`: the other operand of the spec's prologue. A residual may be absent in a backward pass; the input is
    /// then the hidden value.
    pub before: Option<ArrayView2<'a, R>>,
    /// `[rows, cols]`: the other operand of the spec's epilogue.
    pub after: Option<ArrayView2<'a, R>>,
    /// `[rows, dims / 2]` each: the cosines and sines of a rotary epilogue, those of every row.
    pub angles: Option<[ArrayView2<'a, R>; 2]>,
    /// The elements of a branch's bias and of its scale, in row-major order.
    pub branch: [Option<ArrayView1<'a, R>>; 2],
    /// `[rows, cols]`: the gradient that the hidden value has beside the norm's.
    pub grad_hidden: Option<ArrayView2<'a, R>>,
    /// Weight and bias of the norm of a branch, as `weight` and `bias`.
    pub of_inner: [Option<ArrayView1<'a, R>>; 2],
    /// Alpha of a mix, as `weight`.
    pub mix: Option<ArrayView1<'a, R>>,
    /// `[rows, cols]`: the input, and the gradient of the output, with every term replaced by its absolute value, where they are
    /// results themselves.
    pub mags: [Option<ArrayView2<'a, f64>>; 2],
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

/// What the gradients should be, whether or not the parameters are bound. Those of weight and bias have one row, an
/// element for each of the parameter's.
#[derive(Debug, Clone)]
pub struct ExpectedGradients<R> {
    /// `[rows, cols]`
    pub input: Expected<R>,
    /// `[1, parameters]`
    pub weight: Expected<R>,
    /// `[1, parameters]`
    pub bias: Expected<R>,
    /// `[1, 1]`; zero for methods that have no alpha.
    pub alpha: Expected<R>,
    /// `[rows, cols]`: of the prologue's other operand.
    pub before: Expected<R>,
    /// `[rows, cols]`: of the epilogue's other operand.
    pub after: Expected<R>,
    /// `[1, parameters]` each: of a branch's bias and of its scale. Their `mag` has for the gradient of an element the largest
    /// `mag` of its row's, which is the scale that a norm's gradient is exact on.
    pub branch: [Expected<R>; 2],
    /// `[1, parameters]` each: of weight and bias of the norm of a branch.
    pub of_inner: [Expected<R>; 2],
    /// `[1, parameters]`: of alpha of a mix.
    pub mix: Expected<R>,
}

/// The output of a forward pass.
pub fn forward<R: Real>(spec: &Spec, problem: &Problem<'_, R>) -> Result<Expected<R>> {
    let alpha = problem.check(spec)?;
    let index = Index::of_parameters(spec);
    Ok(match spec {
        Spec::Norm(spec) => match inner::forward(spec, &index, problem) {
            Some((outer, v)) => norm::forward(&outer, &index, &inner::around(problem, &v)),
            None => norm::forward(spec, &index, problem),
        },
        Spec::Pointwise(spec) => pointwise::forward(spec, alpha, &index, problem),
    })
}

/// What a norm normalizes: the input, or what the prologue makes of it.
pub fn hidden<R: Real>(spec: &Spec, problem: &Problem<'_, R>) -> Result<Expected<R>> {
    problem.check(spec)?;
    let mut hidden = Expected::zeros(spec.rows(), spec.cols());
    let (fusion, kept, index) = (spec.fusion(), Kept::of(spec), Index::of_parameters(spec));
    let of_inner = match spec {
        Spec::Norm(norm) => inner::forward(norm, &index, problem),
        Spec::Pointwise(_) => None,
    };
    let around = of_inner.as_ref().map(|(_, v)| inner::around(problem, v));
    let around = around.as_ref();
    for at in ndarray::indices(problem.input.dim()) {
        let h = match around {
            Some(around) => around.hidden(&fusion, &kept, &index, at),
            None => problem.hidden(&fusion, &kept, &index, at),
        };
        hidden.set(at, h.value, h.mag);
    }
    Ok(hidden)
}

/// The gradients of a backward pass, given the gradient of the output.
pub fn backward<R: Real>(
    spec: &Spec,
    problem: &Problem<'_, R>,
    grad_output: ArrayView2<'_, R>,
) -> Result<ExpectedGradients<R>> {
    let alpha = problem.check(spec)?;
    let (rows, cols) = problem.input.dim();
    if grad_output.dim() != (rows, cols) {
        let (expected, found) = (problem.input.shape(), grad_output.shape());
        return Err(Error::argument("grad_output", format!("shape {expected:?}"), format!("{found:?}")));
    }
    let (index, parameters) = (Index::of_parameters(spec), parameters(spec));
    let zeros = ExpectedGradients {
        input: Expected::zeros(rows, cols),
        weight: Expected::zeros(1, parameters),
        bias: Expected::zeros(1, parameters),
        alpha: Expected::zeros(1, 1),
        before: Expected::zeros(rows, cols),
        after: Expected::zeros(rows, cols),
        branch: [Expected::zeros(1, parameters), Expected::zeros(1, parameters)],
        of_inner: [(); 2].map(|()| Expected::zeros(1, parameters)),
        mix: Expected::zeros(1, parameters),
    };
    Ok(match spec {
        Spec::Norm(spec) => match inner::forward(spec, &index, problem) {
            Some((outer, v)) => inner::backward(spec, (&outer, &v), &index, problem, grad_output, zeros),
            None => norm::backward(spec, &index, problem, grad_output, zeros),
        },
        Spec::Pointwise(spec) => pointwise::backward(spec, alpha, &index, problem, grad_output, zeros),
    })
}

impl<'a, R: Real> Problem<'a, R> {
    /// Of an input alone.
    pub fn new(dtype: DType, input: ArrayView2<'a, R>) -> Self {
        Problem {
            dtype,
            input,
            weight: None,
            bias: None,
            alpha: None,
            mask: None,
            given: None,
            before: None,
            after: None,
            angles: None,
            branch: [None, None],
            grad_hidden: None,
            of_inner: [None; 2],
            mix: None,
            mags: [None; 2],
        }
    }

    /// Refuses operands that do not fit each other or the spec; gives alpha, or one where the spec has none.
    fn check(&self, spec: &Spec) -> Result<R> {
        let dim = (spec.rows(), spec.cols());
        if self.input.dim() != dim || dim.1 == 0 {
            let expected = format!("{dim:?} rows and columns, of the latter at least one");
            return Err(Error::argument("input", expected, format!("{:?}", self.input.dim())));
        }
        let parameters = parameters(spec);
        let [branch_bias, branch_scale] = &self.branch;
        let [inner_weight, inner_bias] = &self.of_inner;
        let all = [
            ("weight", &self.weight),
            ("bias", &self.bias),
            ("branch_bias", branch_bias),
            ("branch_scale", branch_scale),
            ("inner weight", inner_weight),
            ("inner bias", inner_bias),
            ("mix", &self.mix),
        ];
        for (name, parameter) in all {
            if let Some(found) = parameter.as_ref().map(|p| p.len()).filter(|&len| len != parameters) {
                return Err(Error::argument(name, format!("{parameters} elements"), found));
            }
        }
        let others = [("before", &self.before), ("after", &self.after), ("grad_hidden", &self.grad_hidden)];
        for (name, other) in others {
            if let Some(found) = other.as_ref().map(|other| other.dim()).filter(|&found| found != dim) {
                return Err(Error::argument(name, format!("{dim:?}"), format!("{found:?}")));
            }
        }
        if let Some(found) = self.mask.as_ref().map(|mask| mask.dim()).filter(|&found| found != dim) {
            return Err(Error::argument("mask", format!("{dim:?}"), format!("{found:?}")));
        }
        if let Epilogue::Rotary { dims, .. } = spec.fusion().epilogue {
            let expected = (dim.0, dims / 2);
            let fits = |angles: &[ArrayView2<'_, R>; 2]| angles.iter().all(|table| table.dim() == expected);
            if dims % 2 == 1 || dims > dim.1 || !self.angles.as_ref().is_some_and(fits) {
                let found = format!("{:?}", self.angles.as_ref().map(|angles| angles[0].dim()));
                return Err(Error::argument("angles", format!("{expected:?} of {dims} columns"), found));
            }
        }
        match spec {
            Spec::Norm(norm) => self.check_norm(norm, dim).map(|()| R::new(1.0)),
            Spec::Pointwise(_) => self.alpha.ok_or_else(|| Error::argument("alpha", "one number", "none")),
        }
    }

    fn check_norm(&self, norm: &Norm, (rows, cols): (usize, usize)) -> Result<()> {
        if !(1..=cols).contains(&norm.prefix) {
            return Err(Error::argument("prefix", format!("within 1..={cols}"), norm.prefix));
        }
        let is_norm = matches!(norm.statistic, Statistic::Norm(_));
        if is_norm != (norm.eps_position == EpsPosition::Floor) {
            let expected = "Floor for p-norms, Inside or Outside for others";
            return Err(Error::argument("eps_position", expected, format!("{:?}", norm.eps_position)));
        }
        if norm.frozen != self.given.is_some() || self.given.is_some_and(|given| given.len() != rows) {
            let expected = "a mean and a variance for each row if the spec is frozen, else none";
            return Err(Error::argument("given", expected, format!("{:?}", self.given.map(<[_]>::len))));
        }
        Ok(())
    }

    /// Whether the mask lets an element take part.
    fn takes_part(&self, at: (usize, usize)) -> bool {
        self.mask.is_none_or(|mask| mask[at])
    }

    fn input(&self, at: (usize, usize)) -> Sized<R> {
        Sized {
            mag: self.mags[0].map_or(self.input[at].abs().to_f64(), |mag| mag[at]),
            value: self.input[at],
        }
    }

    fn grad_output(&self, grad_output: &ArrayView2<'_, R>, at: (usize, usize)) -> Sized<R> {
        let value = grad_output[at];
        Sized { mag: self.mags[1].map_or(value.abs().to_f64(), |mag| mag[at]), value }
    }

    /// What is normalized.
    fn hidden(&self, fusion: &Fusion, kept: &Kept, index: &Index, at: (usize, usize)) -> Sized<R> {
        let other = self.before.map(|before| before[at]);
        fusion::hidden(fusion, kept, at, self.input(at), self.branch(index, at), other)
    }

    /// An element's bias and scale, of a residual's branch.
    fn branch(&self, index: &Index, at: (usize, usize)) -> [Option<R>; 2] {
        self.branch.map(|parameter| parameter.map(|parameter| parameter[index.at(at)]))
    }

    /// The rotation that the epilogue is, if it is one, by a row's angles.
    fn rotation(&self, epilogue: Epilogue, row: usize) -> Option<Rotation<R>> {
        let (Epilogue::Rotary { style, .. }, Some([cos, sin])) = (epilogue, &self.angles) else {
            return None;
        };
        Some(Rotation { style, cos: cos.row(row).to_vec(), sin: sin.row(row).to_vec() })
    }

    /// What the normalized value is multiplied by.
    fn weight(&self, parameter: usize, offset: f64) -> R {
        self.weight.map_or(R::new(1.0), |weight| weight[parameter] + R::new(offset))
    }

    /// What is then added to it.
    fn bias(&self, parameter: usize) -> R {
        self.bias.map_or(R::new(0.0), |bias| bias[parameter])
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
    fn add(&mut self, parameter: usize, term: R, mag: f64) {
        self.value[(0, parameter)] = self.value[(0, parameter)] + term;
        self.mag[(0, parameter)] += mag;
    }
}
