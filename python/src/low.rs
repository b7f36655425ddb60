//! What `normkit.torch` is made of: forward passes that save statistics, and backward passes.

use crate::arguments as arg;
use crate::array::{Array, Autograd};
use crate::call::{Call, Gradient, Needs, Wanted, rows};
use crate::config::{Config, activated, cast, head_kind, rotary_style};
use crate::errors::value_error;
use crate::fused::dropped;
use crate::heads::both;
use normkit::spec::{Epilogue, Fusion, Prologue};
use normkit::tensor::DType;
use pyo3::prelude::*;

pub(crate) type Any<'py> = Bound<'py, PyAny>;
pub(crate) type Optional<'a, 'py> = Option<&'a Bound<'py, PyAny>>;
/// The gradients of [`Norm::backward`], in its order.
type Every<'py> = (
    Gradient<'py>,
    Gradient<'py>,
    Gradient<'py>,
    Gradient<'py>,
    Gradient<'py>,
    Gradient<'py>,
    Gradient<'py>,
    Gradient<'py>,
);

pub(crate) fn array<'py>(name: &'static str, object: &Any<'py>) -> PyResult<Array<'py>> {
    Array::new(name, object, Autograd::Ignored)
}

fn optional<'py>(name: &'static str, object: Optional<'_, 'py>) -> PyResult<Option<Array<'py>>> {
    Array::optional(name, object, Autograd::Ignored)
}

/// A method with its options. Tensors that an autograd engine follows are taken for their memory alone: who calls keeps
/// the history.
#[pyclass(frozen, module = "normkit._normkit")]
pub(crate) struct Norm {
    config: Config,
}

#[pymethods]
impl Norm {
    /// Layer normalization over the last axes.
    #[staticmethod]
    #[pyo3(signature = (normalized_shape, eps=1e-5))]
    fn layer_norm(
        #[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>,
        #[pyo3(from_py_with = arg::eps)] eps: f64,
    ) -> Self {
        let fusion = Fusion::default();
        Norm { config: Config::LayerNorm { normalized_shape, eps, fusion } }
    }

    /// Root-mean-square normalization over the last axes.
    #[staticmethod]
    #[pyo3(signature = (normalized_shape, eps=None, offset=0.0, cast="fp32", partial=1.0))]
    fn rms_norm(
        #[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>,
        #[pyo3(from_py_with = arg::optional_eps)] eps: Option<f64>,
        #[pyo3(from_py_with = arg::offset)] offset: f64,
        #[pyo3(from_py_with = arg::cast)] cast: &'static str,
        #[pyo3(from_py_with = arg::partial)] partial: f64,
    ) -> Self {
        let (cast, fusion) = (self::cast(cast), Fusion::default());
        Norm { config: Config::RmsNorm { normalized_shape, eps, offset, cast, partial, fusion } }
    }

    /// Batch normalization by the batch's own statistics.
    #[staticmethod]
    #[pyo3(signature = (num_features, eps=1e-5))]
    fn batch_norm(
        #[pyo3(from_py_with = arg::num_features)] num_features: usize,
        #[pyo3(from_py_with = arg::eps)] eps: f64,
    ) -> Self {
        Norm { config: Config::BatchNorm { num_features, eps } }
    }

    /// Group normalization.
    #[staticmethod]
    #[pyo3(signature = (num_groups, num_channels, eps=1e-5))]
    fn group_norm(
        #[pyo3(from_py_with = arg::num_groups)] num_groups: usize,
        #[pyo3(from_py_with = arg::num_channels)] num_channels: usize,
        #[pyo3(from_py_with = arg::eps)] eps: f64,
    ) -> Self {
        let fusion = Fusion::default();
        Norm { config: Config::GroupNorm { num_groups, num_channels, eps, fusion } }
    }

    /// Instance normalization by each instance's own statistics.
    #[staticmethod]
    #[pyo3(signature = (num_features, eps=1e-5))]
    fn instance_norm(
        #[pyo3(from_py_with = arg::num_features)] num_features: usize,
        #[pyo3(from_py_with = arg::eps)] eps: f64,
    ) -> Self {
        Norm { config: Config::InstanceNorm { num_features, eps } }
    }

    /// Division of vectors by their p-norm.
    #[staticmethod]
    #[pyo3(signature = (p=2.0, dim=1, eps=1e-12))]
    fn normalize(
        #[pyo3(from_py_with = arg::p)] p: f64,
        #[pyo3(from_py_with = arg::dim)] dim: isize,
        #[pyo3(from_py_with = arg::eps)] eps: f64,
    ) -> Self {
        Norm { config: Config::Normalize { p, dim, eps } }
    }

