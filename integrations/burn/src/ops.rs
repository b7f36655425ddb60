//! The operation that burn routes to the backend of its tensors.
#![allow(deprecated, reason = "burn calls NdArray its former backend; it is still there")]

use crate::call::{Bound, Call};
use crate::lend::Lend;
use crate::passes::{Forwarded, Wanted, forward};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType, backend_extension};
use normkit::{Error, Result};

/// A tensor that need not be there.
#[derive(ExtensionType)]
pub(crate) enum Maybe<B: Backend> {
    /// It is not.
    Absent,
    /// It is.
    Present(FloatTensor<B>),
}

/// The tensors of a call beside its input.
#[derive(ExtensionType)]
pub(crate) struct Others<B: Backend> {
    /// Multiplies what is normalized.
    #[extension_type]
    pub weight: Maybe<B>,
    /// Is added to it.
    #[extension_type]
    pub bias: Maybe<B>,
    /// Of elementwise functions.
    #[extension_type]
    pub alpha: Maybe<B>,
    /// Is added to the input.
    #[extension_type]
    pub residual: Maybe<B>,
    /// Mean and variance to normalize by, both or neither.
    #[extension_type]
    pub mean: Maybe<B>,
    /// See `mean`.
    #[extension_type]
    pub var: Maybe<B>,
}

/// What a call gives.
#[derive(ExtensionType)]
pub(crate) enum Outcome<B: Backend> {
    /// The normalized input.
    Output(FloatTensor<B>),
    /// And what was normalized.
    WithHidden(FloatTensor<B>, FloatTensor<B>),
    /// And the batch's mean and unbiased variance.
    WithBatch(FloatTensor<B>, FloatTensor<B>, FloatTensor<B>),
    /// Nothing, for this reason.
    Failed(Error),
}

/// normkit's methods as an operation of burn's backends.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda")),
    Autodiff
)]
pub(crate) trait NormOps: Backend {
    /// Runs a method; `batch` asks for the batch's mean and variance, too.
    fn normkit(
        call: Call,
        batch: bool,
        input: FloatTensor<Self>,
        #[extension_type] others: Others<Self>,
    ) -> Outcome<Self>;
}

impl<B: Backend> Maybe<B> {
    pub(crate) fn of(tensor: Option<FloatTensor<B>>) -> Self {
        tensor.map_or(Maybe::Absent, Maybe::Present)
    }

    pub(crate) fn tensor(self) -> Option<FloatTensor<B>> {
        match self {
            Maybe::Absent => None,
            Maybe::Present(tensor) => Some(tensor),
        }
    }
}

impl<B: Backend> Others<B> {
    pub(crate) fn bound(self) -> Bound<FloatTensor<B>> {
        let running = self.mean.tensor().zip(self.var.tensor());
        Bound {
            weight: self.weight.tensor(),
            bias: self.bias.tensor(),
            alpha: self.alpha.tensor(),
            residual: self.residual.tensor(),
            running: running.map(|(mean, var)| [mean, var]),
        }
    }
}

impl<B: Backend> From<Result<Forwarded<FloatTensor<B>>>> for Outcome<B> {
    fn from(result: Result<Forwarded<FloatTensor<B>>>) -> Self {
        match result {
            Ok(Forwarded { output, batch: Some([mean, var]), .. }) => Outcome::WithBatch(output, mean, var),
            Ok(Forwarded { output, hidden: Some(hidden), .. }) => Outcome::WithHidden(output, hidden),
            Ok(Forwarded { output, .. }) => Outcome::Output(output),
            Err(error) => Outcome::Failed(error),
        }
    }
}

/// Without gradients.
fn run<B: Lend>(call: &Call, batch: bool, input: &FloatTensor<B>, others: Others<B>) -> Outcome<B> {
    forward::<B>(call, input, &others.bound(), Wanted { statistics: false, batch }).into()
}

macro_rules! plain {
    ($($(#[$attribute:meta])* $backend:ident),*) => {
        $($(#[$attribute])*
        impl NormOps for burn::backend::$backend {
            fn normkit(call: Call, batch: bool, input: FloatTensor<Self>, others: Others<Self>) -> Outcome<Self> {
                run::<Self>(&call, batch, &input, others)
            }
        })*
    };
}
plain!(
    #[cfg(feature = "flex")]
    Flex,
    #[cfg(feature = "ndarray")]
    NdArray,
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    Cube
);
