//! Moments and gradient sums of one leaf, as `docs/numerics.md` defines them.

use super::lanes::{Terms, TreeSums, read, tree_sums};
use super::power::Exponent;
use super::real::{Real, two_sum};
use super::simd::{Arrays, BLOCK, Block, Numbers, Simd};
use super::statistics::{Constants, Measure, Moments};
use super::stored::Stored;

/// Terms that the mask leaves out become zero.
#[inline(always)]
pub(super) fn masked<S: Simd, const WHOLE: bool, F: Real, const M: usize>(
    mask: Option<&[F]>,
    at: usize,
    len: usize,
    terms: [Block<S, F>; M],
) -> [Block<S, F>; M] {
    let Some(mask) = mask else { return terms };
    let mask = read::<S, WHOLE, F, F>(mask, at, len);
    let mut terms = terms;
    for terms in &mut terms {
        *terms = terms.masked(mask);
    }
    terms
}

/// `x - shift` and its square.
struct Shifted<'a, T, F> {
    x: &'a [T],
    mask: Option<&'a [F]>,
    shift: F,
}

impl<T: Stored, F: Real> Terms<F, 2> for Shifted<'_, T, F> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.x.len()
    }
    #[inline(always)]
    fn terms<S: Simd, const WHOLE: bool>(&mut self, at: usize, len: usize) -> [Block<S, F>; 2] {
        let d = read::<S, WHOLE, T, F>(self.x, at, len) - Block::<S, F>::splat(self.shift);
        masked::<S, WHOLE, F, 2>(self.mask, at, len, [d, d * d])
    }
}

/// `((x - mean) - correction)²`.
struct Centred<'a, F> {
    x: &'a [F],
    mask: Option<&'a [F]>,
    mean: F,
    correction: F,
}

impl<F: Real> Terms<F, 1> for Centred<'_, F> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.x.len()
    }
    #[inline(always)]
    fn terms<S: Simd, const WHOLE: bool>(&mut self, at: usize, len: usize) -> [Block<S, F>; 1] {
        let (mean, correction) = (Block::<S, F>::splat(self.mean), Block::<S, F>::splat(self.correction));
        let e = (read::<S, WHOLE, F, F>(self.x, at, len) - mean) - correction;
        masked::<S, WHOLE, F, 1>(self.mask, at, len, [e * e])
    }
}

/// `x²`, or `|x|`.
struct Sizes<'a, T, F, const SQUARES: bool> {
    x: &'a [T],
    mask: Option<&'a [F]>,
}

impl<T: Stored, F: Real, const SQUARES: bool> Terms<F, 1> for Sizes<'_, T, F, SQUARES> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.x.len()
    }
    #[inline(always)]
    fn terms<S: Simd, const WHOLE: bool>(&mut self, at: usize, len: usize) -> [Block<S, F>; 1] {
        let x: Block<S, F> = read::<S, WHOLE, T, F>(self.x, at, len);
        masked::<S, WHOLE, F, 1>(self.mask, at, len, [if SQUARES { x * x } else { x.abs() }])
    }
}

/// `|x|^p`.
struct Powers<'a, F> {
    x: &'a [F],
    mask: Option<&'a [F]>,
    p: Exponent<F>,
}

impl<F: Real> Terms<F, 1> for Powers<'_, F> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.x.len()
    }
    #[inline(always)]
    fn terms<S: Simd, const WHOLE: bool>(&mut self, at: usize, len: usize) -> [Block<S, F>; 1] {
        let x: Block<S, F> = read::<S, WHOLE, F, F>(self.x, at, len);
        masked::<S, WHOLE, F, 1>(self.mask, at, len, [x.abs().map(|x| self.p.of(x))])
    }
}

/// Whether element `i` takes part.
#[inline(always)]
pub(super) fn takes_part<F: Real>(mask: Option<&[F]>, i: usize) -> bool {
    mask.is_none_or(|mask| mask[i] != F::ZERO)
}

/// The largest magnitude bits of the elements that take part.
pub(super) fn largest<F: Real>(x: &[F], mask: Option<&[F]>) -> F::Bits {
    match mask {
        None => x.iter().fold(F::Bits::default(), |most, x| most.max(x.magnitude())),
        Some(mask) => (x.iter().zip(mask).filter(|(_, m)| **m != F::ZERO))
            .fold(F::Bits::default(), |most, (x, _)| most.max(x.magnitude())),
    }
}

/// The first guess of a leaf's mean.
#[inline(always)]
pub(super) fn guess<S: Simd, T: Stored, F: Real>(x: &[T], mask: Option<&[F]>) -> F {
    if mask.is_some() {
        return (0..x.len()).find(|&i| takes_part(mask, i)).map_or(F::ZERO, |i| x[i].widen());
    }
    let q = guess_len(x.len());
    if q == BLOCK {
        return read::<S, true, T, F>(x, 0, BLOCK).halved() * F::of(1.0 / BLOCK as f64);
    }
    let mut lanes = read::<S, false, T, F>(x, 0, q).to_array();
    let mut half = q / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0] * F::of(1.0 / q as f64)
}

