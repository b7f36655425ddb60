//! The memory of a case: every operand in one block, surrounded by guard elements.

use super::placement::Placement;
use crate::Result;
use crate::tensor::{DType, Element, F8E4M3, F8E5M2, Layout, View, ViewMut};
use bytemuck::Zeroable;
use half::{bf16, f16};
use std::ops::Range;

/// Bytes that nobody may read or write: NaN in every dtype.
const GUARD: u8 = 0xFF;
/// Bytes of elements that are to be written: an unlikely finite number in every dtype.
const UNWRITTEN: u8 = 0xC5;

/// As many bytes as the widest vector, aligned to it.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// An operand's place.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) name: &'static str,
    pub(super) dtype: DType,
    /// Counted from the start of `bytes`.
    pub(super) layout: Layout,
    /// The operand's share of the arena, guards included.
    pub(super) bytes: Range<usize>,
    /// A kernel writes it.
    pub(super) written: bool,
}

/// Operands in one block of memory.
pub(super) struct Arena {
    lines: Vec<Line>,
    slots: Vec<Slot>,
    one_buffer: bool,
    placement: Placement,
    end: usize,
}

/// Does the same with each dtype's type.
macro_rules! typed {
    ($dtype:expr, $t:ident => $body:expr) => {
        typed!($dtype, $t => $body, F16 f16, BF16 bf16, F32 f32, F64 f64, I8 i8, F8E4M3 F8E4M3, F8E5M2 F8E5M2, I32 i32, I64 i64)
    };
    ($dtype:expr, $t:ident => $body:expr, $($name:ident $type:ty),+) => {
        match $dtype {
            $(DType::$name => {
                type $t = $type;
                $body
            })+
        }
    };
}

impl Slot {
    /// The operand in `memory`, the slot's bytes.
    pub(super) fn view<'a>(&self, memory: &'a [u8]) -> Result<View<'a>> {
        typed!(self.dtype, T => View::strided::<T>(bytemuck::cast_slice(memory), self.layout.clone()))
    }

    /// The operand in `memory`, to write.
    pub(super) fn view_mut<'a>(&self, memory: &'a mut [u8]) -> Result<ViewMut<'a>> {
        typed!(self.dtype, T => ViewMut::strided::<T>(bytemuck::cast_slice_mut(memory), self.layout.clone()))
    }

    /// Where the `index`-th element lies in the arena.
    fn element(&self, index: usize) -> Range<usize> {
        let at = self.bytes.start + self.layout.offset_of(index) * self.dtype.size();
        at..at + self.dtype.size()
    }
}

impl Arena {
    /// `one_buffer` packs the operands without regard to alignment.
    pub(super) fn new(placement: Placement, one_buffer: bool) -> Self {
        Arena { lines: Vec::new(), slots: Vec::new(), one_buffer, placement, end: 0 }
    }

    /// Adds an operand; memory for it is there after [`allocate`](Arena::allocate).
    pub(super) fn add(
        &mut self,
        name: &'static str,
        dtype: DType,
        shape: &[usize],
        role: Role,
    ) -> Result<()> {
        let written = matches!(role, Role::Output | Role::ParameterGradient | Role::Statistics);
        let parameter = matches!(role, Role::Parameter | Role::ParameterGradient);
        // Statistics are row-major by contract.
        let placement = if role == Role::Statistics { Placement::Offset(1) } else { self.placement };
        let (layout, elements) = placement.layout(shape, written, parameter)?;
        let size = dtype.size();
        let start = if self.one_buffer { self.end.next_multiple_of(size) + size } else { self.end };
        let end = start + elements * size;
        self.end = if self.one_buffer { end } else { end.next_multiple_of(64) };
        // A packed operand must begin at a multiple of its own size, which an odd number of elements before it is.
        self.slots.push(Slot { name, dtype, layout, bytes: start..end, written });
        Ok(())
    }

