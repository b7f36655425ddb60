//! Normalization of queries and keys before attention (Henry et al. 2020, arXiv 2010.04245; Dehghani et al. 2023, arXiv
//! 2302.05442; Qwen3 and OLMo).

use super::arguments::{BackwardArguments, ForwardArguments};
use super::head_norm::{HeadNorm, Kind};
use super::pair::{self, One, Pair, renamed};
use super::{Gradients, Grads, Method, Rotary, checked};
use crate::backend;
use crate::tensor::{DType, Tensor, View, ViewMut};
use crate::{DeviceTensor, Error, Result, Stream, Workspace};

/// Normalization of queries and keys, head by head, before their dot products.
///
/// ```text
/// l2:     q̂ = g * q / max(|q|, eps),  k̂ = k / max(|k|, eps)         logits q̂ · k̂, without 1 / sqrt(head_dim)
/// rms:    q̂ = q / sqrt(mean(q²) + eps) * query_weight, and so k̂    logits q̂ · k̂ / sqrt(head_dim)
/// layer:  layer normalization of both                               logits q̂ · k̂ / sqrt(head_dim)
/// ```
///
/// Queries are `[..., heads, head_dim]`, keys `[..., key_heads, head_dim]` with `key_heads` a divisor of `heads`, any strides:
/// both may be parts of one packed tensor, see [`split_packed`](super::split_packed). The gradients are those of
/// [`Normalize`](crate::Normalize), [`RmsNorm`](crate::RmsNorm) and [`LayerNorm`](crate::LayerNorm); that of `g` is the query
/// weight's.
///
/// Sources: Henry et al. 2020, section 3 (`l2`; `g` multiplies the logits, here the queries, which is the same, and starts
/// at [`initial_scale`](QkNorm::initial_scale)); the code of Qwen3 (`rms`, eps 1e-6); Dehghani et al. 2023 (`layer`).
///
/// ```
/// use normkit::prelude::*;
/// let q = HostTensor::from_vec(vec![3.0f32, 4.0, 0.0, 2.0], &[2, 2])?;
/// let k = HostTensor::from_vec(vec![5.0f32, 0.0], &[1, 2])?;
/// let scale = HostTensor::from_vec(vec![10.0f32], &[1])?;
/// let (q_hat, k_hat) = QkNorm::l2().scale(&scale).forward(&q, &k)?;
/// assert_eq!(q_hat.to_f64(), [6.0, 8.0, 0.0, 10.0]);
/// assert_eq!(k_hat.to_f64(), [1.0, 0.0]);
/// # Ok::<(), normkit::Error>(())
/// ```
#[derive(Clone)]
pub struct QkNorm<'a> {
    query: HeadNorm<'a>,
    key: HeadNorm<'a>,
}

/// What [`QkNorm::forward_train`] keeps for backward: the statistics of queries and keys.
#[derive(Debug, Clone)]
pub struct QkSaved {
    query: DeviceTensor,
    key: DeviceTensor,
}

