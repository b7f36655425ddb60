//! What a backend does for normkit: it lends the memory of its tensors.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;
use normkit::tensor::{DType, View, ViewMut};
use normkit::{Result, Stream};

/// A tensor to be made: contiguous, of undefined values unless `zeroed`.
#[derive(Debug, Clone)]
pub(crate) struct Fresh {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its dtype.
    pub dtype: DType,
    /// It is to hold zeros.
    pub zeroed: bool,
}

/// What a backend gives back of the tensors that it made, and of what ran on them.
pub(crate) type Lent<B, R> = Result<(R, Vec<FloatTensor<B>>)>;

/// A backend whose tensors normkit can read and write where they are.
pub(crate) trait Lend: Backend {
    /// Calls `run` with views of tensors to read and of new ones to write, on the stream in which the backend's own operations
    /// are; returns the latter. New tensors are where the first of those that are read is.
    fn lend<R>(
        read: &[&FloatTensor<Self>],
        fresh: &[Fresh],
        run: impl FnOnce(&[View<'_>], &mut [ViewMut<'_>], &Stream<'_>) -> Result<R>,
    ) -> Lent<Self, R>;
}
