//! What surrounds a norm, element by element: the functions of `docs/numerics.md`, and the pass that applies one to slices.
#![allow(clippy::needless_range_loop, reason = "several arrays are walked by one index")]

use super::isa::Operation;
use super::lanes::read;
use super::memory::{Ahead, Streaming};
use super::real::Real;
use super::simd::{BLOCK, Block, Numbers, Simd};
use super::stored::Stored;
use super::tanh::{bend, halves, held};
use std::marker::PhantomData;

/// `exp(-size)` as a number and a power of two, `size` being held at the limit.
#[inline(always)]
fn power_of<F: Real>(size: F) -> (F, F) {
    let a = held(F::HALF * size, F::HALF * F::SIGMOID_LIMIT);
    let (k, u) = halves(a);
    let power = F::power_left(u);
    let rho = (a + k * (F::HALF * F::LN2_HI)) + k * (F::HALF * F::LN2_LO);
    let p = rho - bend(rho);
    (F::ONE - F::TWO * p, power)
}

/// `1 / (1 + exp(-z))`, and the same of `-z`.
#[inline(always)]
fn sigmoids<F: Real>(z: F) -> (F, F) {
    let size = z.abs();
    let (e, power) = power_of(size);
    let near = F::HALF * (F::ONE / (F::HALF + (F::HALF * power) * e));
    let far = if size > F::SIGMOID_LIMIT { F::ZERO } else { (e * power) * near };
    if z < F::ZERO { (far, near) } else { (near, far) }
}

/// `z / (1 + exp(-z))`
#[inline(always)]
fn silu<F: Real>(z: F) -> F {
    z * sigmoids(z).0
}

/// Its derivative.
#[inline(always)]
fn silu_slope<F: Real>(z: F) -> F {
    let (s, other) = sigmoids(z);
    s * (F::ONE + z * other)
}

/// The normal distribution's share below `z`, and `exp(-z² / 2)`.
#[inline(always)]
fn normal<F: Real>(z: F) -> (F, F) {
    let size = held(z.abs(), F::NORMAL_LIMIT);
    let half_square = F::HALF * (size * size);
    let (e, power) = power_of(half_square);
    let bell = if half_square > F::SIGMOID_LIMIT { F::ZERO } else { e * power };
    let t = F::ONE / (F::ONE + F::of(0.3125) * size);
    let mut r = F::ZERO;
    for &c in F::TAIL {
        r = r * t + c;
    }
    let tail = bell * r;
    (if z < F::ZERO { tail } else { F::ONE - tail }, bell)
}

/// The exact GELU.
#[inline(always)]
fn gelu_exact<F: Real>(z: F) -> F {
    z * normal(z).0
}

/// Its derivative.
#[inline(always)]
fn gelu_exact_slope<F: Real>(z: F) -> F {
    let (below, bell) = normal(z);
    below + (z * bell) * F::of(0.398_942_280_401_432_7)
}

/// `z²`, held where GELU is 0 or `z`.
#[inline(always)]
fn held_square<F: Real>(z: F) -> F {
    held(z * z, F::of(1e4))
}

/// GELU by way of tanh.
#[inline(always)]
fn gelu<F: Real>(z: F) -> F {
    let [linear, cubic, _] = F::GELU;
    z * sigmoids(z * (linear + cubic * held_square(z))).0
}

/// Its derivative.
#[inline(always)]
fn gelu_slope<F: Real>(z: F) -> F {
    let [linear, cubic, steep] = F::GELU;
    let square = held_square(z);
    let (s, other) = sigmoids(z * (linear + cubic * square));
    s + (z * (s * other)) * (linear + steep * square)
}

/// A function of an element of each of two tensors, or of one that is named twice.
pub(super) trait OfElements<F: Real>: Copy {
    fn of(self, a: F, b: F) -> F;

    /// The same of blocks.
    #[inline(always)]
    fn of_blocks<S: Simd>(self, a: Block<S, F>, b: Block<S, F>) -> Block<S, F> {
        let (a, b, mut y) = (a.to_array(), b.to_array(), [F::ZERO; BLOCK]);
        for i in 0..BLOCK {
            y[i] = self.of(a[i], b[i]);
        }
        Block::<S, F>::load(&y)
    }
}

/// `a * first + b * second`: a product with 1 is none.
#[derive(Clone, Copy)]
pub(super) struct Sum<F> {
    pub(super) first: F,
    pub(super) second: F,
}

impl<F: Real> Sum<F> {
    /// `a + b`
    pub(super) const PLAIN: Self = Sum { first: F::ONE, second: F::ONE };
}

impl<F: Real> OfElements<F> for Sum<F> {
    #[inline(always)]
    fn of(self, a: F, b: F) -> F {
        a * self.first + b * self.second
    }
    #[inline(always)]
    fn of_blocks<S: Simd>(self, a: Block<S, F>, b: Block<S, F>) -> Block<S, F> {
        a * Block::<S, F>::splat(self.first) + b * Block::<S, F>::splat(self.second)
    }
}

