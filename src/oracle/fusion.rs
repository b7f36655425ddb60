//! What surrounds a norm: the value that is normalized, and what becomes of the result.

use super::Index;
use super::real::Real;
use crate::spec::{Activation, Dropout, Epilogue, Fusion, Prologue, RotaryStyle, Spec};

/// A number, and the same expression with every term replaced by its absolute value.
#[derive(Clone, Copy)]
pub(super) struct Sized<R> {
    pub(super) value: R,
    pub(super) mag: f64,
}

impl<R: Real> Sized<R> {
    pub(super) fn new(value: R) -> Self {
        Sized { value, mag: value.abs().to_f64() }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Sized { value: self.value + other.value, mag: self.mag + other.mag }
    }

    pub(super) fn times(self, other: Self) -> Self {
        Sized { value: self.value * other.value, mag: self.mag * other.mag }
    }

    /// Times the value of a function, which is as inexact in itself as what it multiplies: its terms count beside.
    fn times_function(self, other: Self) -> Self {
        let mag = (self.mag + self.value.abs().to_f64()) * other.mag;
        Sized { value: self.value * other.value, mag }
    }
}

/// `1 / (1 + exp(-z))` and the same of `-z`.
fn sigmoid<R: Real>(z: R) -> (R, R) {
    let (one, e) = (R::new(1.0), (-z.abs()).exp());
    let (near, far) = (one / (one + e), e / (one + e));
    if z.to_f64() < 0.0 { (far, near) } else { (near, far) }
}

/// `z * sigmoid(z)`
fn silu<R: Real>(z: R) -> Sized<R> {
    Sized::new(z * sigmoid(z).0)
}

/// `sigmoid(z) * (1 + z * sigmoid(-z))`
fn silu_slope<R: Real>(z: R) -> Sized<R> {
    let ((s, other), one) = (sigmoid(z), R::new(1.0));
    Sized { value: s * (one + z * other), mag: (s * (one + z.abs() * other)).to_f64() }
}

/// `2 sqrt(2 / π)`, and 0.044715 of that.
const GELU: [f64; 2] = [1.595_769_121_605_730_7, 0.071_354_816_272_600_25];

/// What `z` is multiplied by to give the argument of GELU's sigmoid, and the slope of the product. Beyond 100 the
/// sigmoid is 0 or 1.
fn gelu_argument<R: Real>(z: R) -> (R, R) {
    let square = z * z;
    let square = if square.to_f64() > 1e4 { R::new(1e4) } else { square };
    let [linear, cubic] = GELU.map(R::new);
    (linear + cubic * square, linear + R::new(3.0) * cubic * square)
}

/// Which elements of the input dropout keeps.
pub(super) struct Kept(Option<(Dropout, Index)>);

impl Kept {
    pub(super) fn of(spec: &Spec) -> Self {
        Kept(spec.fusion().dropout.map(|dropout| (dropout, Index::of_elements(spec))))
    }

    fn holds(&self, at: (usize, usize)) -> bool {
        self.0.as_ref().is_none_or(|(dropout, index)| dropout.keeps(index.at(at) as u64))
    }

    /// What a residual and the input are multiplied by, the latter at this place.
    fn scales(&self, fusion: &Fusion, at: (usize, usize)) -> [f64; 2] {
        let [input, residual] = fusion.scales();
        [if self.holds(at) { input } else { 0.0 }, residual]
    }
}

/// The input with the branch's bias `c`, 0 where dropout leaves it out.
fn shifted<R: Real>(kept: &Kept, at: (usize, usize), x: Sized<R>, bias: Option<R>) -> Sized<R> {
    if !kept.holds(at) {
        return Sized::new(R::new(0.0));
    }
    bias.map_or(x, |bias| x.plus(Sized::new(bias)))
}

/// A branch's scale, or 1.
fn scale_of<R: Real>([_, scale]: [Option<R>; 2]) -> Sized<R> {
    Sized::new(scale.unwrap_or(R::new(1.0)))
}

