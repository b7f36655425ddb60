//! Steps on the hypersphere in one pass: the bits of their parts where those lose nothing, one rounding in 16 bits, rows that stay
//! what they are in any company.

mod common;
#[path = "common/hyperspheres.rs"]
mod hyperspheres;

use common::devices;
use hyperspheres::Laid;
use normkit::backend::cpu::Cpu;
use normkit::check::{ANY_SPEC, Effort, cases};
use normkit::norm::{HypersphereGradients, HypersphereStep};
use normkit::prelude::*;
use normkit::tensor::DType;
use normkit::{DeviceTensor, Stream, Workspace};

fn tensor(shape: &[usize], phase: f64, dtype: DType) -> HostTensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|i| 2.0 * common::wave(i, phase)).collect();
    HostTensor::from_f64(&values, shape, dtype).unwrap()
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|x| if x.is_nan() { u64::MAX } else { x.to_bits() }).collect()
}

fn bits_of(tensor: &DeviceTensor) -> Vec<u64> {
    bits(&tensor.read().unwrap().to_f64())
}

/// Operands of a call, of made-up numbers.
struct Operands {
    x: HostTensor,
    r: HostTensor,
    dh: HostTensor,
    alpha: HostTensor,
}

impl Operands {
    fn new(shape: &[usize], dtype: DType) -> Self {
        let cols = *shape.last().unwrap();
        let alpha: Vec<f64> = (0..cols).map(|i| 0.4 * common::wave(i, 0.9)).collect();
        Operands {
            x: tensor(shape, 0.2, dtype),
            r: tensor(shape, 1.4, dtype),
            dh: tensor(shape, 2.2, dtype),
            alpha: HostTensor::from_f64(&alpha, &[cols], dtype).unwrap(),
        }
    }

    /// The same numbers in another dtype.
    fn of(&self, dtype: DType) -> Self {
        let wide = |t: &HostTensor| HostTensor::from_f64(&t.to_f64(), t.shape(), dtype).unwrap();
        Operands { x: wide(&self.x), r: wide(&self.r), dh: wide(&self.dh), alpha: wide(&self.alpha) }
    }

    /// Output, statistics and gradients.
    fn run(&self, device: &Device, alpha_scale: f64, eps: f64) -> Vec<DeviceTensor> {
        let up = |tensor: &HostTensor| device.upload(tensor).unwrap();
        let (x, r, dh, alpha) = (up(&self.x), up(&self.r), up(&self.dh), up(&self.alpha));
        let step = HypersphereStep::new(&alpha).alpha_scale(alpha_scale).eps(eps);
        let (h, saved) = step.forward_train(&r, &x).unwrap();
        assert_eq!(bits_of(&step.forward(&r, &x).unwrap()), bits_of(&h), "without statistics");
        let grads = step.backward(&dh, &r, &x, &saved).unwrap();
        vec![h, saved.input, saved.branch, saved.output, grads.branch, grads.input, grads.alpha]
    }
}

/// Each operation of a float dtype: float64's own, rounded to float32 where that is it, which is the same as done in float32.
fn each(dtype: DType, a: &[f64], b: &[f64], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let round = |x: f64| if dtype == DType::F32 { f64::from(x as f32) } else { x };
    a.iter().zip(b.iter().cycle()).map(|(&a, &b)| round(f(a, b))).collect()
}