/// `(a + b) * factor`
#[derive(Clone, Copy)]
pub(super) struct SumScaled<F>(pub(super) F);

impl<F: Real> OfElements<F> for SumScaled<F> {
    #[inline(always)]
    fn of(self, a: F, b: F) -> F {
        (a + b) * self.0
    }
    #[inline(always)]
    fn of_blocks<S: Simd>(self, a: Block<S, F>, b: Block<S, F>) -> Block<S, F> {
        (a + b) * Block::<S, F>::splat(self.0)
    }
}

/// `a * factor`
#[derive(Clone, Copy)]
pub(super) struct Scaled<F>(pub(super) F);

impl<F: Real> OfElements<F> for Scaled<F> {
    #[inline(always)]
    fn of(self, a: F, _: F) -> F {
        a * self.0
    }
    #[inline(always)]
    fn of_blocks<S: Simd>(self, a: Block<S, F>, _: Block<S, F>) -> Block<S, F> {
        a * Block::<S, F>::splat(self.0)
    }
}

macro_rules! of_elements {
    ($($(#[$doc:meta])+ $name:ident: |$a:ident, $b:ident| $value:expr;)+) => {
        $(
            $(#[$doc])+
            #[derive(Clone, Copy)]
            pub(super) struct $name;

            impl<F: Real> OfElements<F> for $name {
                #[inline(always)]
                fn of(self, $a: F, $b: F) -> F {
                    $value
                }
            }
        )+
    };
}

of_elements! {
    /// `a * silu(b)`
    Gated: |a, b| a * silu(b);
    /// `relu(a)`
    Relu: |a, _b| if a <= F::ZERO { F::ZERO } else { a };
    /// `relu'(b) a`
    ReluSlope: |a, b| if b <= F::ZERO { F::ZERO } else { a };
    /// `silu(a)`
    Silu: |a, _b| silu(a);
    /// `a * silu'(b)`
    SiluSlope: |a, b| a * silu_slope(b);
    /// `gelu(a)`, exactly
    Gelu: |a, _b| gelu_exact(a);
    /// `a * gelu'(b)`
    GeluSlope: |a, b| a * gelu_exact_slope(b);
    /// `gelu(a)` by way of tanh
    GeluTanh: |a, _b| gelu(a);
    /// `a * gelu'(b)`
    GeluTanhSlope: |a, b| a * gelu_slope(b);
}

/// `to = f(a, b)`, each rounded once, and the same to another place.
pub(super) struct Each<'a, O, A, B, V, W, F> {
    pub(super) f: O,
    pub(super) a: &'a [A],
    pub(super) b: &'a [B],
    pub(super) to: &'a mut [V],
    pub(super) also: Option<&'a mut [W]>,
    /// Leave to write the last of the two past the caches.
    pub(super) streamed: Option<Streaming>,
    pub(super) of: PhantomData<F>,
}

impl<O, A, B, V, W, F> Operation for Each<'_, O, A, B, V, W, F>
where
    O: OfElements<F>,
    A: Stored,
    B: Stored,
    V: Stored,
    W: Stored,
    F: Real,
{
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self) {
        let Each { f, a, b, to, mut also, streamed, .. } = self;
        let len = to.len();
        let whole = len - len % BLOCK;
        let (next_a, next_b) = (Ahead::of(a).after(len), Ahead::of(b).after(len));
        let streamed = match &also {
            Some(also) => streamed.and_then(|streaming| streaming.to(also)),
            None => streamed.and_then(|streaming| streaming.to(to)),
        };
        for at in (0..whole).step_by(BLOCK) {
            next_a.touch(at);
            next_b.touch(at);
            let (a, b) = (read::<S, true, A, F>(a, at, BLOCK), read::<S, true, B, F>(b, at, BLOCK));
            let y = f.of_blocks::<S>(a, b);
            let Some(also) = &mut also else {
                put::<S, V, F>(y, to, at, streamed);
                continue;
            };
            put::<S, V, F>(y, to, at, None);
            put::<S, W, F>(y, also, at, streamed);
        }
        for at in whole..len {
            let y = f.of(a[at].widen(), b[at].widen());
            to[at] = V::narrow(y);
            if let Some(also) = &mut also {
                also[at] = W::narrow(y);
            }
        }
    }
}

#[inline(always)]
fn put<S: Simd, T: Stored, F: Real>(
    block: Block<S, F>,
    to: &mut [T],
    at: usize,
    streamed: Option<Streaming>,
) {
    T::store::<S, F>(block, (&mut to[at..at + BLOCK]).try_into().expect("a block"), streamed);
}

/// `a * silu(z)` and `(a * b) * silu'(z)`: the gradients of both factors of `b * silu(z)`, of which `a` is the gradient.
pub(super) struct GateGradients<'a, F> {
    pub(super) a: &'a [F],
    pub(super) b: &'a [F],
    pub(super) z: &'a [F],
    pub(super) of_factor: &'a mut [F],
    pub(super) of_gate: &'a mut [F],
}