    /// Dynamic tanh, whose weight and bias vary along the last axes.
    #[staticmethod]
    fn dyt(#[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>) -> Self {
        Norm { config: Config::DyT { normalized_shape } }
    }

    /// The norm of queries or of keys.
    #[staticmethod]
    #[pyo3(signature = (kind, eps=1e-6))]
    fn head_norm(
        #[pyo3(from_py_with = arg::kind)] kind: &'static str,
        #[pyo3(from_py_with = arg::eps)] eps: f64,
    ) -> Self {
        Norm { config: Config::HeadNorm { kind: head_kind(kind), eps, rotary: None } }
    }

    /// The same with a rotary embedding after it, whose tables are to be given.
    #[staticmethod]
    #[pyo3(signature = (kind, eps=1e-6, interleaved=false))]
    fn head_norm_rope(
        #[pyo3(from_py_with = arg::kind)] kind: &'static str,
        #[pyo3(from_py_with = arg::eps)] eps: f64,
        #[pyo3(from_py_with = arg::interleaved)] interleaved: bool,
    ) -> Self {
        let rotary = Some(rotary_style(interleaved));
        Norm { config: Config::HeadNorm { kind: head_kind(kind), eps, rotary } }
    }

    /// Weight normalization, whose weight is g; a dim of None or -1 is the whole tensor.
    #[staticmethod]
    fn weight_norm(#[pyo3(from_py_with = arg::kept_dim)] dim: Option<usize>) -> Self {
        Norm { config: Config::WeightNorm { dim } }
    }

    /// The adaptive norm of the last axis, of `cols` elements, whose weight is the scale without its 1 and whose bias is the
    /// shift: a layer norm with `centred`, else an RMS norm.
    #[staticmethod]
    #[pyo3(signature = (cols, eps=1e-6, centred=true))]
    fn modulated(
        #[pyo3(from_py_with = arg::cols)] cols: usize,
        #[pyo3(from_py_with = arg::eps)] eps: f64,
        #[pyo3(from_py_with = arg::centred)] centred: bool,
    ) -> Self {
        Norm { config: Config::Modulated { centred, cols, eps } }
    }

    /// The RMS norm of groups of the last axis, of `cols` elements, with a gate after the norm, or before it.
    #[staticmethod]
    #[pyo3(signature = (cols, eps=1e-5, group_size=None, norm_before_gate=true))]
    fn gated_rms_norm(
        #[pyo3(from_py_with = arg::cols)] cols: usize,
        #[pyo3(from_py_with = arg::eps)] eps: f64,
        #[pyo3(from_py_with = arg::optional_group_size)] group_size: Option<usize>,
        #[pyo3(from_py_with = arg::norm_before_gate)] norm_before_gate: bool,
    ) -> Self {
        let group_size = group_size.unwrap_or(cols);
        Norm { config: Config::GatedRmsNorm { cols, group_size, eps, norm_before_gate } }
    }

    /// The same norm with a residual before it, ``input_scale * input + residual_scale * residual``, and after it either a
    /// residual or an activation.
    #[pyo3(signature = (before=None, after=None, activation=None, input_scale=1.0, residual_scale=1.0, dropout_p=0.0, dropout_seed=0, dropout_offset=0))]
    fn fused(
        &self,
        #[pyo3(from_py_with = arg::before)] before: Option<&'static str>,
        #[pyo3(from_py_with = arg::after)] after: Option<&'static str>,
        #[pyo3(from_py_with = arg::activation)] activation: Option<&'static str>,
        #[pyo3(from_py_with = arg::input_scale)] input_scale: f64,
        #[pyo3(from_py_with = arg::residual_scale)] residual_scale: f64,
        #[pyo3(from_py_with = arg::dropout_p)] dropout_p: f64,
        #[pyo3(from_py_with = arg::dropout_seed)] dropout_seed: u64,
        #[pyo3(from_py_with = arg::dropout_offset)] dropout_offset: u64,
    ) -> PyResult<Self> {
        let prologue = match before {
            Some(_) => Prologue::Residual { input_scale, residual_scale },
            None => Prologue::None,
        };
        let epilogue = match (after, activation) {
            (Some(_), Some(found)) => {
                let expected = "None beside a residual after the norm";
                return Err(value_error(format!("activation: expected {expected}, found '{found}'")));
            }
            (Some(_), None) => Epilogue::Residual,
            (None, activation) => activated(activation).epilogue,
        };
        let dropout = dropped(dropout_p, dropout_seed, dropout_offset)?;
        let fusion = Fusion { prologue, epilogue, dropout, ..Fusion::default() };
        Ok(Norm { config: self.config.clone().fused(fusion)? })
    }

