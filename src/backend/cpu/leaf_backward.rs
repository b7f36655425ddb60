//! Sums of one leaf of gradients, as `docs/numerics.md` defines them.

use super::elementwise::{Factor, Form};
use super::lanes::{Terms, TreeSums, read};
use super::leaf::{largest, masked, takes_part};
use super::real::Real;
use super::simd::{Block, Simd};
use super::statistics::{Constants, Measure, Statistics, Sums};
use super::stored::Stored;

/// `ghat` and `ghat * x_hat`.
pub(super) struct GradientTerms<'a, T, F> {
    pub(super) g: &'a [T],
    pub(super) x: &'a [T],
    pub(super) w: Factor<'a, F>,
    pub(super) mask: Option<&'a [F]>,
    pub(super) s: Statistics<F>,
}

impl<T: Stored, F: Real, const CENTRED: bool> Terms<F, 2> for Form<GradientTerms<'_, T, F>, CENTRED> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.g.len()
    }
    #[inline(always)]
    fn terms<S: Simd, const WHOLE: bool>(&mut self, at: usize, len: usize) -> [Block<S, F>; 2] {
        let Form(GradientTerms { g, x, w, mask, s }) = self;
        let ghat = w.times::<S, WHOLE>(at, len, read::<S, WHOLE, T, F>(g, at, len));
        let hat = s.normalized::<S, CENTRED>(read::<S, WHOLE, T, F>(x, at, len));
        masked::<S, WHOLE, F, 2>(*mask, at, len, [ghat, ghat * hat])
    }
}

/// The operands of a leaf of gradients; `x` is read with the row's exponent already.
#[derive(Clone, Copy)]
pub(super) struct Gradients<'a, F> {
    pub(super) g: &'a [F],
    pub(super) x: &'a [F],
    /// The weight, if it varies in the row.
    pub(super) w: Factor<'a, F>,
    pub(super) mask: Option<&'a [F]>,
    /// How many of the elements the statistic sees.
    pub(super) seen: usize,
}

impl<F: Real> Gradients<'_, F> {
    /// Whether some `ghat` is large enough that products of it keep their digits.
    fn any_large(&self) -> bool {
        let least = F::WEIGHT_LIMIT.recip().magnitude();
        (0..self.g.len()).filter(|&i| takes_part(self.mask, i)).any(|i| {
            let ghat = self.w.at(i).map_or(self.g[i], |w| self.g[i] * w);
            ghat.magnitude() >= least
        })
    }
}

/// The sums of a leaf of gradients. `tile` is scratch.
pub(super) fn sums<F: Real>(
    c: &Constants<F>,
    leaf: Gradients<'_, F>,
    s: Statistics<F>,
    tile: &mut [F],
) -> Sums<F> {
    let Gradients { g, x, w, mask, seen } = leaf;
    let count = match mask {
        None => seen,
        Some(mask) => mask[..seen].iter().filter(|m| **m != F::ZERO).count(),
    };
    let ties = if c.measure == Measure::Largest {
        (0..g.len()).filter(|&i| takes_part(mask, i) && x[i].abs() == s.mean).count()
    } else {
        0
    };
    let [s1, s2] = plain_sums(c, c.lanes, GradientTerms { g, x, w, mask, s });
    let count = F::of(count as f64);
    let sums = Sums { count, s1, s2, ties: F::of(ties as f64), g_exponent: 0, w_exponent: 0 };
    if is_regular([s1, s2], F::of(g.len() as f64)) || is_in_range([s1, s2]) && leaf.any_large() {
        return sums;
    }
    let zero = F::Bits::default();
    let most_g = largest(g, mask);
    let most_w = match w {
        Factor::Absent => F::ONE.magnitude(),
        Factor::One(w) => w.magnitude(),
        Factor::Each(w, offset) => (0..w.len())
            .filter(|&i| takes_part(mask, i))
            .fold(zero, |most, i| most.max(Factor::offset(w[i], offset).magnitude())),
    };
    let is_infinite = |bits: F::Bits| bits > F::MAX.magnitude();
    if is_infinite(most_g) || is_infinite(most_w) {
        return sums;
    }
    if most_g == zero || most_w == zero {
        return Sums { g_exponent: F::NONE, ..sums };
    }
    let inner = !matches!(w, Factor::Absent);
    let (g_exponent, w_exponent) = (F::exponent(most_g), if inner { F::exponent(most_w) } else { 0 });
    let ghat = &mut tile[..g.len()];
    scaled_ghat(g, w, g_exponent, w_exponent, ghat);
    let terms = GradientTerms { g: ghat, x, w: Factor::Absent, mask, s };
    let [s1, s2] = plain_sums(c, c.lanes, terms);
    Sums { s1, s2, g_exponent, w_exponent, ..sums }
}

/// `to = scale(g, -g_exponent) * scale(w', -w_exponent)`.
pub(super) fn scaled_ghat<F: Real>(
    g: &[F],
    w: Factor<'_, F>,
    g_exponent: i32,
    w_exponent: i32,
    to: &mut [F],
) {
    for (i, (to, g)) in to.iter_mut().zip(g).enumerate() {
        let g = g.scale(-g_exponent);
        *to = match w.at(i) {
            None => g,
            Some(w) => g * w.scale(-w_exponent),
        };
    }
}

/// `s1` and `s2`, added in so many lanes.
pub(super) fn plain_sums<T: Stored, F: Real>(
    c: &Constants<F>,
    lanes: usize,
    terms: GradientTerms<'_, T, F>,
) -> [F; 2] {
    if c.is_centred() {
        c.isa.run(TreeSums::new(lanes, Form::<_, true>(terms)))
    } else {
        c.isa.run(TreeSums::new(lanes, Form::<_, false>(terms)))
    }
}

/// Whether a leaf's sums have not overflown.
#[inline(always)]
fn is_in_range<F: Real>([s1, s2]: [F; 2]) -> bool {
    s1.abs() < F::SUM_LIMIT && s2.abs() < F::SUM_LIMIT
}

/// Whether a leaf of `count` terms is regular, as far as its sums tell: a mean of that size has a term of at least half of
/// it. Where terms cancel, they have to be looked at, see [`Gradients::any_large`].
#[inline(always)]
pub(super) fn is_regular<F: Real>([s1, s2]: [F; 2], count: F) -> bool {
    is_in_range([s1, s2]) && s1.abs() >= count * (F::TWO * F::WEIGHT_LIMIT.recip())
}