impl<F: Real> Operation for GateGradients<'_, F> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self) {
        let GateGradients { a, b, z, of_factor, of_gate } = self;
        let len = a.len();
        let (b, z) = (&b[..len], &z[..len]);
        let (of_factor, of_gate) = (&mut of_factor[..len], &mut of_gate[..len]);
        for i in 0..len {
            let (s, other) = sigmoids(z[i]);
            of_factor[i] = a[i] * (z[i] * s);
            of_gate[i] = (a[i] * b[i]) * (s * (F::ONE + z[i] * other));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest relative error over many numbers of both signs, in units of half an ulp of 1.
    fn worst<F: Real + Into<f64>>(
        unit: f64,
        limit: f64,
        f: impl Fn(F) -> F,
        exact: impl Fn(f64) -> f64,
    ) -> f64 {
        let mut worst = 0.0f64;
        for i in 1..400_000 {
            let z = F::of(f64::from(i) / 400_000.0 * limit * if i % 2 == 0 { 1.0 } else { -1.0 });
            let (found, exact) = (f(z).into(), exact(z.into()));
            worst = worst.max(((found - exact) / exact).abs() / unit);
        }
        worst
    }

    #[test]
    fn sigmoid_is_as_exact_as_the_numerics_say() {
        let sigmoid = |z: f64| if z < 0.0 { z.exp() / (1.0 + z.exp()) } else { 1.0 / (1.0 + (-z).exp()) };
        let unit = 2f64.powi(-24);
        let positive = worst(unit, 86.0, |z: f32| sigmoids(z.abs()).0, |z| sigmoid(z.abs()));
        let negative = worst(unit, 86.0, |z: f32| sigmoids(z.abs()).1, |z| sigmoid(-z.abs()));
        println!("sigmoid: {positive} and {negative} units");
        assert!(positive <= 2.0 && negative <= 4.0, "{positive} {negative}");
        let unit = 2f64.powi(-53);
        let both = worst(unit, 700.0, |z: f64| sigmoids(z).0, sigmoid);
        assert!(both <= 6.0, "{both}");
    }

    #[test]
    fn sigmoid_of_what_is_special() {
        assert_eq!(sigmoids(0.0f32), (0.5, 0.5));
        assert_eq!(sigmoids(f32::INFINITY), (1.0, 0.0));
        assert_eq!(sigmoids(-87.0f32), (0.0, 1.0));
        assert!(sigmoids(f32::NAN).0.is_nan() && silu(f32::NEG_INFINITY).is_nan());
        assert_eq!((silu(f32::INFINITY), gelu(1e30f32), gelu(-1e30f32)), (f32::INFINITY, 1e30, 0.0));
        assert_eq!((gelu_slope(1e30f32), gelu_slope(-1e30f32), silu_slope(-1e30f32)), (1.0, 0.0, 0.0));
    }

    #[test]
    fn slopes_are_those_of_the_functions() {
        for i in -400..400 {
            let (z, step) = (f64::from(i) * 0.031, 1e-6);
            for (f, slope) in [
                (silu as fn(f64) -> f64, silu_slope as fn(f64) -> f64),
                (gelu, gelu_slope),
                (gelu_exact, gelu_exact_slope),
            ] {
                let difference = (f(z + step) - f(z - step)) / (2.0 * step);
                assert!((difference - slope(z)).abs() < 1e-8, "{z}: {difference} {}", slope(z));
            }
        }
    }

    /// Against the series `1/2 + φ(z) (z + z³ / 3 + z⁵ / (3 * 5) + ...)`.
    #[test]
    fn the_normal_distribution_is_as_exact_as_the_numerics_say() {
        let exact = |z: f64| {
            let (mut sum, mut term, mut n) = (z, z, 1.0);
            while term.abs() > 1e-18 * sum.abs() {
                n += 2.0;
                term *= z * z / n;
                sum += term;
            }
            0.5 + sum * (-0.5 * z * z).exp() * 0.398_942_280_401_432_7
        };
        let mut worst = [0.0f64; 2];
        for i in -5000..=5000 {
            let z = f64::from(i) * 0.0025;
            let narrow = z as f32;
            worst[0] = worst[0].max((f64::from(normal(narrow).0) - exact(f64::from(narrow))).abs());
            worst[1] = worst[1].max((normal(z).0 - exact(z)).abs());
        }
        println!("normal: {worst:?}");
        assert!(worst[0] <= 2e-7 && worst[1] <= 2e-15, "{worst:?}");
        assert_eq!(
            (gelu_exact(f32::INFINITY), gelu_exact(1e30f32), gelu_exact(-1e30f32)),
            (f32::INFINITY, 1e30, 0.0)
        );
        assert_eq!((gelu_exact_slope(1e30f32), gelu_exact_slope(-1e30f32)), (1.0, 0.0));
        assert!(gelu_exact(f32::NAN).is_nan() && gelu_exact(0.0f32) == 0.0);
    }
}
