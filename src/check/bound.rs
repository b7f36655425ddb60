//! The bounds themselves.
//!
//! Elements of an output or of the input's gradient: four ulp of the row's largest `mag` in the arithmetic's own dtype
//! (of the element's own for methods without statistics); five in rows of fewer than four elements, where a result is the
//! last of some seven roundings and no other element of the row is large enough to set the scale. For 16-bit dtypes that
//! is added to one ulp of the result.
//! Parameter gradients: `(4 + log2 n) u Σ|terms|`, `u` being half the distance from 1 to the next number and `n` the
//! number of terms, and one ulp of the result where the parameter's dtype is narrower than the arithmetic's.
//!
//! The gradients of a branch's bias and scale are sums of what is itself a gradient of a norm, which may be off by four ulp
//! (five in short rows) of the largest `mag` of its row: their terms count as if each were that large, and ten more `u` are allowed.
//!
//! Where the result is a product with the value of a function, as with gates, the function's terms count beside those of what
//! it multiplies.
//!
//! NaN must meet NaN and infinity the same infinity. Where the exact result is finite but beyond the dtype, infinity is
//! right, and just below that point an infinity is judged as if it were the first power of two out of range.

use super::case::Case;
use super::execute::Computed;
use super::judge::Quantity;
use crate::oracle::{Expected, Index, Real, power_of_two, round};
use crate::spec::Spec;
use crate::tensor::DType;

/// What errors are measured by.
pub(super) struct Bound<'a> {
    pub(super) case: &'a Case,
    pub(super) spec: &'a Spec,
    /// The device may take subnormal numbers for zero.
    pub(super) flushes: bool,
}

/// One element's error, what it may be, and the unit to report it in.
struct Judged {
    error: f64,
    bound: f64,
    unit: f64,
}

impl Bound<'_> {
    /// Whether rows are too short for the bound of others.
    fn is_short(&self) -> bool {
        matches!(self.spec, Spec::Norm(_)) && self.spec.cols() < 4
    }

    /// Judges a tensor of the input's shape; `index` says where in it the rows' elements are.
    pub(super) fn elements<R: Real>(
        &self,
        expected: &Expected<R>,
        actual: &Computed,
        index: &Index,
    ) -> Quantity {
        let (dtype, arithmetic) = (actual.dtype, actual.dtype.compute());
        let largest: Vec<f64> = match self.spec {
            Spec::Norm(_) => expected.mag.rows().into_iter().map(|row| largest_finite(row.iter())).collect(),
            Spec::Pointwise(_) => Vec::new(),
        };
        let allowed = if self.is_short() { 5.0 } else { 4.0 };
        let mut nearest = Share::default();
        let mut quantity = self.worst(actual, expected.mag.dim(), |(i, j)| {
            let value = &expected.value[(i, j)];
            let mag = largest
                .get(i)
                .copied()
                .unwrap_or_else(|| largest_finite([&expected.mag[(i, j)]].into_iter()));
            let of_mag = round::ulp(arithmetic, mag);
            let slack = expected.slack[(i, j)];
            let (unit, bound) = if dtype == arithmetic {
                (of_mag, allowed * of_mag)
            } else {
                let of_result = round::ulp(dtype, finite(value.to_f64()));
                (of_result.max(of_mag), of_result + allowed * of_mag)
            };
            let computed = actual.values[index.at((i, j))];
            if slack == 0.0 {
                nearest.count(computed == round::round(dtype, value.to_f64()));
            }
            Judged { error: distance(*value, computed, dtype), bound: bound + slack + self.flushed(1), unit }
        });
        quantity.rounded = nearest.of(self.case.well_conditioned && dtype != arithmetic);
        quantity
    }

    /// Judges a parameter's gradient, the sum of `terms` terms.
    pub(super) fn sums<R: Real>(&self, expected: &Expected<R>, actual: &Computed, terms: usize) -> Quantity {
        self.sums_within(4.0, expected, actual, terms)
    }

    /// The same where the terms are made of gradients of a norm.
    pub(super) fn sums_of_gradients<R: Real>(
        &self,
        expected: &Expected<R>,
        actual: &Computed,
        terms: usize,
    ) -> Quantity {
        self.sums_within(14.0, expected, actual, terms)
    }

    fn sums_within<R: Real>(
        &self,
        most: f64,
        expected: &Expected<R>,
        actual: &Computed,
        terms: usize,
    ) -> Quantity {
        let arithmetic = self.case.dtype.compute();
        let factor = most + (terms.max(1) as f64).log2();
        // A product that underflows is off by up to the smallest number, whatever its size.
        let underflow = terms as f64 * round::ulp(arithmetic, 0.0);
        self.worst(actual, expected.mag.dim(), |at| {
            let unit = largest_finite([&expected.mag[at]].into_iter()) * round::ulp(arithmetic, 1.0) / 2.0;
            let value = expected.value[at];
            let narrowing = match actual.dtype == arithmetic {
                true => 0.0,
                false => round::ulp(actual.dtype, finite(value.to_f64())),
            };
            let bound = factor * unit + underflow + narrowing + expected.slack[at] + self.flushed(terms);
            let unit = unit.max(narrowing);
            Judged { error: distance(value, actual.values[at.1], actual.dtype), bound, unit }
        })
    }

    /// What may be lost by taking `count` subnormal numbers for zero.
    fn flushed(&self, count: usize) -> f64 {
        if self.flushes { count as f64 * power_of_two(-126) } else { 0.0 }
    }

    fn worst(
        &self,
        actual: &Computed,
        (rows, cols): (usize, usize),
        mut judge: impl FnMut((usize, usize)) -> Judged,
    ) -> Quantity {
        let mut quantity = Quantity {
            name: actual.name,
            worst: 0.0,
            ulp: 0.0,
            rounded: None,
            at: None,
            guards_intact: actual.guards_intact,
        };
        for at in (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))) {
            let Judged { error, bound, unit } = judge(at);
            if error == 0.0 {
                continue;
            }
            // A comparison with a missing number is a failure, not a pass.
            let share = if (error / bound).is_nan() { f64::INFINITY } else { error / bound };
            if share > quantity.worst {
                (quantity.worst, quantity.at) = (share, Some(at));
            }
            quantity.ulp = quantity.ulp.max(if unit > 0.0 { error / unit } else { 0.0 });
        }
        quantity
    }
}