/// Where nothing is rounded in between, the step is bit for bit that of its parts, one after the other.
#[test]
fn one_pass_gives_the_bits_of_its_parts() {
    let devices = devices();
    let all = devices.iter().flat_map(|device| common::dtypes(device).map(move |dtype| (device, dtype)));
    for (device, dtype) in all.filter(|(_, dtype)| *dtype == dtype.compute()) {
        for shape in [&[37, 200][..], &[300, 24], &[3, 4100], &[2, 3, 515], &[70, 1], &[5]] {
            for (alpha_scale, eps) in [(1.0, 1e-12), (-0.7, 1e-12), (1.0, 0.0), (0.5, 20.0)] {
                let what = format!("{} {dtype} {shape:?} {alpha_scale} {eps}", device.backend());
                let o = Operands::new(shape, dtype);
                let found = o.run(device, alpha_scale, eps);
                let like = |values: &[f64]| HostTensor::from_f64(values, shape, dtype).unwrap();
                let unit = Normalize::new().dim(-1).eps(eps);
                let ((a, of_r), (b, of_x)) =
                    (unit.forward_train(&o.r).unwrap(), unit.forward_train(&o.x).unwrap());
                let alpha = o.alpha.to_f64();
                let scale = if dtype == DType::F32 { f64::from(alpha_scale as f32) } else { alpha_scale };
                let share = each(dtype, &alpha, &[scale], |alpha, scale| (alpha * scale).abs());
                let rest = each(dtype, &share, &[1.0], |share, one| one - share);
                let shares = |a: &[f64], b: &[f64]| {
                    let times = |a: &[f64], share: &[f64]| each(dtype, a, share, |a, share| a * share);
                    (times(a, &rest), times(b, &share))
                };
                let (of_a, of_b) = shares(&a.to_f64(), &b.to_f64());
                let sum = like(&each(dtype, &of_a, &of_b, |a, b| a + b));
                let (h, of_sum) = unit.forward_train(&sum).unwrap();
                let g = unit.backward(&o.dh, &sum, &of_sum).unwrap().input.to_f64();
                let (da, db) = shares(&g, &g);
                let dr = unit.backward(&like(&da), &o.r, &of_r).unwrap().input;
                let dx = unit.backward(&like(&db), &o.x, &of_x).unwrap().input;
                let statistics =
                    [&of_r, &of_x, &of_sum].map(|saved| saved.statistics().unwrap().read().unwrap());
                let [of_r, of_x, of_sum] = &statistics;
                let expected = [&h, of_r, of_x, of_sum, &dx, &dr];
                let names = ["output", "input's", "branch's", "output's", "grad_branch", "grad_input"];
                for ((found, expected), name) in found.iter().zip(expected).zip(names) {
                    assert_eq!(bits_of(found), bits(&expected.to_f64()), "{what}: {name}");
                }
                // Sums in float64, to which those of float32 and in another order are near.
                let (a, b, cols) = (a.to_f64(), b.to_f64(), alpha.len());
                let of_alpha = found[6].read().unwrap().to_f64();
                for (col, found) in of_alpha.into_iter().enumerate() {
                    let terms = || (col..g.len()).step_by(cols).map(|at| g[at] * (b[at] - a[at]));
                    let sizes =
                        || (col..g.len()).step_by(cols).map(|at| (g[at] * (b[at].abs() + a[at].abs())).abs());
                    let expected = terms().sum::<f64>() * scale * (alpha[col] * scale).signum();
                    let most = if dtype == DType::F32 { 2e-6 } else { 4e-15 } * sizes().sum::<f64>();
                    assert!((found - expected).abs() <= most, "{what}: alpha {col}: {found} and {expected}");
                }
            }
        }
    }
}

/// A result in 16 bits is that of float32 operands of the same numbers, rounded once: nothing on the way is rounded.
#[test]
fn results_in_16_bits_are_rounded_once() {
    for (device, dtype) in devices().iter().flat_map(|d| [(d, DType::F16), (d, DType::BF16)]) {
        for shape in [[37, 200], [5, 4100]] {
            let o = Operands::new(&shape, dtype);
            let (narrow, wide) = (o.run(device, 1.0, 1e-12), o.of(DType::F32).run(device, 1.0, 1e-12));
            for (index, (found, expected)) in narrow.iter().zip(&wide).enumerate() {
                let (found, expected) = (found.read().unwrap(), expected.read().unwrap());
                let rounded =
                    HostTensor::from_f64(&expected.to_f64(), expected.shape(), found.dtype()).unwrap();
                assert_eq!(
                    bits(&found.to_f64()),
                    bits(&rounded.to_f64()),
                    "{dtype} {shape:?} result {index}"
                );
            }
        }
    }
}