/// A builder call that binds a parameter of one of the two norms, and the same for a view.
macro_rules! bind_of {
    ($(#[$doc:meta])+ $name:ident, $name_view:ident => $norm:ident.$call:ident, $call_view:ident) => {
        $(#[$doc])+
        pub fn $name(mut self, tensor: &'a impl Tensor) -> Self {
            self.$norm = self.$norm.$call(tensor);
            self
        }

        #[doc = concat!("As [`", stringify!($name), "`](Self::", stringify!($name), "), for a view.")]
        pub fn $name_view(mut self, view: View<'a>) -> Self {
            self.$norm = self.$norm.$call_view(view);
            self
        }
    };
}

impl<'a> QkNorm<'a> {
    fn new(kind: Kind, eps: f64) -> Self {
        QkNorm { query: HeadNorm::new(kind, eps), key: HeadNorm::new(kind, eps) }
    }

    /// Unit vectors. eps, the least divisor, is 1e-12.
    pub fn l2() -> Self {
        QkNorm::new(Kind::L2, 1e-12)
    }

    /// RMSNorm of each head. eps is 1e-6.
    pub fn rms() -> Self {
        QkNorm::new(Kind::Rms, 1e-6)
    }

    /// LayerNorm of each head. eps is 1e-6.
    pub fn layer() -> Self {
        QkNorm::new(Kind::Layer, 1e-6)
    }

    /// Keeps the divisor away from zero. Not negative.
    pub fn eps(mut self, eps: f64) -> Self {
        (self.query.eps, self.key.eps) = (eps, eps);
        self
    }

    /// The learned scale of `l2`, one element, which multiplies the queries: their weight.
    pub fn scale(self, scale: &'a impl Tensor) -> Self {
        self.query_weight(scale)
    }

    bind_of! {
        /// Multiplies the normalized queries: `[head_dim]`, `[heads, head_dim]`, or one element.
        query_weight, query_weight_view => query.weight, weight_view
    }
    bind_of! {
        /// Multiplies the normalized keys: `[head_dim]`, `[key_heads, head_dim]`, or one element.
        key_weight, key_weight_view => key.weight, weight_view
    }
    bind_of! {
        /// Added to the queries last; shapes as the weight's.
        query_bias, query_bias_view => query.bias, bias_view
    }
    bind_of! {
        /// Added to the keys last; shapes as the weight's.
        key_bias, key_bias_view => key.bias, bias_view
    }

    /// Rotates pairs of the columns of each head, of the queries and of the keys, by the angles of its position. Their heads may
    /// differ in number, so cos and sin have no axis for those, or one of size 1.
    ///
    /// ```
    /// use normkit::norm::{Rotary, rotary_tables};
    /// use normkit::prelude::*;
    /// use normkit::tensor::DType;
    /// // Three tokens, two heads of queries and one of keys.
    /// let (q, k) = (HostTensor::zeros(&[3, 2, 8], DType::BF16)?, HostTensor::zeros(&[3, 1, 8], DType::BF16)?);
    /// let [cos, sin] = rotary_tables(10_000.0, 8, 3, 1.0, DType::F32)?;
    /// let (q, k) = QkNorm::rms().rotary(&Rotary::half_split(&cos, &sin)).forward(&q, &k)?;
    /// # Ok::<(), normkit::Error>(())
    /// ```
    pub fn rotary(mut self, rotary: &Rotary<'a>) -> Self {
        (self.query, self.key) = (self.query.rotary(rotary), self.key.rotary(rotary));
        self
    }

    /// The norm of the queries alone.
    pub fn query(&self) -> &HeadNorm<'a> {
        &self.query
    }

    /// The norm of the keys alone.
    pub fn key(&self) -> &HeadNorm<'a> {
        &self.key
    }

    /// What the scale of `l2` starts at: `log2(L² - L)` with `L` the 97.5th percentile of the training sequences' lengths
    /// (Henry et al. 2020). `None` below a length of 2.
    pub fn initial_scale(length: f64) -> Option<f64> {
        (length >= 2.0).then(|| (length * length - length).log2())
    }

    /// Writes the normalized queries and keys, and their statistics if given. Each output may be exactly its input, and is apart
    /// from all else. Either both are written, or an argument is wrong and neither is; errors name `query`, `query_weight`,
    /// `query_output` and so on, and the same of the keys.
    ///
    /// Both are one launch: on the CPU the threads share out the rows of both in one round, and on CUDA blocks of one kernel take
    /// them. They have one kernel as parts of one packed tensor and as tensors of their own, with any numbers of heads, with and without
    /// rotary embedding; but not where one has a parameter or statistics that the other has not, where dtypes of their parameters
    /// differ, where a parameter is one element for one of them alone, or where one lies less aligned in memory. Then, and on WebGPU,
    /// there are two launches. The bits of the results are those of two calls.
    pub fn forward_into(
        &self,
        input: Pair<&View<'_>>,
        output: Pair<&mut ViewMut<'_>>,
        statistics: Pair<Option<&mut ViewMut<'_>>>,
        stream: &Stream<'_>,
    ) -> Result<()> {
        check_heads(input.query, input.key)?;
        let query = ForwardArguments {
            output: Some(output.query.reborrow()),
            statistics: statistics.query.map(|view| view.reborrow()),
            ..ForwardArguments::new(input.query)
        };
        let key = ForwardArguments {
            output: Some(output.key.reborrow()),
            statistics: statistics.key.map(|view| view.reborrow()),
            ..ForwardArguments::new(input.key)
        };
        pair::forward(self.both(query, key), stream)
    }

    fn both<A>(&self, query: A, key: A) -> [One<'_, A>; 2] {
        [
            One { method: &self.query, names: of_query, arguments: query },
            One { method: &self.key, names: of_key, arguments: key },
        ]
    }

    /// Writes the gradients that `grads` asks for, given those of the outputs and the statistics that forward saved. The
    /// gradient of an input may be exactly that of its output; it may be a part of a packed tensor, as the input is.
    ///
    /// Launches, bits and the names in errors are as with [`forward_into`](QkNorm::forward_into): on CUDA each of the few launches of a
    /// backward pass is one for both where they take the same kernel. The workspace has the sums of both,
    /// [`workspace_size`](QkNorm::workspace_size); in a CUDA graph's capture one that has room for either alone will do, and they
    /// come one after the other.
    pub fn backward_into(
        &self,
        grad_output: Pair<&View<'_>>,
        input: Pair<&View<'_>>,
        statistics: Pair<&View<'_>>,
        grads: Pair<Gradients<'_>>,
        workspace: &mut Workspace,
        stream: &Stream<'_>,
    ) -> Result<()> {
        check_heads(input.query, input.key)?;
        let query = BackwardArguments {
            statistics: Some(statistics.query),
            ..BackwardArguments::new(grad_output.query, input.query, grads.query)
        };
        let key = BackwardArguments {
            statistics: Some(statistics.key),
            ..BackwardArguments::new(grad_output.key, input.key, grads.key)
        };
        pair::backward(self.both(query, key), workspace, stream)
    }

    /// The normalized queries and keys.
    pub fn forward<T: Tensor>(&self, query: &T, key: &T) -> Result<(T, T)> {
        self.run(query, key, false).map(|(q, k, _)| (q, k))
    }

    /// The normalized queries and keys, and what [`backward`](QkNorm::backward) needs.
    pub fn forward_train<T: Tensor>(&self, query: &T, key: &T) -> Result<(T, T, QkSaved)> {
        let (q, k, saved) = self.run(query, key, true)?;
        let missing = || Error::argument("statistics", "those of this pass", "none");
        Ok((q, k, saved.ok_or_else(missing)?))
    }

    fn run<T: Tensor>(&self, query: &T, key: &T, save: bool) -> Result<(T, T, Option<QkSaved>)> {
        let (q, k, device) = (query.view()?, key.view()?, query.device());
        let mut outputs = (query.empty(q.shape(), q.dtype())?, key.empty(k.shape(), k.dtype())?);
        let statistics = |method: &HeadNorm<'_>, view: &View<'_>, names| -> Result<Option<DeviceTensor>> {
            let shape = method.statistics_shape(view.shape(), view.dtype());
            let shape = shape.map_err(|error| renamed(error, names))?.filter(|_| save);
            shape.map(|shape| device.zeros(&shape, view.dtype().compute())).transpose()
        };
        let (mut s_q, mut s_k) = (statistics(&self.query, &q, of_query)?, statistics(&self.key, &k, of_key)?);
        let mut views = Pair {
            query: s_q.as_mut().map(Tensor::view_mut).transpose()?,
            key: s_k.as_mut().map(Tensor::view_mut).transpose()?,
        };
        device.submit(|stream| {
            self.forward_into(
                Pair { query: &q, key: &k },
                Pair { query: &mut outputs.0.view_mut()?, key: &mut outputs.1.view_mut()? },
                Pair { query: views.query.as_mut(), key: views.key.as_mut() },
                stream,
            )
        })?;
        drop(views);
        Ok((outputs.0, outputs.1, s_q.zip(s_k).map(|(query, key)| QkSaved { query, key })))
    }

    /// The gradients of queries and keys and of every bound parameter.
    pub fn backward<T: Tensor>(
        &self,
        grad_output: Pair<&T>,
        query: &T,
        key: &T,
        saved: &QkSaved,
    ) -> Result<Pair<Grads<T>>> {
        let (q, k) = (query.view()?, key.view()?);
        check_heads(&q, &k)?;
        let like = |norm: &HeadNorm<'_>, input: &T, names| {
            checked(norm.parameters())
                .and_then(|bound| Grads::like(input, bound))
                .map_err(|error| renamed(error, names))
        };
        let mut grads =
            Pair { query: like(&self.query, query, of_query)?, key: like(&self.key, key, of_key)? };
        let (grad_query, grad_key) = (grad_output.query.view()?, grad_output.key.view()?);
        let (saved_query, saved_key) = (saved.query.view()?, saved.key.view()?);
        self.backward_into(
            Pair { query: &grad_query, key: &grad_key },
            Pair { query: &q, key: &k },
            Pair { query: &saved_query, key: &saved_key },
            Pair { query: grads.query.targets()?, key: grads.key.targets()? },
            &mut Workspace::new(),
            &query.device().stream(),
        )?;
        Ok(grads)
    }

    /// Bytes of scratch that a backward pass over queries and keys of these shapes needs at most, on any device.
    pub fn workspace_size(&self, query: &[usize], key: &[usize], dtype: DType) -> Result<usize> {
        let lower = |norm: &HeadNorm<'_>, shape, names| {
            norm.lower(shape, dtype).map_err(|error| renamed(error, names))
        };
        let (query, key) = (lower(&self.query, query, of_query)?, lower(&self.key, key, of_key)?);
        Ok(backend::workspace_size_together([(&query, dtype), (&key, dtype)]))
    }
}

