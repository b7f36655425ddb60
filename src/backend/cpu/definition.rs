//! `docs/numerics.md` once more, element by element and without a thought for speed: what the kernels are compared with.

use crate::plan::tree::{LEAF, lanes};
use crate::tensor::{HostTensor, Tensor};
use crate::{LayerNorm, Method, norm::steps};

/// `[count, mean, correction, m2, exponent]`
type Moments = [f32; 5];

const NONE: f32 = -1000.0;

fn scale(x: f32, p: f32) -> f32 {
    let p = p.clamp(-378.0, 378.0) as i32;
    let (p1, p2) = (p.clamp(-126, 126), (p - p.clamp(-126, 126)).clamp(-126, 126));
    x * 2f32.powi(p1) * 2f32.powi(p2) * 2f32.powi(p - p1 - p2)
}

fn halve(mut lanes: Vec<f32>) -> f32 {
    while lanes.len() > 1 {
        let upper = lanes.split_off(lanes.len() / 2);
        lanes.iter_mut().zip(upper).for_each(|(low, high)| *low += high);
    }
    lanes[0]
}

fn tree(terms: impl Iterator<Item = f32>, lanes: usize) -> f32 {
    let mut sums = vec![0f32; lanes];
    terms.enumerate().for_each(|(i, term)| sums[i % lanes] += term);
    halve(sums)
}

fn bits(x: f32) -> u32 {
    x.abs().to_bits()
}

fn leaf_as_given(x: &[f32], lanes: usize) -> Moments {
    let q = 32.min(1 << x.len().ilog2());
    let inv = 1.0 / x.len() as f32;
    let mut k = halve(x[..q].to_vec()) * (1.0 / q as f32);
    let mut rounds = 0;
    loop {
        let s1 = tree(x.iter().map(|x| x - k), lanes);
        let s2 = tree(x.iter().map(|x| (x - k) * (x - k)), lanes);
        let c = s1 * inv;
        let p = s1 * c;
        if bits(4.0 * p) <= bits(s2) {
            let (mean, correction) = two_sum(k, c);
            return [x.len() as f32, mean, correction, s2 - p, 0.0];
        }
        if rounds == 1 {
            let m2 = tree(x.iter().map(|x| ((x - k) - c) * ((x - k) - c)), lanes);
            let (mean, correction) = two_sum(k, c);
            return [x.len() as f32, mean, correction, m2, 0.0];
        }
        k += c;
        rounds += 1;
    }
}

fn leaf(x: &[f32], lanes: usize) -> Moments {
    let plain = leaf_as_given(x, lanes);
    let v = bits(plain[3] * (1.0 / x.len() as f32));
    if (bits(2f32.powi(-80))..=bits(2f32.powi(100))).contains(&v) {
        return plain;
    }
    let largest = x.iter().map(|&x| bits(x)).max().expect("elements");
    if largest == 0 {
        return [plain[0], plain[1], plain[2], plain[3], NONE];
    }
    let exponent = (largest >> 23) as f32 - 127.0;
    if largest >= f32::INFINITY.to_bits() || exponent == 0.0 {
        return plain;
    }
    let scaled: Vec<f32> = x.iter().map(|&x| scale(x, -exponent)).collect();
    let [count, mean, correction, m2, _] = leaf_as_given(&scaled, lanes);
    [count, mean, correction, m2, exponent]
}

fn merge(a: Moments, b: Moments) -> Moments {
    let exponent = a[4].max(b[4]);
    let at = |m: Moments| {
        let by = if m[4] == NONE { 0.0 } else { m[4] - exponent };
        [m[0], scale(m[1], by), scale(m[2], by), scale(m[3], 2.0 * by)]
    };
    let (a, b) = (at(a), at(b));
    let r = b[0] * (1.0 / (a[0] + b[0]));
    let d = (b[1] - a[1]) + (b[2] - a[2]);
    let t = d * r;
    let m2 = (a[3] + b[3]) + (d * t) * a[0];
    let (mean, correction) = two_sum(a[1], a[2] + t);
    [a[0] + b[0], mean, correction, m2, exponent]
}

fn two_sum(x: f32, y: f32) -> (f32, f32) {
    let s = x + y;
    let z = s - x;
    (s, (x - (s - z)) + (y - z))
}

/// Split at the largest power of two below the number of leaves.
fn pairwise(leaves: &[Moments]) -> Moments {
    match leaves {
        [leaf] => *leaf,
        _ => {
            let p = leaves.len().next_power_of_two() / 2;
            merge(pairwise(&leaves[..p]), pairwise(&leaves[p..]))
        }
    }
}

#[test]
#[allow(irrefutable_let_patterns, reason = "without other backends there is no other variant")]
fn moments_are_those_of_the_definition() {
    /// An element from noise, its index and the row's length.
    type Element = fn(f32, usize, usize) -> f32;
    let noise = |i: usize| ((i * 7919 % 1009) as f32 - 500.0) * 1.37e-3;
    let rows: [(&str, Element); 9] = [
        ("noise", |x, _, _| x),
        ("far from zero", |x, _, _| 1e4 + x),
        ("rising", |x, i, n| 1e-3 * x + i as f32 / n as f32),
        ("an outlier at first", |x, i, _| if i == 0 { 1e6 } else { x }),
        ("constant", |_, _, _| 3.3),
        ("a step below an ulp of the mean", |_, i, _| if i.is_multiple_of(2) { 1e7 } else { 1e7 + 1.0 }),
        ("tiny and huge leaves", |x, i, _| if (i / LEAF).is_multiple_of(2) { 1e-30 * x } else { 1e30 * x }),
        ("zeros first", |x, i, _| if i < 2 * LEAF { 0.0 } else { x }),
        ("infinite", |x, i, _| if i == 40 { f32::INFINITY } else { x }),
    ];
    for (name, value) in rows {
        for n in [1, 2, 3, 31, 33, 64, 200, 257, 2048, 2049, 4096, 4097, 13_000, 40_000] {
            let row: Vec<f32> = (0..n).map(|i| value(noise(i), i, n)).collect();
            let leaves: Vec<Moments> = row.chunks(LEAF).map(|x| leaf(x, lanes(n))).collect();
            let expected = pairwise(&leaves);
            let input = HostTensor::from_vec(row, &[1, n]).expect("a row");
            let method = LayerNorm::new([n]);
            let found = steps::moments(&method, &input).expect("moments");
            let crate::DeviceTensor::Host(found) = found else { panic!("a tensor of the host") };
            assert_eq!(method.name(), "layer_norm");
            assert_eq!(found.view().expect("a view").shape(), [1, 5]);
            for (what, (found, expected)) in found.to_f64().iter().zip(expected).enumerate() {
                let (found, expected) = (*found as f32, expected);
                let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
                assert!(same, "{name}, {n} elements: number {what} is {found:e}, defined as {expected:e}");
            }
        }
    }
}
