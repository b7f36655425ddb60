//! What the operators ask of candle's memory, of whichever device: views of it, new memory, and the device's launches.

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::{DType, Layout, Result, Shape, Storage, Tensor};
use normkit::tensor::{self, Dims, View, ViewMut};
use normkit::{Stream, Workspace};
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Memory of one kind of device.
pub(crate) trait Memory: BackendStorage + 'static {
    /// A tensor's memory of this kind, or candle's error that there is no implementation.
    fn of<'s>(op: &'static str, storage: &'s Storage) -> Result<&'s Self>;

    /// The same, for candle to own.
    fn into_storage(self) -> Storage;

    /// The other way.
    fn from_storage(storage: Storage) -> Option<Self>;

    /// New memory, which is written before it is read.
    fn fresh(op: &'static str, device: &Self::Device, dtype: DType, count: usize) -> Result<Self>;

    /// The memory of a tensor, to read, as it lies.
    fn view<'s>(&'s self, op: &'static str, layout: &Layout) -> Result<View<'s>>;

    /// New memory, row-major, to write.
    fn view_mut<'s>(&'s mut self, op: &'static str, shape: &[usize]) -> Result<ViewMut<'s>>;

    /// New memory of a tensor `[2, ...]`, as its two halves of this shape.
    fn halves_mut<'s>(&'s mut self, op: &'static str, shape: &[usize]) -> Result<(ViewMut<'s>, ViewMut<'s>)>;

    /// Runs `body` with the stream that candle's own operators use, and with scratch memory that nothing else uses before
    /// what it launches.
    fn run<R>(
        op: &'static str,
        device: &Self::Device,
        body: impl FnOnce(&mut Workspace, &Stream<'_>) -> Result<R>,
    ) -> Result<R>;
}

/// normkit's error, as candle's, with the operator that it is about.
pub(crate) fn fault(op: &str, error: normkit::Error) -> candle_core::Error {
    candle_core::Error::Msg(format!("{op}: {error}")).bt()
}

/// An error about an argument, in normkit's form.
pub(crate) fn refused(
    op: &str,
    name: &str,
    expected: impl std::fmt::Display,
    found: impl std::fmt::Display,
) -> candle_core::Error {
    candle_core::Error::Msg(format!("{op}: {name}: expected {expected}, found {found}")).bt()
}

/// A tensor's memory, which must be of the device that others are on.
pub(crate) fn beside<'s, S: Memory>(
    op: &'static str,
    storage: &'s Storage,
    device: &S::Device,
) -> Result<&'s S> {
    let memory = S::of(op, storage)?;
    if memory.device().same_device(device) {
        return Ok(memory);
    }
    let (lhs, rhs) = (device.location(), memory.device().location());
    Err(candle_core::Error::DeviceMismatchBinaryOp { lhs, rhs, op }.bt())
}

/// A tensor that owns this memory, without a copy.
pub(crate) fn tensor<S: Memory>(memory: S, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(memory.into_storage(), shape, candle_core::op::BackpropOp::none(), false)
}

/// normkit's name of a dtype that norms compute on.
pub(crate) fn dtype(op: &'static str, dtype: DType) -> Result<tensor::DType> {
    match dtype {
        DType::F16 => Ok(tensor::DType::F16),
        DType::BF16 => Ok(tensor::DType::BF16),
        DType::F32 => Ok(tensor::DType::F32),
        DType::F64 => Ok(tensor::DType::F64),
        other => Err(candle_core::Error::UnsupportedDTypeForOp(other, op).bt()),
    }
}

/// The dtype that norms of tensors of this one compute in, and which their statistics have.
pub(crate) fn compute(op: &'static str, of: DType) -> Result<DType> {
    Ok(if dtype(op, of)? == tensor::DType::F64 { DType::F64 } else { DType::F32 })
}

/// candle's layout, as normkit's.
pub(crate) fn layout(op: &str, layout: &Layout) -> Result<tensor::Layout> {
    let strides: Dims<isize> = layout.stride().iter().map(|&stride| stride as isize).collect();
    tensor::Layout::strided(layout.dims(), &strides, layout.start_offset()).map_err(|error| fault(op, error))
}

/// Where launches are in order: a stream's numbers.
pub(crate) type Order = (usize, usize);

/// Scratch memory of earlier calls, for later ones whose launches come after theirs.
static SCRATCH: LazyLock<Mutex<HashMap<Order, Vec<Workspace>>>> = LazyLock::new(Mutex::default);

/// Runs `body` with scratch memory that no other call has meanwhile.
pub(crate) fn with_workspace<R>(order: Order, body: impl FnOnce(&mut Workspace) -> R) -> R {
    let all = || SCRATCH.lock().unwrap_or_else(PoisonError::into_inner);
    let spare = all().get_mut(&order).and_then(Vec::pop);
    let mut workspace = spare.unwrap_or_default();
    let result = body(&mut workspace);
    all().entry(order).or_default().push(workspace);
    result
}