    /// Fills the memory with guards, and what is to be written with another pattern.
    pub(super) fn allocate(&mut self) {
        self.lines = vec![Line::zeroed(); self.end.div_ceil(64)];
        self.bytes_mut().fill(GUARD);
        for slot in self.slots.clone().iter().filter(|slot| slot.written) {
            for index in 0..slot.layout.len() {
                self.bytes_mut()[slot.element(index)].fill(UNWRITTEN);
            }
        }
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(super) fn slot(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.name == name)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.lines)
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }

    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    pub(super) fn one_buffer(&self) -> bool {
        self.one_buffer
    }

    /// The arena's bytes that each block of a device's memory holds: all, or those of one operand.
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    pub(super) fn ranges(&self) -> Vec<Range<usize>> {
        if self.one_buffer() {
            std::iter::once(0..self.bytes().len()).collect()
        } else {
            self.slots().iter().map(|slot| slot.bytes.clone()).collect()
        }
    }

    /// Each slot with its bytes, to be borrowed apart.
    pub(super) fn split(&mut self) -> Vec<(Slot, &mut [u8])> {
        let slots = self.slots.clone();
        let (mut rest, mut at) = (self.bytes_mut(), 0);
        let mut parts = Vec::with_capacity(slots.len());
        for slot in slots {
            let (_, tail) = rest.split_at_mut(slot.bytes.start - at);
            let (memory, tail) = tail.split_at_mut(slot.bytes.len());
            at = slot.bytes.end;
            rest = tail;
            parts.push((slot, memory));
        }
        parts
    }

    /// Writes `value(index)`, rounded to the dtype, to each element.
    pub(super) fn fill(&mut self, name: &str, value: impl Fn(usize) -> f64) {
        let Some(slot) = self.slot(name).cloned() else { return };
        for index in 0..slot.layout.len() {
            let at = slot.element(index);
            let number = value(index);
            typed!(slot.dtype, T => {
                self.bytes_mut()[at].copy_from_slice(bytemuck::bytes_of(&<T as Element>::from_f64(number)))
            });
        }
    }

    /// The elements in row-major order, as they are after rounding and repetition.
    pub(super) fn values(&self, name: &str) -> Option<Vec<f64>> {
        let slot = self.slot(name)?;
        let bytes = self.bytes();
        let value = |index| {
            let element = &bytes[slot.element(index)];
            typed!(slot.dtype, T => bytemuck::pod_read_unaligned::<T>(element).to_f64())
        };
        Some((0..slot.layout.len()).map(value).collect())
    }

    /// Whether nothing between this operand's start and the next one's has changed since `before`, except what was to
    /// be written.
    pub(super) fn is_intact(&self, index: usize, before: &[u8]) -> bool {
        let slot = &self.slots[index];
        let first = if index == 0 { 0 } else { slot.bytes.start };
        let last = self.slots.get(index + 1).map_or(before.len(), |next| next.bytes.start);
        let mut now = self.bytes()[first..last].to_vec();
        if slot.written {
            for element in (0..slot.layout.len()).map(|index| slot.element(index)) {
                let at = element.start - first..element.end - first;
                now[at].copy_from_slice(&before[element]);
            }
        }
        now == before[first..last]
    }
}

/// What an operand is to the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Input,
    Parameter,
    Output,
    ParameterGradient,
    Statistics,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena(one_buffer: bool) -> Arena {
        let mut arena = Arena::new(Placement::Padded, one_buffer);
        arena.add("a", DType::F16, &[2, 3], Role::Input).unwrap();
        arena.add("b", DType::F64, &[4], Role::Output).unwrap();
        arena.add("c", DType::BF16, &[1], Role::Parameter).unwrap();
        arena.allocate();
        arena
    }

    #[test]
    fn operands_are_apart_and_read_back() {
        for one_buffer in [false, true] {
            let mut arena = arena(one_buffer);
            arena.fill("a", |i| i as f64);
            arena.fill("c", |_| -1.0);
            assert_eq!(arena.values("a").unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
            assert_eq!(arena.values("c").unwrap(), [-1.0]);
            assert!(arena.values("b").unwrap().iter().all(|b| b.is_finite()));
            assert!(arena.split().into_iter().all(|(slot, memory)| slot.view(memory).is_ok()));
        }
    }

    #[test]
    fn a_write_outside_the_elements_is_seen() {
        let mut arena = arena(true);
        let before = arena.bytes().to_vec();
        arena.fill("b", |_| 1.0);
        assert!((0..3).all(|slot| arena.is_intact(slot, &before)));
        let outside = arena.slot("b").unwrap().bytes.start;
        arena.bytes_mut()[outside] = 0;
        assert_eq!([0, 1, 2].map(|slot| arena.is_intact(slot, &before)), [true, false, true]);
        arena.fill("a", |_| 1.0);
        assert!(!arena.is_intact(0, &before));
    }
}
