//! One call of a method, fully determined.

use super::data::Fill;
use super::mask::Mask;
use super::method::{Given, HeadKind};
use super::placement::Placement;
use crate::norm::{Cast, Method, RotaryTables};
use crate::spec::{Branch, Epilogue, EpsPosition, Fusion, Norm, Prologue, Spec};
use crate::tensor::{DType, Layout, View};
use crate::{Error, Result};

/// The methods that can be checked, by the names that [`Method::name`] gives.
pub const METHODS: &[&str] = &[
    "layer_norm",
    "rms_norm",
    "batch_norm",
    "group_norm",
    "instance_norm",
    "layer_norm_2d",
    "weight_norm",
    "normalize",
    "qk_norm",
    "dyt",
    "eln",
];

/// The name of a method that is whatever [`Case::spec`] says.
pub const ANY_SPEC: &str = "spec";

/// A forward and a backward pass: the method and its options, the operands' shapes, dtypes and values, and where they
/// lie in memory. Options that the method does not have are ignored.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// What is special about it.
    pub name: String,
    /// One of [`METHODS`], or [`ANY_SPEC`].
    pub method: &'static str,
    /// Dtype of input, output and their gradients.
    pub dtype: DType,
    /// Dtype of the parameters and their gradients, and of the mask.
    pub weight_dtype: DType,
    /// Shape of the input.
    pub shape: Vec<usize>,
    /// What [`ANY_SPEC`] computes.
    pub spec: Option<Spec>,
    /// Values of the input.
    pub input: Fill,
    /// Values of the gradient of the output.
    pub grad_output: Fill,
    /// Values of the weight, if there is one.
    pub weight: Option<Fill>,
    /// Values of the bias, if there is one.
    pub bias: Option<Fill>,
    /// Shape of weight and bias, where it is not the one that the method has of itself.
    pub parameter_shape: Option<Vec<usize>>,
    /// Alpha of DyT and ELN.
    pub alpha: f64,
    /// Which elements take part, where the method has a mask.
    pub mask: Option<Mask>,
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
    /// How many of the last axes LayerNorm, RMSNorm, DyT and ELN normalize.
    pub normalized_axes: usize,
    /// Groups of GroupNorm.
    pub groups: usize,
    /// The axis that `normalize` divides along, or that weight normalization keeps (`None`: it keeps none).
    pub dim: Option<usize>,
    /// Which norm `normalize` divides by.
    pub p: f64,
    /// How QKNorm normalizes a head.
    pub head: HeadKind,
    /// BatchNorm is at inference: mean and variance are given.
    pub frozen: Option<Given>,
    /// What surrounds the norm.
    pub fusion: Fusion,
    /// Values of the fusion's other operands: the residual or the gate before, and after.
    pub others: [Fill; 2],
    /// Values of the branch's bias and of its scale.
    pub branch_values: [Fill; 2],
    /// Values of the cosines and of the sines of a rotary epilogue.
    pub angles: [Fill; 2],
    /// The rows of the tables are chosen by positions, integers of 64 bits, or else of 32.
    pub positions: Option<bool>,
    /// Dtype of the fusion's other operands and their gradients; a residual's is the hidden value's, too.
    pub other_dtype: DType,
    /// The hidden value is written, and has a gradient of its own.
    pub hidden: bool,
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
    /// Unit-normal data, weight and bias around 1 and 0, eps 1e-5, row-major. One normalized axis, one group, the 2-norm
    /// along axis 1, one weight norm for each index of axis 0.
    pub fn new(method: &'static str, dtype: DType, shape: &[usize]) -> Self {
        let weight = Fill::Normal { mean: 1.0, deviation: 0.3 };
        let bias = Fill::Normal { mean: 0.0, deviation: 0.5 };
        Case {
            name: String::new(),
            method,
            dtype,
            weight_dtype: dtype,
            shape: shape.to_vec(),
            spec: None,
            input: Fill::UNIT,
            grad_output: Fill::UNIT,
            weight: (method != "normalize").then_some(weight),
            bias: (!matches!(method, "normalize" | "weight_norm")).then_some(bias),
            parameter_shape: None,
            alpha: 0.5,
            mask: None,
            eps: 1e-5,
            eps_position: EpsPosition::Inside,
            partial: 1.0,
            weight_offset: 0.0,
            cast: Cast::Fp32,
            normalized_axes: 1,
            groups: 1,
            dim: Some(if method == "weight_norm" { 0 } else { 1 }),
            p: 2.0,
            head: HeadKind::Rms,
            frozen: None,
            fusion: Fusion::default(),
            others: [Fill::UNIT; 2],
            branch_values: [Fill::UNIT, Fill::Normal { mean: 0.4, deviation: 0.2 }],
            angles: [Fill::Uniform(1.0); 2],
            positions: None,
            other_dtype: dtype,
            hidden: false,
            placement: Placement::Contiguous,
            one_buffer: false,
            seed: 1,
            first_row: 0,
            well_conditioned: false,
        }
    }

    /// A case with `rows` rows of `cols` elements, whatever axes the method makes rows of: channels of a batch, positions
    /// of an image, or the rows of a matrix. BatchNorm cannot train on one column and is then at inference.
    pub fn matrix(method: &'static str, dtype: DType, rows: usize, cols: usize) -> Self {
        // Two axes that make `cols`, so that a row is not one run of memory where the method allows it.
        let slow = (2..=cols).find(|&n| cols.is_multiple_of(n)).unwrap_or(1);
        let fast = cols / slow;
        let shape = match method {
            "batch_norm" => vec![slow, rows, fast],
            "group_norm" => vec![rows, slow, fast],
            // There is no norm of no channels.
            "instance_norm" if rows == 0 => vec![0, 1, cols],
            "instance_norm" | "qk_norm" => vec![1, rows, cols],
            "layer_norm_2d" | "normalize" => vec![1, cols, rows],
            _ => vec![rows, cols],
        };
        let mut case = Case::new(method, dtype, &shape);
        if method == "batch_norm" && cols < 2 {
            case.frozen = Some(Given::default());
        }
        case
    }

    /// A case of a spec of its own.
    pub fn of_spec(spec: &Spec, dtype: DType) -> Self {
        Case { spec: Some(spec.clone()), ..Case::new(ANY_SPEC, dtype, spec.shape()) }
    }

    /// Whether the method has a mask.
    pub fn takes_mask(&self) -> bool {
        match (self.method, &self.spec) {
            (ANY_SPEC, spec) => matches!(spec, Some(Spec::Norm(_))),
            (method, _) => !matches!(method, "dyt" | "eln" | "normalize" | "weight_norm" | "qk_norm"),
        }
    }

    /// Whether other operations can be fused with the method.
    pub fn takes_fusion(&self) -> bool {
        self.takes_mask()
    }

    /// Whether a rotary embedding can follow the method's norm.
    pub fn takes_rotary(&self) -> bool {
        let trailing = matches!(self.method, "layer_norm" | "rms_norm") && self.normalized_axes == 1;
        trailing || self.method == "qk_norm" || self.method == ANY_SPEC
    }

    /// What a residual's branch is shifted and scaled by.
    pub fn branch(&self) -> Branch {
        self.fusion().branch
    }

    /// Whether the epilogue is a rotary embedding.
    pub fn is_rotary(&self) -> bool {
        self.pairs().is_some()
    }

    /// Pairs of columns that a rotary epilogue has.
    pub(super) fn pairs(&self) -> Option<usize> {
        match self.fusion().epilogue {
            Epilogue::Rotary { dims, .. } => Some(dims / 2),
            _ => None,
        }
    }

    /// The dtype of the hidden value.
    pub(super) fn hidden_dtype(&self) -> DType {
        match self.fusion().prologue {
            Prologue::Residual { .. } => self.other_dtype,
            _ => self.dtype,
        }
    }

    /// What surrounds the norm: what the case says, or its spec.
    pub(super) fn fusion(&self) -> Fusion {
        self.spec.as_ref().map_or(self.fusion, Spec::fusion)
    }

    /// Whether there is a hidden value that is written.
    pub(super) fn has_hidden(&self) -> bool {
        self.hidden && self.fusion().prologue != Prologue::None
    }

    /// Whether the fusion's prologue and its epilogue have an operand of their own.
    pub(super) fn has_others(&self) -> [bool; 2] {
        let Fusion { prologue, epilogue, .. } = self.fusion();
        [prologue.operand().is_some(), epilogue.operand().is_some()]
    }

    /// Whether the rows of [`Case::matrix`] have weights of their own.
    pub(super) fn has_parameters_of_rows(&self) -> bool {
        matches!(self.method, "batch_norm" | "instance_norm" | "weight_norm")
    }

    /// Whether the method has statistics over rows.
    pub fn has_rows(&self) -> bool {
        match (self.method, &self.spec) {
            (ANY_SPEC, spec) => matches!(spec, Some(Spec::Norm(_))),
            (method, _) => !matches!(method, "dyt" | "eln"),
        }
    }

    /// What the method lowers to.
    pub fn lower(&self) -> Result<Spec> {
        // The values of parameters do not matter, but a method may insist on having them, and their shape says along
        // which axes they vary.
        let number = [1.0f32];
        let scalar = || View::from_slice(&number, &[1]);
        let repeated = |shape: &[usize]| {
            let strides = vec![0; shape.len()];
            View::strided(&number, Layout::strided(shape, &strides, 0)?)
        };
        let weight = self.parameter_shape.as_deref().map(repeated).transpose()?;
        let channels = self.shape.get(1).copied().unwrap_or(0);
        let parameters = Parameters {
            weight: weight.clone().filter(|_| self.weight.is_some()),
            bias: weight.filter(|_| self.bias.is_some()),
            alpha: Some(scalar()?),
            running: Some((repeated(&[channels])?, repeated(&[channels])?)),
            ..Parameters::default()
        };
        self.method(parameters)?.lower(&self.shape, self.dtype)
    }

    /// The method with these parameters bound.
    pub fn method<'a>(&self, parameters: Parameters<'a>) -> Result<Box<dyn Method + 'a>> {
        super::method::build(self, parameters)
    }

    /// The norm of the branch and the norm around it, with their parameters bound.
    pub(super) fn sandwich<'a>(
        &self,
        of_norm: Parameters<'a>,
        of_inner: Parameters<'a>,
    ) -> Result<[Box<dyn Method + 'a>; 2]> {
        let Spec::Norm(norm) = self.lower()? else { return Err(self.unknown()) };
        let inner = norm.inner().ok_or_else(|| self.unknown())?;
        let alone = |norm| Case::of_spec(&Spec::Norm(norm), self.dtype);
        let plain = Norm { fusion: Fusion::default(), ..norm };
        Ok([alone(inner).method(of_inner)?, alone(plain).method(of_norm)?])
    }

    pub(super) fn unknown(&self) -> Error {
        Error::argument("method", format!("one of {METHODS:?}"), format!("{:?}", self.method))
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
    /// The mask.
    pub mask: Option<View<'a>>,
    /// The other operand of the fusion's prologue, and that of its epilogue.
    pub others: [Option<View<'a>>; 2],
    /// A branch's bias and its scale.
    pub branch: [Option<View<'a>>; 2],
    /// Those of a rotary epilogue.
    pub tables: Option<RotaryTables<'a>>,
    /// Mean and variance of a frozen norm.
    pub running: Option<(View<'a>, View<'a>)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_has_its_rows_and_columns_whatever_the_method() {
        for method in METHODS {
            for (rows, cols) in [(1, 1), (3, 7), (5, 12), (2, 4097), (0, 5)] {
                let spec = Case::matrix(method, DType::F32, rows, cols).lower();
                if (*method, rows) == ("batch_norm", 0) {
                    assert!(spec.is_err(), "a norm of no channels");
                    continue;
                }
                let spec = spec.unwrap();
                assert_eq!((spec.rows(), spec.cols()), (rows, cols), "{method}");
            }
        }
    }
}