/// What is normalized. Without its other operand a residual has been added already.
///
/// ```text
/// residual:   h = input_scale * s * u + residual_scale * r      u = x + c, where dropout leaves it out 0
/// gate:       h = x * silu(z)
/// ```
pub(super) fn hidden<R: Real>(
    fusion: &Fusion,
    kept: &Kept,
    at: (usize, usize),
    x: Sized<R>,
    branch: [Option<R>; 2],
    other: Option<R>,
) -> Sized<R> {
    match (fusion.prologue, other) {
        (Prologue::Residual { .. }, Some(r)) => {
            let [a, b] = kept.scales(fusion, at).map(|scale| Sized::new(R::new(scale)));
            let u = shifted(kept, at, x, branch[0]);
            a.times(scale_of(branch)).times(u).plus(b.times(Sized::new(r)))
        }
        (Prologue::Gate, Some(z)) => x.times_function(silu(z)),
        _ => x,
    }
}

/// The gradients of `x` and of the other operand, `d` being that of the hidden value: with a residual
///
/// ```text
/// grad_input = s * D, D = input_scale * d      0 where dropout leaves it out
/// ```
pub(super) fn hidden_gradients<R: Real>(
    fusion: &Fusion,
    kept: &Kept,
    at: (usize, usize),
    x: R,
    branch: [Option<R>; 2],
    other: Option<R>,
    d: Sized<R>,
) -> (Sized<R>, Sized<R>) {
    match (fusion.prologue, other) {
        (Prologue::Residual { .. }, _) => {
            let [a, b] = kept.scales(fusion, at).map(|scale| Sized::new(R::new(scale)));
            let of_input = if kept.holds(at) { d.times(a) } else { Sized::new(R::new(0.0)) };
            (of_input.times(scale_of(branch)), d.times(b))
        }
        (Prologue::Gate, Some(z)) => {
            (d.times_function(silu(z)), d.times(Sized::new(x)).times_function(silu_slope(z)))
        }
        _ => (d, Sized::new(R::new(0.0))),
    }
}

/// What an element adds to the gradients of its branch's bias and scale; none where dropout leaves it out.
///
/// ```text
/// grad_bias = Σ s * D        grad_scale = Σ D * (x + c)
/// ```
pub(super) fn branch_terms<R: Real>(
    fusion: &Fusion,
    kept: &Kept,
    at: (usize, usize),
    x: R,
    branch: [Option<R>; 2],
    d: Sized<R>,
) -> [Sized<R>; 2] {
    let [a, _] = kept.scales(fusion, at).map(|scale| Sized::new(R::new(scale)));
    let of_shifted = if kept.holds(at) { d.times(a) } else { Sized::new(R::new(0.0)) };
    [of_shifted.times(scale_of(branch)), of_shifted.times(shifted(kept, at, Sized::new(x), branch[0]))]
}

/// The output, of a value `v`.
///
/// ```text
/// activation: y = f(v)        residual: y = r + v        gate: y = v * silu(z)
/// ```
pub(super) fn output<R: Real>(epilogue: Epilogue, v: Sized<R>, other: Option<R>) -> Sized<R> {
    match (epilogue, other) {
        (Epilogue::Activation(activation), _) => {
            let value = activate(activation, v.value);
            // No slope is above 1.13: what is off in v is off by hardly more in the output, beside its own roundings.
            Sized { value, mag: v.mag + value.abs().to_f64() }
        }
        (Epilogue::Residual, Some(r)) => v.plus(Sized::new(r)),
        (Epilogue::Gate, Some(z)) => v.times_function(silu(z)),
        _ => v,
    }
}

/// The gradients of `v` and of the other operand, `g` being that of the output.
pub(super) fn output_gradients<R: Real>(
    epilogue: Epilogue,
    v: Sized<R>,
    other: Option<R>,
    g: Sized<R>,
) -> (Sized<R>, Sized<R>) {
    let zero = Sized::new(R::new(0.0));
    match (epilogue, other) {
        // The function cuts the gradient off, whatever it is.
        (Epilogue::Activation(Activation::Relu), _) if v.value.to_f64() <= 0.0 => (zero, zero),
        (Epilogue::Activation(activation), _) => (g.times_function(slope(activation, v)), zero),
        (Epilogue::Residual, _) => (g, g),
        (Epilogue::Gate, Some(z)) => (g.times_function(silu(z)), g.times(v).times_function(silu_slope(z))),
        _ => (g, zero),
    }
}

/// A rotary embedding by one row's angles.
///
/// ```text
/// y_first = v_first * cos - v_second * sin        y_second = v_second * cos + v_first * sin
/// ```
pub(super) struct Rotation<R> {
    pub(super) style: RotaryStyle,
    pub(super) cos: Vec<R>,
    pub(super) sin: Vec<R>,
}