/// A stream of float32 beside a sublayer of 16 bits goes on in float32, and each gradient has the dtype of its operand.
#[test]
fn operands_may_have_dtypes_of_their_own() {
    for device in devices() {
        let wide = Operands::new(&[9, 300], DType::F32);
        let narrow = wide.of(DType::BF16);
        let mixed = Operands { x: narrow.x.clone(), alpha: narrow.alpha.clone(), ..wide };
        let in_float32 = Operands {
            x: narrow.of(DType::F32).x,
            alpha: narrow.of(DType::F32).alpha,
            ..mixed.of(DType::F32)
        };
        let (found, expected) = (mixed.run(&device, 1.0, 1e-12), in_float32.run(&device, 1.0, 1e-12));
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let (found, expected) = (found.read().unwrap(), expected.read().unwrap());
            let dtype = if [4, 6].contains(&index) { DType::BF16 } else { DType::F32 };
            assert_eq!(found.dtype(), dtype, "result {index}");
            let rounded = HostTensor::from_f64(&expected.to_f64(), expected.shape(), dtype).unwrap();
            assert_eq!(bits(&found.to_f64()), bits(&rounded.to_f64()), "result {index}");
        }
    }
}

/// The published cases, of which a device may have few kernels. A software adapter takes seconds to compile each.
#[test]
fn published_cases_are_within_the_bound() {
    for device in devices() {
        for dtype in common::dtypes(&device) {
            let step = match (device.backend(), dtype) {
                ("cpu", _) => 1,
                ("wgpu", DType::F32) => 9,
                ("wgpu", _) => 24,
                _ => 3,
            };
            let list = cases(ANY_SPEC, dtype, Effort::Full).into_iter();
            let list = list.filter(|case| case.spec.as_ref().is_some_and(|spec| spec.fusion().mix.is_some()));
            common::check_all(&device.stream(), list.step_by(step));
        }
    }
}

const SHAPES: [[usize; 2]; 6] = [[37, 200], [300, 24], [5, 4100], [9, 70], [2, 9001], [600, 1]];

/// Alone or with others, across memory or along it, in the place of operands, on any instruction set and number of threads.
#[test]
fn neither_company_nor_place_changes_a_bit() {
    for device in devices() {
        // As above.
        let step = if device.backend() == "wgpu" { 2 } else { 1 };
        for shape in SHAPES.into_iter().step_by(step) {
            let whole = Laid { shape, first: 0, is_transposed: false, dtypes: [DType::F32; 2] };
            let expected = whole.run(&device.stream(), false).unwrap();
            assert_eq!(whole.run(&device.stream(), true).unwrap(), expected, "{shape:?} in place");
            let across = Laid { is_transposed: true, ..whole };
            for in_place in [false, true] {
                assert_eq!(
                    across.run(&device.stream(), in_place).unwrap(),
                    expected,
                    "{shape:?} across, {in_place}"
                );
            }
            let [rows, cols] = shape;
            let row = rows / 2;
            let alone = Laid { shape: [1, cols], first: row, ..whole }.run(&device.stream(), false).unwrap();
            for (alone, whole) in alone.iter().zip(&expected).take(3) {
                assert_eq!(alone[..], whole[row * cols..][..cols], "{shape:?} row {row} alone");
            }
        }
    }
    for shape in SHAPES {
        let whole = Laid { shape, first: 0, is_transposed: false, dtypes: [DType::F32; 2] };
        let expected = whole.run(&Device::Cpu.stream(), false).unwrap();
        for (isa, stream) in common::instruction_sets() {
            assert_eq!(whole.run(&stream, false).unwrap(), expected, "{shape:?} {isa}");
        }
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let found = pool.install(|| whole.run(&Stream::Cpu(Cpu::default()), false).unwrap());
            assert_eq!(found, expected, "{shape:?} on {threads} threads");
        }
    }
}

