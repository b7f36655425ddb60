//! A copy on the threads and in the pieces of the kernels: the floor of the benchmarks.

use super::Cpu;
use super::launch::Shared;
use crate::Result;
use crate::backend::copy::{check_alike, check_apart, check_in_line};
use crate::tensor::{Memory, View, ViewMut};

/// Bytes of a task: below the size where the C library turns to stores past the caches.
const PIECE: usize = 256 << 10;

/// Copies `input` to `output`, of the same shape and dtype and both row-major without gaps, on the threads of a norm. What a
/// norm takes longer than this for as many bytes is not the memory's doing.
///
/// ```
/// use normkit::backend::cpu::{Cpu, copy};
/// use normkit::tensor::{View, ViewMut};
///
/// let (from, mut to) = ([1.0f32, 2.0], [0.0f32; 2]);
/// copy(&View::from_slice(&from, &[2])?, &mut ViewMut::from_slice(&mut to, &[2])?, &Cpu::default())?;
/// assert_eq!(to, from);
/// # Ok::<(), normkit::Error>(())
/// ```
pub fn copy(input: &View<'_>, output: &mut ViewMut<'_>, cpu: &Cpu) -> Result<()> {
    let output = output.as_view();
    check_alike(input, &output)?;
    let bytes = input.layout().len() * input.dtype().size();
    let (from, to) = (first("input", input)?, first("output", &output)?.cast_mut());
    if bytes == 0 {
        return Ok(());
    }
    check_apart(from.addr() as u64, to.addr() as u64, bytes as u64)?;
    // SAFETY: both views are of so many bytes in line, which do not meet, the one borrowed and the other borrowed by nobody else.
    let (from, to) =
        unsafe { (std::slice::from_raw_parts(from, bytes), std::slice::from_raw_parts_mut(to, bytes)) };
    let to = Shared::new(to);
    cpu.for_each(bytes.div_ceil(PIECE), PIECE, |task| {
        let piece = task * PIECE..bytes.min((task + 1) * PIECE);
        // SAFETY: pieces of different tasks do not meet.
        unsafe { to.part(piece.clone()) }.copy_from_slice(&from[piece]);
    });
    Ok(())
}

/// Where the elements of a row-major view begin.
fn first(name: &'static str, view: &View<'_>) -> Result<*const u8> {
    check_in_line(name, view)?;
    match &view.memory {
        Memory::Host(first, _) => Ok(first.wrapping_add(view.layout().offset() * view.dtype().size())),
        #[cfg(any(feature = "wgpu", feature = "cuda"))]
        _ => Err(crate::Error::argument(name, "memory of the host", "memory elsewhere")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Layout;

    #[test]
    fn every_byte_is_copied_and_others_are_left() {
        let from: Vec<f32> = (0..300_001).map(|i| i as f32).collect();
        for len in [0, 1, 65_536, 65_537, 300_000] {
            let mut to = vec![-1.0f32; len + 1];
            let input = View::from_slice(&from[1..=len], &[len]).expect("a view");
            let mut output = ViewMut::from_slice(&mut to[..len], &[len]).expect("a view");
            copy(&input, &mut output, &Cpu::default().with_threads(2).expect("threads")).expect("a copy");
            assert!(to[..len] == from[1..=len] && to[len] == -1.0, "{len}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let (from, mut to) = ([1.0f32; 6], [0.0f32; 6]);
        let input = View::from_slice(&from, &[2, 3]).expect("a view");
        let mut output = ViewMut::from_slice(&mut to, &[3, 2]).expect("a view");
        assert!(copy(&input, &mut output, &Cpu::default()).is_err());
        let layout = Layout::strided(&[3, 2], &[1, 3], 0).expect("a layout");
        let across = input.with_layout(layout).expect("a view");
        assert!(copy(&across, &mut output, &Cpu::default()).is_err());
        let (input, mut same) = output.in_place();
        assert!(copy(&input, &mut same, &Cpu::default()).is_err());
        assert_eq!(to, [0.0; 6]);
    }
}