/// What the arguments of one norm are called in a call of both.
const NAMES: [[&str; 3]; 9] = [
    ["input", "query", "key"],
    ["output", "query_output", "key_output"],
    ["weight", "query_weight", "key_weight"],
    ["bias", "query_bias", "key_bias"],
    ["statistics", "query_statistics", "key_statistics"],
    ["grad_output", "query_grad_output", "key_grad_output"],
    ["grad_input", "query_grad_input", "key_grad_input"],
    ["grad_weight", "query_grad_weight", "key_grad_weight"],
    ["grad_bias", "query_grad_bias", "key_grad_bias"],
];

/// The name in a call of both of an argument that the queries' norm calls `own`; where it has no other, that is it.
fn of_query(own: &'static str) -> &'static str {
    NAMES.iter().find(|names| names[0] == own).map_or(own, |names| names[1])
}

/// The same of the keys'.
fn of_key(own: &'static str) -> &'static str {
    NAMES.iter().find(|names| names[0] == own).map_or(own, |names| names[2])
}

/// Queries and keys that can meet: the same shape, but for heads, of which the keys may have fewer.
fn check_heads(query: &View<'_>, key: &View<'_>) -> Result<()> {
    let (q, k) = (query.shape(), key.shape());
    let rank = q.len();
    if rank < 2 || k.len() != rank || q[rank - 1] != k[rank - 1] {
        let expected = "[..., key_heads, head_dim] with the queries' rank and head_dim";
        return Err(Error::argument("key", expected, format!("shape {k:?} beside queries of {q:?}")));
    }
    if k[rank - 2] == 0 || !q[rank - 2].is_multiple_of(k[rank - 2]) {
        let expected = format!("key heads that divide the {} query heads", q[rank - 2]);
        return Err(Error::argument("key", expected, k[rank - 2]));
    }
    if query.dtype() != key.dtype() {
        return Err(Error::argument(
            "key",
            format!("dtype {}", query.dtype()),
            format!("dtype {}", key.dtype()),
        ));
    }
    Ok(())
}