/// Each gradient is what it is whichever others are asked for.
#[test]
fn a_gradient_does_not_depend_on_which_others_are_wanted() {
    for device in devices() {
        let o = Operands::new(&[300, 70], DType::F32);
        let up = |tensor: &HostTensor| device.upload(tensor).unwrap();
        let (x, r, dh, alpha) = (up(&o.x), up(&o.r), up(&o.dh), up(&o.alpha));
        let step = HypersphereStep::new(&alpha);
        let (_, saved) = step.forward_train(&r, &x).unwrap();
        let all = step.backward(&dh, &r, &x, &saved).unwrap();
        let expected = [&all.input, &all.branch, &all.alpha];
        for wanted in 0..1 << 3 {
            let mut found = expected.map(|tensor| {
                let host = tensor.read().unwrap();
                device.upload(&HostTensor::zeros(host.shape(), host.dtype()).unwrap()).unwrap()
            });
            let [input, branch, alpha] = found.each_mut().map(|tensor| Some(tensor.view_mut().unwrap()));
            let is_wanted = |index: usize| wanted >> index & 1 == 1;
            let grads = HypersphereGradients {
                input: input.filter(|_| is_wanted(0)),
                branch: branch.filter(|_| is_wanted(1)),
                alpha: alpha.filter(|_| is_wanted(2)),
            };
            let statistics =
                [&saved.input, &saved.branch, &saved.output].map(|tensor| tensor.view().unwrap());
            step.backward_into(
                &dh.view().unwrap(),
                &r.view().unwrap(),
                &x.view().unwrap(),
                statistics.each_ref(),
                grads,
                &mut Workspace::new(),
                &device.stream(),
            )
            .unwrap();
            for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
                match is_wanted(index) {
                    true => assert_eq!(bits_of(found), bits_of(expected), "gradient {index} of {wanted:03b}"),
                    false => {
                        assert!(bits_of(found).iter().all(|&x| x == 0), "gradient {index} of {wanted:03b}")
                    }
                }
            }
        }
    }
}

/// A row that is not finite stays where it is, as do rows of zeros; rows of any size are of length 1.
#[test]
fn rows_out_of_the_ordinary_stay_by_themselves() {
    for device in devices() {
        let [rows, cols] = [7, 130];
        let o = Operands::new(&[rows, cols], DType::F32);
        let expected = o.run(&device, 1.0, 0.0);
        let scaled = |tensor: &HostTensor, row: usize, by: f64| {
            let mut values = tensor.to_f64();
            values[row * cols..][..cols].iter_mut().for_each(|x| *x *= by);
            HostTensor::from_f64(&values, &[rows, cols], DType::F32).unwrap()
        };
        let others = |tensor: &DeviceTensor, row: usize| {
            let mut all = bits_of(tensor);
            all.drain(row * cols..(row + 1) * cols);
            all
        };
        for by in [f64::NAN, 0.0] {
            for (row, o) in [
                (2, Operands { x: scaled(&o.x, 2, by), ..o.of(DType::F32) }),
                (6, Operands { r: scaled(&o.r, 6, by), ..o.of(DType::F32) }),
                (0, Operands { dh: scaled(&o.dh, 0, by), ..o.of(DType::F32) }),
            ] {
                let found = o.run(&device, 1.0, 0.0);
                for index in [0, 4, 5] {
                    assert_eq!(
                        others(&found[index], row),
                        others(&expected[index], row),
                        "{by} result {index}"
                    );
                }
            }
        }
        // Rows of a power of two: the same digits, and gradients of the operand that is larger smaller by it.
        for power in [-100, 100] {
            let by = 2f64.powi(power);
            let large = Operands { x: scaled(&o.x, 3, by), r: scaled(&o.r, 4, by), ..o.of(DType::F32) };
            let found = large.run(&device, 1.0, 0.0);
            assert_eq!(bits_of(&found[0]), bits_of(&expected[0]), "2^{power}");
            assert_eq!(bits_of(&found[6]), bits_of(&expected[6]), "2^{power}");
            for (index, row) in [(4, 3), (5, 4)] {
                let of_row = |of: &DeviceTensor| of.read().unwrap().to_f64()[row * cols..][..cols].to_vec();
                let back: Vec<f64> = of_row(&found[index]).iter().map(|d| d * by).collect();
                assert_eq!(back, of_row(&expected[index]), "2^{power} gradient {index}");
            }
        }
        // Rows of zeros on both sides, with eps and without.
        for eps in [0.0, 1e-12] {
            let zero = Operands { x: scaled(&o.x, 1, 0.0), r: scaled(&o.r, 1, 0.0), ..o.of(DType::F32) };
            let found = zero.run(&device, 1.0, eps);
            let h = found[0].read().unwrap().to_f64();
            assert!(h[cols..2 * cols].iter().all(|&h| h == 0.0), "eps {eps}");
            assert!(
                found[4..].iter().all(|grad| grad.read().unwrap().to_f64().iter().all(|g| g.is_finite()))
            );
        }
    }
}