    /// How many rows of statistics an input of `shape` has; 0 where the method has none.
    fn rows(&self, #[pyo3(from_py_with = arg::shape)] shape: Vec<usize>) -> PyResult<usize> {
        Ok(rows(&self.config, &shape, DType::F32)?.unwrap_or(0))
    }

    /// The normalized input. `before` and `after` are the other operands of what surrounds the norm, here and below; `cos`, `sin`
    /// and `positions` those of a rotary embedding.
    #[pyo3(signature = (input, weight=None, bias=None, alpha=None, before=None, after=None, cos=None, sin=None, positions=None))]
    fn forward<'py>(
        &self,
        input: &Any<'py>,
        weight: Optional<'_, 'py>,
        bias: Optional<'_, 'py>,
        alpha: Optional<'_, 'py>,
        before: Optional<'_, 'py>,
        after: Optional<'_, 'py>,
        cos: Optional<'_, 'py>,
        sin: Optional<'_, 'py>,
        positions: Optional<'_, 'py>,
    ) -> PyResult<Any<'py>> {
        let arrays = [weight, bias, alpha, before, after, cos, sin, positions, None, None];
        self.call(input, arrays, |call| call.forward(input.py(), None))
    }

    /// The normalized queries and keys of a norm of heads, in one launch.
    #[pyo3(signature = (q, k, q_weight=None, k_weight=None, cos=None, sin=None, positions=None))]
    fn heads<'py>(
        &self,
        q: &Any<'py>,
        k: &Any<'py>,
        q_weight: Optional<'_, 'py>,
        k_weight: Optional<'_, 'py>,
        cos: Optional<'_, 'py>,
        sin: Optional<'_, 'py>,
        positions: Optional<'_, 'py>,
    ) -> PyResult<(Any<'py>, Any<'py>)> {
        let Config::HeadNorm { kind, eps, rotary } = self.config else {
            return Err(value_error("heads: expected a norm of heads, found another"));
        };
        let (py, q, k) = (q.py(), array("q", q)?, array("k", k)?);
        let (q_weight, k_weight) = (optional("q_weight", q_weight)?, optional("k_weight", k_weight)?);
        let (cos, sin) = (optional("cos", cos)?, optional("sin", sin)?);
        let positions = Array::indices("positions", positions)?;
        self.config.check_angles([cos.is_some(), sin.is_some(), positions.is_some()])?;
        let angles = rotary.map(|style| (style, [cos.as_ref(), sin.as_ref(), positions.as_ref()]));
        both(py, (&q, &k), [q_weight.as_ref(), k_weight.as_ref()], (kind, eps), angles, None)
    }

    /// The normalized input, and the statistics `[rows, 4]` that backward needs, if the method has any.
    #[pyo3(signature = (input, weight=None, bias=None, alpha=None, before=None, after=None, cos=None, sin=None, positions=None))]
    fn train<'py>(
        &self,
        input: &Any<'py>,
        weight: Optional<'_, 'py>,
        bias: Optional<'_, 'py>,
        alpha: Optional<'_, 'py>,
        before: Optional<'_, 'py>,
        after: Optional<'_, 'py>,
        cos: Optional<'_, 'py>,
        sin: Optional<'_, 'py>,
        positions: Optional<'_, 'py>,
    ) -> PyResult<(Any<'py>, Gradient<'py>)> {
        let wanted = Wanted { statistics: true, ..Wanted::default() };
        let arrays = [weight, bias, alpha, before, after, cos, sin, positions, None, None];
        let results = self.call(input, arrays, |call| call.run(input.py(), None, wanted))?;
        Ok((results.output, results.statistics))
    }

    /// The normalized input, what was normalized, and with `statistics` what backward needs. `branch_bias` and `branch_scale` shift and
    /// scale the input before a residual is added to it.
    #[pyo3(signature = (input, weight=None, bias=None, alpha=None, before=None, after=None, statistics=true, branch_bias=None, branch_scale=None))]
    fn hidden<'py>(
        &self,
        input: &Any<'py>,
        weight: Optional<'_, 'py>,
        bias: Optional<'_, 'py>,
        alpha: Optional<'_, 'py>,
        before: Optional<'_, 'py>,
        after: Optional<'_, 'py>,
        #[pyo3(from_py_with = arg::statistics)] statistics: bool,
        branch_bias: Optional<'_, 'py>,
        branch_scale: Optional<'_, 'py>,
    ) -> PyResult<(Any<'py>, Gradient<'py>, Gradient<'py>)> {
        let wanted = Wanted { statistics, hidden: true };
        let arrays = [weight, bias, alpha, before, after, None, None, None, branch_bias, branch_scale];
        let results = self.call(input, arrays, |call| call.run(input.py(), None, wanted))?;
        Ok((results.output, results.hidden, results.statistics))
    }

    /// The gradients of input, weight, bias, alpha, the operands `before` and `after`, and a branch's bias and scale: those whose
    /// bits, 1, 2, 4, 8, 16, 32, 64 and 128, are in `needs`. Where `before` is a residual that is None, `input` is the hidden value.
    #[pyo3(signature = (grad_output, input, statistics, weight=None, bias=None, alpha=None, before=None, after=None, grad_hidden=None, needs=255, cos=None, sin=None, positions=None, branch_bias=None, branch_scale=None))]
    fn backward<'py>(
        &self,
        grad_output: &Any<'py>,
        input: &Any<'py>,
        statistics: Optional<'_, 'py>,
        weight: Optional<'_, 'py>,
        bias: Optional<'_, 'py>,
        alpha: Optional<'_, 'py>,
        before: Optional<'_, 'py>,
        after: Optional<'_, 'py>,
        grad_hidden: Optional<'_, 'py>,
        needs: u8,
        cos: Optional<'_, 'py>,
        sin: Optional<'_, 'py>,
        positions: Optional<'_, 'py>,
        branch_bias: Optional<'_, 'py>,
        branch_scale: Optional<'_, 'py>,
    ) -> PyResult<Every<'py>> {
        let grad_output = array("grad_output", grad_output)?;
        let grad_hidden = optional("grad_hidden", grad_hidden)?;
        let statistics = optional("statistics", statistics)?;
        let arrays = [weight, bias, alpha, before, after, cos, sin, positions, branch_bias, branch_scale];
        self.call(input, arrays, |call| {
            let grads = (&grad_output, grad_hidden.as_ref());
            call.backward(input.py(), grads, statistics.as_ref(), Needs(needs)).map(Into::into)
        })
    }
}

