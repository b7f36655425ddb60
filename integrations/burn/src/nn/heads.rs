//! Norms of queries and keys.

use super::{on_a_line, told};
use crate::{Error, HeadKind, qk_norm};
use burn::config::Config;
use burn::module::{Content, DisplaySettings, Initializer, Module, ModuleDisplay, Param};
use burn::tensor::{Device, Tensor};

/// How to make a [`QkNorm`].
#[derive(Debug, Config)]
pub struct QkNormConfig {
    /// The size of a head, the last axis.
    pub d_head: usize,
    /// Keeps the divisor away from zero.
    #[config(default = 1e-6)]
    pub epsilon: f64,
    /// Which norm.
    #[config(default = "HeadKind::Rms")]
    pub kind: HeadKind,
}

/// Normalization of the heads of queries and keys, as in Qwen3, Gemma 3 or OLMo 2; with [`HeadKind::L2`] that of Henry et al. 2020
/// (arXiv 2010.04245), whose scale is `query_gamma`.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct QkNorm {
    /// The weight of queries, `[d_head]`.
    pub query_gamma: Param<Tensor<1>>,
    /// The weight of keys, `[d_head]`.
    pub key_gamma: Param<Tensor<1>>,
    /// Keeps the divisor away from zero.
    pub epsilon: f64,
    /// Which norm.
    #[module(skip)]
    pub kind: HeadKind,
}

impl QkNormConfig {
    /// Weights of ones.
    pub fn init(&self, device: &Device) -> QkNorm {
        QkNorm {
            query_gamma: Initializer::Ones.init([self.d_head], device),
            key_gamma: Initializer::Ones.init([self.d_head], device),
            epsilon: self.epsilon,
            kind: self.kind,
        }
    }
}

impl QkNorm {
    /// The normalized `query` and `key`, `[..., d_head]`, whose numbers of heads may differ.
    ///
    /// # Panics
    /// Where [`try_forward`](Self::try_forward) returns an error.
    pub fn forward<const D: usize>(&self, query: Tensor<D>, key: Tensor<D>) -> (Tensor<D>, Tensor<D>) {
        told(self.try_forward(query, key))
    }

    /// The same; an error for other shapes and for dtypes that are not floating-point.
    pub fn try_forward<const D: usize>(
        &self,
        query: Tensor<D>,
        key: Tensor<D>,
    ) -> Result<(Tensor<D>, Tensor<D>), Error> {
        let (of_query, of_key) = (self.query_gamma.val(), self.key_gamma.val());
        qk_norm(query, key, Some(of_query), Some(of_key), self.kind, self.epsilon)
    }
}

impl ModuleDisplay for QkNorm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        on_a_line()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_head] = self.query_gamma.shape().dims();
        content.add("d_head", &d_head).add("epsilon", &self.epsilon).optional()
    }
}