impl<R: Real> Rotation<R> {
    /// Of the values of a row.
    pub(super) fn forth(&self, v: &mut [Sized<R>]) {
        self.turn(v, R::new(1.0));
    }

    /// By the opposite angles: of the gradients of a row.
    pub(super) fn back(&self, g: &mut [Sized<R>]) {
        self.turn(g, R::new(-1.0));
    }

    /// How far off the results may be, where the values may be off as far as this.
    pub(super) fn spread(&self, slack: &mut [f64]) {
        for (i, (cos, sin)) in self.cos.iter().zip(&self.sin).enumerate() {
            let (first, second) = self.pair(i);
            let (a, b, cos, sin) = (slack[first], slack[second], cos.abs().to_f64(), sin.abs().to_f64());
            if a + b > 0.0 {
                (slack[first], slack[second]) = (a * cos + b * sin, b * cos + a * sin);
            }
        }
    }

    fn pair(&self, i: usize) -> (usize, usize) {
        match self.style {
            RotaryStyle::HalfSplit => (i, i + self.cos.len()),
            RotaryStyle::Interleaved => (2 * i, 2 * i + 1),
        }
    }

    fn turn(&self, v: &mut [Sized<R>], sign: R) {
        for (i, (&cos, &sin)) in self.cos.iter().zip(&self.sin).enumerate() {
            let (first, second) = self.pair(i);
            let (a, b) = (v[first], v[second]);
            let [cos, sin, opposite] = [cos, sin * sign, -(sin * sign)].map(Sized::new);
            v[first] = a.times(cos).plus(b.times(opposite));
            v[second] = b.times(cos).plus(a.times(sin));
        }
    }
}

/// Whether rounding may have put `v` on the other side of a kink.
pub(super) fn is_at_kink<R: Real>(epilogue: Epilogue, v: Sized<R>, unit: f64) -> bool {
    epilogue == Epilogue::Activation(Activation::Relu) && v.value.abs().to_f64() <= 8.0 * unit * v.mag
}

/// The normal distribution's share below `z`, and its density, as far as a number beside 1 can tell.
fn normal<R: Real>(z: R) -> (R, R) {
    // π in two parts.
    let pi = R::new(std::f64::consts::PI) + R::new(1.224_646_799_147_353_2e-16);
    let (size, half) = (z.abs(), R::new(0.5));
    let density = (-(half * z * z)).exp() / (R::new(2.0) * pi).sqrt();
    // z + z³ / 3 + z⁵ / (3 * 5) + ...
    let (mut sum, mut term, mut n) = (size, size, 1.0);
    while n < 2000.0 && term.to_f64() > 1e-36 * sum.to_f64() {
        n += 2.0;
        term = term * z * z / R::new(n);
        sum = sum + term;
    }
    let inside = if size.to_f64() < 13.0 { density * sum } else { half };
    (if z.to_f64() < 0.0 { half - inside } else { half + inside }, density)
}

fn activate<R: Real>(activation: Activation, v: R) -> R {
    match activation {
        Activation::Relu if v.to_f64() <= 0.0 => R::new(0.0),
        Activation::Relu => v,
        Activation::Silu => v * sigmoid(v).0,
        Activation::Gelu => v * normal(v).0,
        Activation::GeluTanh => v * sigmoid(v * gelu_argument(v).0).0,
    }
}

/// The derivative at `v`; its `mag` has the error that `v` brings along, by the largest curvature.
fn slope<R: Real>(activation: Activation, v: Sized<R>) -> Sized<R> {
    match activation {
        Activation::Relu => Sized::new(R::new(1.0)),
        Activation::Silu => {
            let Sized { value, mag } = silu_slope(v.value);
            Sized { value, mag: mag + 0.5 * v.mag }
        }
        Activation::Gelu => {
            let (below, density) = normal(v.value);
            let bent = v.value * density;
            Sized { value: below + bent, mag: below.to_f64() + bent.abs().to_f64() + 0.8 * v.mag }
        }
        Activation::GeluTanh => {
            let (factor, growth) = gelu_argument(v.value);
            let (s, other) = sigmoid(v.value * factor);
            let bent = v.value * (s * other) * growth;
            Sized { value: s + bent, mag: s.to_f64() + bent.abs().to_f64() + 0.8 * v.mag }
        }
    }
}
