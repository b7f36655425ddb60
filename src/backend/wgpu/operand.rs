//! An operand of a launch: a tensor in the problem's shape, numbers of its rows, or a plain array.

use super::tensor::BufferRange;
use super::variant::Role;
use crate::backend::Rotary;
use crate::tensor::{DType, Dims, Layout, Memory, View};
use crate::{Error, Result};

/// An operand of a problem.
#[derive(Clone)]
pub(super) struct Operand {
    pub(super) name: &'static str,
    pub(super) role: Role,
    pub(super) range: BufferRange,
    pub(super) dtype: DType,
    /// In the problem's shape; `None` for a plain array, of which all is bound whatever the launch.
    pub(super) layout: Option<Layout>,
    /// How many numbers there are at each place of the layout.
    pub(super) numbers: usize,
    /// How far from there elements may be, in either direction.
    pub(super) away: i128,
}

impl Operand {
    /// A tensor of the problem's shape; `None` where there is no view.
    pub(super) fn new(name: &'static str, role: Role, view: Option<&View<'_>>) -> Result<Option<Self>> {
        let Some(view) = view else { return Ok(None) };
        let (range, layout) = (range_of(name, view)?, Some(view.layout().clone()));
        Ok(Some(Operand { name, role, range, dtype: view.dtype(), layout, numbers: 1, away: 0 }))
    }

    /// A table of a rotary embedding, walked with a row's `cols` columns.
    pub(super) fn table(
        name: &'static str,
        rotary: &Rotary<'_>,
        view: &View<'_>,
        cols: usize,
    ) -> Result<Option<Self>> {
        let (range, layout) = (range_of(name, view)?, Some(rotary.layout(view, cols)));
        let away = match rotary.positions {
            Some(_) => (view.shape()[0] as i128 - 1) * view.layout().strides()[0] as i128,
            None => 0,
        };
        Ok(Some(Operand { name, role: Role::Table, range, dtype: view.dtype(), layout, numbers: 1, away }))
    }

    /// The positions of a rotary embedding, likewise.
    pub(super) fn positions(rotary: &Rotary<'_>, cols: usize) -> Result<Option<Self>> {
        let Some(view) = &rotary.positions else { return Ok(None) };
        let (name, role, layout) = ("positions", Role::Position, rotary.positions_layout(cols));
        let range = range_of(name, view)?;
        Ok(Some(Operand { name, role, range, dtype: view.dtype(), layout, numbers: 1, away: 0 }))
    }

    /// A plain array of float32 numbers.
    pub(super) fn flat(name: &'static str, role: Role, view: &View<'_>) -> Result<Option<Self>> {
        Ok(Some(Operand {
            name,
            role,
            range: range_of(name, view)?,
            dtype: view.dtype(),
            layout: None,
            numbers: 1,
            away: 0,
        }))
    }

    /// The first `numbers` of `of_row` float32 numbers for each row of `shape`, whose rows are made of the axes
    /// `reduced`.
    pub(super) fn per_row(
        name: &'static str,
        role: Role,
        view: Option<&View<'_>>,
        shape: &[usize],
        reduced: &[usize],
        [numbers, of_row]: [usize; 2],
    ) -> Result<Option<Self>> {
        let Some(view) = view else { return Ok(None) };
        let mut strides: Dims<isize> = Dims::from_elem(0, shape.len());
        let mut stride = of_row as isize;
        for axis in (0..shape.len()).rev().filter(|axis| !reduced.contains(axis)) {
            strides[axis] = stride;
            stride = stride.wrapping_mul(shape[axis].max(1) as isize);
        }
        let layout = Some(Layout::strided(shape, &strides, view.layout().offset())?);
        let (range, dtype) = (range_of(name, view)?, view.dtype());
        Ok(Some(Operand { name, role, range, dtype, layout, numbers, away: 0 }))
    }

    pub(super) fn is_tensor(&self) -> bool {
        matches!(self.role, Role::Load | Role::Store)
    }
}

fn range_of(name: &'static str, view: &View<'_>) -> Result<BufferRange> {
    match &view.memory {
        Memory::Wgpu(range) => Ok(range.clone()),
        _ => Err(Error::argument(name, "memory on the wgpu device", "memory on the host")),
    }
}

/// Whether two tensors may lie in the same memory.
pub(super) fn share_buffer(a: &View<'_>, b: &View<'_>) -> bool {
    matches!((&a.memory, &b.memory), (Memory::Wgpu(a), Memory::Wgpu(b)) if a.buffer() == b.buffer())
}