impl Norm {
    /// Calls `run` with the arrays: weight, bias, alpha, and the operands of what surrounds the norm.
    fn call<'py, R>(
        &self,
        input: &Any<'py>,
        [weight, bias, alpha, before, after, cos, sin, positions, branch_bias, branch_scale]: [Optional<'_, 'py>;
            10],
        run: impl FnOnce(Call<'_, 'py>) -> PyResult<R>,
    ) -> PyResult<R> {
        self.config.check(weight.is_some(), bias.is_some(), alpha.is_some())?;
        let (input, alpha) = (array("input", input)?, optional("alpha", alpha)?);
        let weight = optional(self.config.called("weight"), weight)?;
        let bias = optional(self.config.called("bias"), bias)?;
        let Fusion { prologue, epilogue, .. } = self.config.fusion();
        let before = optional(prologue.operand().unwrap_or("before"), before)?;
        let after = optional(epilogue.operand().unwrap_or("after"), after)?;
        let (cos, sin) = (optional("cos", cos)?, optional("sin", sin)?);
        let positions = Array::indices("positions", positions)?;
        self.config.check_angles([cos.is_some(), sin.is_some(), positions.is_some()])?;
        let branch_bias = optional("branch_bias", branch_bias)?;
        let branch_scale = optional("branch_scale", branch_scale)?;
        self.config.check_branch([branch_bias.is_some(), branch_scale.is_some()])?;
        run(Call {
            config: &self.config,
            input: &input,
            weight: weight.as_ref(),
            bias: bias.as_ref(),
            alpha: alpha.as_ref(),
            before: before.as_ref(),
            after: after.as_ref(),
            angles: [cos.as_ref(), sin.as_ref(), positions.as_ref()],
            branch: [branch_bias.as_ref(), branch_scale.as_ref()],
        })
    }
}
