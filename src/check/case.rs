//! One call of a method, fully determined.

use super::data::Fill;
use super::placement::Placement;
use crate::norm::{Cast, DyT, LayerNorm, Method, RmsNorm};
use crate::spec::EpsPosition;
use crate::tensor::{DType, View};
use crate::{Error, Result};

/// The methods that can be checked, by the names that [`Method::name`] gives.
pub const METHODS: &[&str] = &["layer_norm", "rms_norm", "dyt"];

/// A forward and a backward pass: the method and its options, the operands' shapes, dtypes and values, and where they
/// lie in memory. Options that the method does not have are ignored.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// What is special about it.
    pub name: String,
    /// One of [`METHODS`].
    pub method: &'static str,
    /// Dtype of input, output and their gradients.
    pub dtype: DType,
    /// Dtype of the parameters and their gradients.
    pub weight_dtype: DType,
    /// Axes that count rows.
    pub outer: Vec<usize>,
    /// Axes that make a row.
    pub inner: Vec<usize>,
    /// Values of the input.
    pub input: Fill,
    /// Values of the gradient of the output.
    pub grad_output: Fill,
    /// Values of the weight, if there is one.
    pub weight: Option<Fill>,
    /// Values of the bias, if there is one.
    pub bias: Option<Fill>,
    /// Alpha of DyT.
    pub alpha: f64,
    /// Epsilon of the norms.
    pub eps: f64,
    /// Where it enters RMSNorm.
    pub eps_position: EpsPosition,
    /// The share of the row that RMSNorm's statistic sees.
    pub partial: f64,
    /// Added to RMSNorm's weight.
    pub weight_offset: f64,
    /// Cast mode of RMSNorm.
    pub cast: Cast,
    /// How the operands lie in memory.
    pub placement: Placement,
    /// All operands share one buffer, at odd offsets.
    pub one_buffer: bool,
    /// What the values are drawn from.
    pub seed: u64,
    /// The rows are `first_row..` of an endless tensor, so that one row can be asked for in different company.
    pub first_row: usize,
    /// Judge how many results are correctly rounded: the data are as in a network.
    pub well_conditioned: bool,
}

impl Case {
    /// Unit-normal data, weight and bias around 1 and 0, eps 1e-5, row-major.
    pub fn new(method: &'static str, dtype: DType, outer: &[usize], inner: &[usize]) -> Self {
        Case {
            name: String::new(),
            method,
            dtype,
            weight_dtype: dtype,
            outer: outer.to_vec(),
            inner: inner.to_vec(),
            input: Fill::UNIT,
            grad_output: Fill::UNIT,
            weight: Some(Fill::Normal { mean: 1.0, deviation: 0.3 }),
            bias: Some(Fill::Normal { mean: 0.0, deviation: 0.5 }),
            alpha: 0.5,
            eps: 1e-5,
            eps_position: EpsPosition::Inside,
            partial: 1.0,
            weight_offset: 0.0,
            cast: Cast::Fp32,
            placement: Placement::Contiguous,
            one_buffer: false,
            seed: 1,
            first_row: 0,
            well_conditioned: false,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.outer.iter().product()
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.inner.iter().product()
    }

    /// Shape of the input.
    pub fn shape(&self) -> Vec<usize> {
        [&self.outer[..], &self.inner[..]].concat()
    }

    /// The method with these parameters bound.
    pub fn method<'a>(&self, parameters: Parameters<'a>) -> Result<Box<dyn Method + 'a>> {
        // One line a parameter: the builders are types of their own, with calls of the same names.
        macro_rules! bind {
            ($method:expr, $($call:ident($view:expr)),*) => {{
                let mut method = $method;
                $(if let Some(view) = $view { method = method.$call(view); })*
                Box::new(method)
            }};
        }
        let inner = self.inner.clone();
        Ok(match self.method {
            "layer_norm" => bind!(
                LayerNorm::new(inner).eps(self.eps),
                weight_view(parameters.weight),
                bias_view(parameters.bias)
            ),
            "rms_norm" => bind!(
                RmsNorm::new(inner)
                    .eps(self.eps)
                    .eps_position(self.eps_position)
                    .partial(self.partial)
                    .weight_offset(self.weight_offset)
                    .cast(self.cast),
                weight_view(parameters.weight),
                bias_view(parameters.bias)
            ),
            "dyt" => bind!(
                DyT::new(inner),
                alpha_view(parameters.alpha),
                weight_view(parameters.weight),
                bias_view(parameters.bias)
            ),
            other => {
                return Err(Error::argument("method", format!("one of {METHODS:?}"), format!("{other:?}")));
            }
        })
    }
}

/// Parameters to bind to a method.
#[derive(Clone, Default)]
pub struct Parameters<'a> {
    /// The weight.
    pub weight: Option<View<'a>>,
    /// The bias.
    pub bias: Option<View<'a>>,
    /// Alpha.
    pub alpha: Option<View<'a>>,
}
