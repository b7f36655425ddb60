//! Results as codes of 8 bits: the steps of [`Quantization`](crate::spec::Quantization), row by row.

use super::Isa;
use super::isa::Operation;
use super::outliers::{self, Flags};
use super::real::Real;
use super::simd::{BLOCK, Simd};
use super::sink::Sink;
use crate::spec::Quantization;
use crate::tensor::{DType, Element, F8E4M3, F8E5M2};

/// Elements whose codes are made at a time.
const PIECE: usize = 1024;

/// A dtype of codes.
trait Code: Element {
    /// The nearest code, ties to even; out of range the largest of its sign.
    fn of(x: f32) -> Self;
}

impl Code for i8 {
    #[inline(always)]
    fn of(x: f32) -> i8 {
        // Beside this number, float32's neighbours are 1 apart; its own low byte is 0.
        const ANCHOR: f32 = 12_582_912.0;
        let held = if x > -128.0 { x } else { -128.0 };
        let held = if held < 127.0 { held } else { 127.0 };
        let held = if x.is_nan() { 0.0 } else { held };
        (held + ANCHOR).to_bits() as i8
    }
}

impl Code for F8E4M3 {
    #[inline(always)]
    fn of(x: f32) -> Self {
        F8E4M3::from_f32(x)
    }
}

impl Code for F8E5M2 {
    #[inline(always)]
    fn of(x: f32) -> Self {
        F8E5M2::from_f32(x)
    }
}

/// The largest magnitude, NaN if any is.
struct Largest<'a, F>(&'a [F]);

impl<F: Real> Operation for Largest<'_, F> {
    type Output = f32;
    #[inline(always)]
    fn call<S: Simd>(self) -> f32 {
        // The bits of magnitudes are in their order, and those of NaN above all. As signed numbers, which more instruction
        // sets compare.
        let bits = |x: &F| (x.to_f32().to_bits() & 0x7fff_ffff) as i32;
        let (blocks, rest) = self.0.as_chunks::<BLOCK>();
        let mut most = [0; BLOCK];
        for block in blocks {
            for (most, x) in most.iter_mut().zip(block) {
                *most = bits(x).max(*most);
            }
        }
        let most = most.into_iter().chain(rest.iter().map(bits)).fold(0, i32::max);
        f32::from_bits(most as u32)
    }
}

/// The codes of `from / scale`.
struct Encode<'a, F, T> {
    from: &'a [F],
    scale: f32,
    to: &'a mut [T],
}

impl<F: Real, T: Code> Operation for Encode<'_, F, T> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self) {
        for (to, from) in self.to.iter_mut().zip(self.from) {
            *to = T::of(from.to_f32() / self.scale);
        }
    }
}

/// Where codes go, and their scales where those are computed.
pub(super) struct Codes<'a> {
    pub(super) quantization: Quantization,
    pub(super) scales: Option<Sink<'a>>,
    /// Of columns that have outliers, where those are set apart.
    pub(super) flags: Option<Flags<'a>>,
}

impl Codes<'_> {
    /// Writes a row's codes, and its scales.
    pub(super) fn write<F: Real>(&self, isa: Isa, values: &[F], sink: &Sink<'_>, row: usize) {
        let Codes { quantization, scales, flags } = self;
        if let (Some(scales), Some(flags)) = (scales, flags) {
            let threshold = quantization.outlier_bits();
            let (most, is_any) = isa.run(outliers::Largest { of: values, threshold });
            let scale = quantization.scale(most);
            scales.slice::<f32>(scales.first_of(row), 1)[0] = scale;
            let mut inliers = [F::ZERO; PIECE];
            for (piece, from) in values.chunks(PIECE).enumerate() {
                let at = piece * PIECE;
                let from = if is_any { flags.set_apart(from, at, threshold, &mut inliers) } else { from };
                put::<F, i8>(isa, from, scale, sink, (row, at));
            }
            return;
        }
        let block = quantization.block(values.len()).unwrap_or(values.len()).max(1);
        for (index, part) in values.chunks(block).enumerate() {
            let scale = match scales {
                // A part is as long as a row, so its magnitudes are looked at while they are in the caches.
                Some(scales) => {
                    let scale = quantization.scale(isa.run(Largest(part)));
                    scales.slice::<f32>(scales.first_of(row) + index as isize, 1)[0] = scale;
                    scale
                }
                None => quantization.scale(0.0),
            };
            for (piece, from) in part.chunks(PIECE).enumerate() {
                let at = index * block + piece * PIECE;
                match quantization.dtype {
                    DType::F8E4M3 => put::<F, F8E4M3>(isa, from, scale, sink, (row, at)),
                    DType::F8E5M2 => put::<F, F8E5M2>(isa, from, scale, sink, (row, at)),
                    _ => put::<F, i8>(isa, from, scale, sink, (row, at)),
                }
            }
        }
    }
}

/// Writes the codes of at most [`PIECE`] elements.
fn put<F: Real, T: Code>(isa: Isa, from: &[F], scale: f32, sink: &Sink<'_>, (row, at): (usize, usize)) {
    if let Some(to) = sink.lend::<T>(row, at, from.len()) {
        return isa.run(Encode { from, scale, to });
    }
    let mut codes = [T::zeroed(); PIECE];
    isa.run(Encode { from, scale, to: &mut codes[..from.len()] });
    for run in sink.runs(row, at..at + from.len()) {
        for i in 0..run.count {
            sink.slice::<T>(run.at + i as isize * run.stride, 1)[0] = codes[run.col + i - at];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the conversions of elements, which go by float64, for all values of both 16-bit floats.
    #[test]
    fn codes_are_those_of_the_conversions() {
        for bits in 0..=u16::MAX {
            for x in [half::f16::from_bits(bits).to_f32(), half::bf16::from_bits(bits).to_f32()] {
                assert_eq!(<i8 as Code>::of(x), <i8 as Element>::from_f64(f64::from(x)), "{x:e}");
            }
        }
        for code in -130..130 {
            for x in [code as f32 + 0.5, (code as f32 + 0.5).next_up(), (code as f32 + 0.5).next_down()] {
                assert_eq!(<i8 as Code>::of(x), <i8 as Element>::from_f64(f64::from(x)), "{x:e}");
            }
        }
    }

    #[test]
    fn the_largest_magnitude_is_nan_where_any_is() {
        assert_eq!(Isa::best().run(Largest(&[1.0f32, -3.0, 2.0])), 3.0);
        assert!(Isa::best().run(Largest(&[1.0f64, f64::NAN, f64::INFINITY])).is_nan());
        assert_eq!(Isa::best().run(Largest(&[1.0f32, f32::NEG_INFINITY])), f32::INFINITY);
    }
}