/// How many of those counted were right.
#[derive(Default)]
struct Share {
    right: usize,
    all: usize,
}

impl Share {
    fn count(&mut self, right: bool) {
        self.right += usize::from(right);
        self.all += 1;
    }

    fn of(&self, wanted: bool) -> Option<f64> {
        (wanted && self.all > 0).then(|| self.right as f64 / self.all as f64)
    }
}

/// The largest of the finite numbers, or zero.
fn largest_finite<'a>(numbers: impl Iterator<Item = &'a f64>) -> f64 {
    numbers.copied().filter(|x| x.is_finite()).fold(0.0, f64::max)
}

fn finite(x: f64) -> f64 {
    if x.is_finite() { x } else { 0.0 }
}

/// How far `actual` is from `expected`; infinity where one of them is not a number and the other is.
fn distance<R: Real>(expected: R, actual: f64, dtype: DType) -> f64 {
    let nearest = expected.to_f64();
    if nearest.is_nan() || actual.is_nan() {
        return if nearest.is_nan() && actual.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if nearest.is_infinite()
        || actual.is_infinite() && nearest.is_sign_negative() != actual.is_sign_negative()
    {
        return if actual == nearest { 0.0 } else { f64::INFINITY };
    }
    if actual.is_infinite() {
        return (round::overflow(dtype) - nearest.abs()).max(0.0);
    }
    (R::new(actual) - expected).abs().to_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn special_values_must_meet() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        for (expected, actual, distance_is) in [
            (nan, nan, 0.0),
            (nan, 1.0, inf),
            (1.0, nan, inf),
            (inf, inf, 0.0),
            (inf, -inf, inf),
            (inf, f64::from(f32::MAX), inf),
            (1e39, inf, 0.0),
            (-1e39, inf, inf),
            (1.5, 1.0, 0.5),
            (0.0, -0.0, 0.0),
        ] {
            assert_eq!(distance(expected, actual, DType::F32), distance_is, "{expected} {actual}");
        }
        // The largest float32, computed as infinity, is one ulp off.
        assert_eq!(distance(f64::from(f32::MAX), inf, DType::F32), 2f64.powi(104));
    }

    fn judged(dtype: DType, value: f64, mag: f64, actual: f64) -> Quantity {
        let mut case = Case::new("layer_norm", dtype, &[1, 4]);
        case.well_conditioned = true;
        let spec = case.lower().unwrap();
        let bound = Bound { case: &case, spec: &spec, flushes: false };
        let row = |x: f64| array![[x, x, x, x]];
        let expected = Expected { value: row(value), mag: row(mag), slack: row(0.0) };
        let computed = Computed { name: "output", dtype, values: vec![actual; 4], guards_intact: true };
        bound.elements(&expected, &computed, &Index::of_elements(&spec))
    }

    #[test]
    fn four_ulp_of_mag_are_allowed_and_five_are_not() {
        let ulp = f64::from(f32::EPSILON);
        assert_eq!(judged(DType::F32, 0.5, 1.0, 0.5 + 4.0 * ulp).worst, 1.0);
        assert_eq!(judged(DType::F32, 0.5, 1.0, 0.5 + 5.0 * ulp).worst, 1.25);
        assert_eq!(judged(DType::F32, 0.5, 1.0, 0.5 + 5.0 * ulp).ulp, 5.0);
        assert_eq!(judged(DType::F64, 0.5, 1.0, 0.5 + 8.0 * f64::EPSILON).worst, 2.0);
        assert!(!judged(DType::F32, 0.5, 1.0, f64::NAN).passed());
    }

    #[test]
    fn sixteen_bit_results_may_be_one_ulp_off_but_rarely() {
        let ulp = 2f64.powi(-8);
        let off = judged(DType::BF16, 0.5, 0.5, 0.5 + ulp);
        assert!(off.worst < 1.0 && off.rounded == Some(0.0) && !off.passed());
        assert!(judged(DType::BF16, 0.5, 0.5, 0.5 + 2.0 * ulp).worst > 1.0);
        assert_eq!(judged(DType::BF16, 0.5, 0.5, 0.5).rounded, Some(1.0));
    }
}