/// How many elements the first guess of the mean is made of.
#[inline(always)]
pub(super) fn guess_len(len: usize) -> usize {
    if len >= BLOCK { BLOCK } else { 1 << len.max(1).ilog2() }
}

/// What follows from a guess of a leaf's mean and the sums of the differences from it and of their squares.
pub(super) struct Round<F> {
    pub(super) shift: F,
    pub(super) correction: F,
    pub(super) m2: F,
    /// Whether the guess was close enough to the mean that the subtraction in `m2` loses nothing.
    pub(super) is_close: bool,
}

impl<F: Real> Round<F> {
    #[inline(always)]
    pub(super) fn new(shift: F, [s1, s2]: [F; 2], inv_count: F) -> Self {
        let correction = s1 * inv_count;
        let p = s1 * correction;
        let is_close = (F::FOUR * p).magnitude() <= s2.magnitude();
        Round { shift, correction, m2: s2 - p, is_close }
    }
}

/// The first round of a leaf all of which takes part, or its squares; in the instruction set of the caller.
#[inline(always)]
pub(super) fn first_round<S: Simd, T: Stored, F: Real, const CENTRED: bool>(
    lanes: usize,
    x: &[T],
    inv_count: F,
) -> Round<F> {
    if CENTRED {
        let shift = guess::<S, T, F>(x, None);
        return Round::new(
            shift,
            tree_sums::<S, F, _, 2>(lanes, &mut Shifted { x, mask: None, shift }),
            inv_count,
        );
    }
    let [m2] = tree_sums::<S, F, _, 1>(lanes, &mut Sizes::<T, F, true> { x, mask: None });
    Round { shift: F::ZERO, correction: F::ZERO, m2, is_close: true }
}

/// What a leaf's moments are before they are known to be regular: its elements as they are given.
fn plain_moments<F: Real>(c: &Constants<F>, x: &[F], mask: Option<&[F]>, count: F) -> Moments<F> {
    let (isa, lanes) = (c.isa, c.lanes);
    let zero = F::ZERO;
    let inv = count.recip();
    let of = |m2| Moments { count, mean: zero, correction: zero, m2, exponent: 0 };
    match c.measure {
        Measure::Moments => {
            let mut shift = guess::<Arrays, F, F>(x, mask);
            for last in [false, true] {
                let sums = isa.run(TreeSums::new(lanes, Shifted { x, mask, shift }));
                let Round { correction, mut m2, is_close, .. } = Round::new(shift, sums, inv);
                if !is_close {
                    if !last {
                        shift += correction;
                        continue;
                    }
                    let centred = Centred { x, mask, mean: shift, correction };
                    [m2] = isa.run(TreeSums::new(lanes, centred));
                }
                let (mean, correction) = two_sum(shift, correction);
                return Moments { mean, correction, ..of(m2) };
            }
            unreachable!("the second round returns")
        }
        Measure::Squares => of(isa.run(TreeSums::new(lanes, Sizes::<F, F, true> { x, mask }))[0]),
        Measure::Magnitudes => of(isa.run(TreeSums::new(lanes, Sizes::<F, F, false> { x, mask }))[0]),
        Measure::Largest => of(F::from_bits(largest(x, mask))),
        Measure::Powers(p) => of(isa.run(TreeSums::new(lanes, Powers { x, mask, p: Exponent::new(p) }))[0]),
    }
}

/// Whether a leaf's squares neither overflow nor underflow.
#[inline(always)]
pub(super) fn is_regular<F: Real>(measure: Measure, m2: F, inv_count: F) -> bool {
    let limits = match measure {
        Measure::Moments | Measure::Squares => F::REGULAR[0],
        Measure::Magnitudes | Measure::Largest => F::REGULAR[1],
        Measure::Powers(_) => return false,
    };
    let v = (m2 * inv_count).magnitude();
    limits.0.magnitude() <= v && v <= limits.1.magnitude()
}

/// The moments of a leaf; `x` is the part of it that the statistic sees. `tile` is scratch.
pub(super) fn moments<F: Real>(c: &Constants<F>, x: &[F], mask: Option<&[F]>, tile: &mut [F]) -> Moments<F> {
    let count = mask.map_or(x.len(), |mask| mask.iter().filter(|m| **m != F::ZERO).count());
    if count == 0 {
        return Moments::none();
    }
    let count = F::of(count as f64);
    let plain = plain_moments(c, x, mask, count);
    if is_regular(c.measure, plain.m2, count.recip()) {
        return plain;
    }
    let largest = largest(x, mask);
    if largest == F::Bits::default() {
        return Moments { exponent: F::NONE, ..plain };
    }
    let exponent = F::exponent(largest);
    if F::is_special(largest) || exponent == 0 {
        return plain;
    }
    let scaled = &mut tile[..x.len()];
    scale_all(x, -exponent, scaled);
    Moments { exponent, ..plain_moments(c, scaled, mask, count) }
}

/// `to = from * 2^p`.
pub(super) fn scale_all<F: Real>(from: &[F], p: i32, to: &mut [F]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.scale(p);
    }
}
