//! Rotary position embedding after a norm: the one pass gives what its parts give, its tables repeat as they say, and it
//! refuses what makes no sense.

mod common;

use common::named;
use normkit::Gradients;
use normkit::norm::{Pair, QkNorm, Quantized, Rotary, rotary_tables};
use normkit::prelude::*;
use normkit::spec::{Activation, RotaryStyle, Scaling};
use normkit::tensor::{DType, Layout, View, ViewMut};

const STYLES: [RotaryStyle; 2] = [RotaryStyle::HalfSplit, RotaryStyle::Interleaved];

fn tensor(shape: &[usize], phase: f64, dtype: DType) -> HostTensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|i| common::wave(i, phase)).collect();
    HostTensor::from_f64(&values, shape, dtype).unwrap()
}

/// The columns of pair `i` of `pairs`.
fn pair(style: RotaryStyle, i: usize, pairs: usize) -> (usize, usize) {
    match style {
        RotaryStyle::HalfSplit => (i, i + pairs),
        RotaryStyle::Interleaved => (2 * i, 2 * i + 1),
    }
}

fn rotary<'a>(style: RotaryStyle, cos: &'a HostTensor, sin: &'a HostTensor) -> Rotary<'a> {
    match style {
        RotaryStyle::HalfSplit => Rotary::half_split(cos, sin),
        RotaryStyle::Interleaved => Rotary::interleaved(cos, sin),
    }
}

/// In float32 nothing is rounded between the norm and the rotation, so a rotation of the norm's own result, in the order that
/// the numerics say, has the same bits; and the gradients are the norm's own of the gradient rotated back.
#[test]
fn one_pass_gives_the_bits_of_its_parts() {
    let (shape, cols) = ([5, 3, 22], 22);
    let weight = tensor(&[cols], 0.7, DType::F32);
    for (style, dims) in STYLES.into_iter().flat_map(|style| [22, 16, 2].map(|dims| (style, dims))) {
        let pairs = dims / 2;
        let (x, g) = (tensor(&shape, 0.2, DType::F32), tensor(&shape, 1.9, DType::F32));
        let [cos, sin] = [0.4, 2.6].map(|phase| tensor(&[5, pairs], phase, DType::F32));
        let turned = |values: &HostTensor, back: bool| {
            let mut values = values.as_slice::<f32>().unwrap().to_vec();
            let (cos, sin) = (cos.as_slice::<f32>().unwrap(), sin.as_slice::<f32>().unwrap());
            for (row, line) in values.chunks_mut(cols).enumerate() {
                for i in 0..pairs {
                    let (c, s) = (cos[row / 3 * pairs + i], sin[row / 3 * pairs + i]);
                    let s = if back { -s } else { s };
                    let (first, second) = pair(style, i, pairs);
                    let (a, b) = (line[first], line[second]);
                    (line[first], line[second]) = (a * c - b * s, b * c + a * s);
                }
            }
            HostTensor::from_vec(values, &shape).unwrap()
        };
        let alone = RmsNorm::new([cols]).weight(&weight);
        let fused = alone.clone().rotary(&rotary(style, &cos, &sin));
        let (y, saved) = fused.forward_train(&x).unwrap();
        assert_eq!(y, turned(&alone.forward(&x).unwrap(), false), "{style:?} {dims}");
        let (grads, own) =
            (fused.backward(&g, &x, &saved).unwrap(), alone.backward(&turned(&g, true), &x, &saved));
        let own = own.unwrap();
        assert_eq!((grads.input, grads.weight), (own.input, own.weight), "{style:?} {dims}");
    }
}

/// A rotation leaves the length of a head as it was, and one by opposite angles undoes it.
#[test]
fn rotations_keep_lengths_and_can_be_undone() {
    let x = tensor(&[7, 2, 16], 0.3, DType::F64);
    let [cos, sin] = rotary_tables(10_000.0, 16, 7, 1.0, DType::F64).unwrap();
    let opposite: Vec<f64> = sin.to_f64().iter().map(|s| -s).collect();
    let opposite = HostTensor::from_vec(opposite, &[7, 8]).unwrap();
    for style in STYLES {
        let norm = RmsNorm::new([16]).eps(0.0);
        let plain = norm.forward(&x).unwrap();
        let there = norm.clone().rotary(&rotary(style, &cos, &sin)).forward(&x).unwrap();
        let back = norm.rotary(&rotary(style, &cos, &opposite)).forward(&there).unwrap();
        for (plain, back) in plain.to_f64().chunks(16).zip(back.to_f64().chunks(16)) {
            assert!(plain.iter().zip(back).all(|(a, b)| (a - b).abs() < 1e-14), "{style:?}");
        }
        for head in there.to_f64().chunks(16) {
            let squares: f64 = head.iter().map(|y| y * y).sum();
            assert!((squares - 16.0).abs() < 1e-12, "{style:?} {squares}");
        }
    }
}

/// The axes of tables are the input's first ones, from the left; those of size 1 and those that are missing repeat.
#[test]
fn tables_repeat_along_the_axes_that_they_lack() {
    let shape = [2, 3, 4, 6];
    let x = tensor(&shape, 0.3, DType::F32);
    for own in
        [&[3][..], &[2, 3], &[1, 3, 3], &[2, 1, 3], &[2, 3, 3], &[2, 3, 1, 3], &[1, 1, 4, 3], &[2, 3, 4, 3]]
    {
        let [cos, sin] = [0.4, 2.6].map(|phase| tensor(own, phase, DType::BF16));
        let whole = |table: &HostTensor| {
            let at = |index: usize, axis: usize| {
                let below: usize = shape[axis + 1..3].iter().product();
                let size = own[..own.len() - 1].get(axis).copied().unwrap_or(1);
                (index / below % shape[axis]).min(size - 1) * usize::from(size > 1)
            };
            let row = |index| {
                let sizes = |axis: usize| own[..own.len() - 1].get(axis).copied().unwrap_or(1);
                (0..3).fold(0, |row, axis| row * sizes(axis) + at(index, axis))
            };
            let values: Vec<f64> = (0..24)
                .flat_map(|index| (0..3).map(move |i| (index, i)))
                .map(|(index, i)| table.to_f64()[row(index) * 3 + i])
                .collect();
            HostTensor::from_f64(&values, &[2, 3, 4, 3], DType::F32).unwrap()
        };
        let (all_cos, all_sin) = (whole(&cos), whole(&sin));
        let norm = LayerNorm::new([6]);
        let expected = norm.clone().rotary(&Rotary::half_split(&all_cos, &all_sin)).forward(&x).unwrap();
        let found = norm.rotary(&Rotary::half_split(&cos, &sin)).forward(&x).unwrap();
        assert_eq!(found, expected, "{own:?}");
    }
}

/// Positions name rows of the tables: in any order, more than once, of either width, along any leading axes.
#[test]
fn positions_choose_rows_of_the_tables() {
    let shape = [2, 3, 4, 6];
    let x = tensor(&shape, 0.3, DType::BF16);
    let [cos, sin] = rotary_tables(10_000.0, 4, 9, 1.0, DType::F32).unwrap();
    for own in [&[2, 3][..], &[1, 3], &[2, 1], &[2], &[2, 3, 4], &[1, 1, 4], &[]] {
        let chosen: Vec<i64> = (0..own.iter().product()).map(|i| (i * 5 + 8) as i64 % 9).collect();
        let narrow: Vec<i32> = chosen.iter().map(|&p| p as i32).collect();
        let rows = |table: &HostTensor| {
            let rows = chosen.iter().flat_map(|&p| table.to_f64()[p as usize * 2..][..2].to_vec()).collect();
            HostTensor::from_vec::<f64>(rows, &[own, &[2]].concat()).unwrap()
        };
        let narrowed =
            |table: HostTensor| HostTensor::from_f64(&table.to_f64(), table.shape(), DType::F32).unwrap();
        let (own_cos, own_sin) = (narrowed(rows(&cos)), narrowed(rows(&sin)));
        let norm = RmsNorm::new([6]);
        let expected = norm.clone().rotary(&Rotary::interleaved(&own_cos, &own_sin)).forward(&x).unwrap();
        let chosen = HostTensor::from_vec(chosen.clone(), own).unwrap();
        let narrow = HostTensor::from_vec(narrow, own).unwrap();
        for positions in [&chosen, &narrow] {
            let rotary = Rotary::interleaved(&cos, &sin).positions(positions);
            assert_eq!(norm.clone().rotary(&rotary).forward(&x).unwrap(), expected, "{own:?}");
        }
    }
}

/// On the host a position beyond the tables is refused; on a device its row becomes NaN where it is rotated, forward, and
/// everywhere backward.
#[test]
fn positions_beyond_the_tables_are_not_read() {
    for device in common::devices() {
        let upload = |tensor: HostTensor| device.upload(&tensor).unwrap();
        let x = upload(tensor(&[6, 2, 9], 0.3, DType::F32));
        let tables = rotary_tables(10_000.0, 8, 5, 1.0, DType::F32).unwrap();
        let [cos, sin] = tables.map(upload);
        for style in STYLES {
            for bad in [5i64, -1, i64::MAX, i64::MIN, 1 << 32] {
                let narrow = i32::try_from(bad).unwrap_or(i32::MIN);
                let wide = upload(HostTensor::from_vec(vec![4, 0, bad, 1, 2, 3], &[6]).unwrap());
                let narrow = upload(HostTensor::from_vec(vec![4, 0, narrow, 1, 2, 3], &[6]).unwrap());
                for positions in [wide, narrow] {
                    let (cos, sin) = (cos.view().unwrap(), sin.view().unwrap());
                    let rotary = Rotary::of_views(style, cos, sin).positions(&positions);
                    let norm = RmsNorm::new([9]).rotary(&rotary);
                    if device == Device::Cpu {
                        assert_eq!(named(norm.forward(&x)), "positions");
                        continue;
                    }
                    let (y, saved) = norm.forward_train(&x).unwrap();
                    let dx = norm.backward(&x, &x, &saved).unwrap().input;
                    let (y, dx) = (y.read().unwrap().to_f64(), dx.read().unwrap().to_f64());
                    for (at, (y, dx)) in y.into_iter().zip(dx).enumerate() {
                        let is_bad = at / 18 == 2;
                        assert_eq!(
                            y.is_nan(),
                            is_bad && at % 9 < 8,
                            "{device:?} {style:?} {bad} at {at}: {y}"
                        );
                        assert_eq!(dx.is_nan(), is_bad, "{device:?} {style:?} {bad} at {at}: {dx}");
                    }
                }
            }
        }
    }
}

/// Tables as other libraries have them, by views: both halves the same, or cosines beside sines.
#[test]
fn tables_of_others_need_no_copy() {
    let x = tensor(&[4, 3, 8], 0.3, DType::F16);
    let [cos, sin] = rotary_tables(10_000.0, 8, 4, 1.0, DType::F32).unwrap();
    let norm = RmsNorm::new([8]);
    let expected = norm.clone().rotary(&Rotary::half_split(&cos, &sin)).forward(&x).unwrap();
    let (of_cos, of_sin) = (cos.to_f64(), sin.to_f64());
    let beside = |a: &[f64], b: &[f64]| {
        let values: Vec<f64> = a.chunks(4).zip(b.chunks(4)).flat_map(|(a, b)| [a, b].concat()).collect();
        HostTensor::from_f64(&values, &[4, 8], DType::F32).unwrap()
    };
    let half = |of: &'static str, table: &HostTensor| {
        let from = if of == "second" { 4 } else { 0 };
        table.view().unwrap().layout().clone().sliced(1, from..from + 4, 1).unwrap()
    };
    let (twice_cos, twice_sin, cache) =
        (beside(&of_cos, &of_cos), beside(&of_sin, &of_sin), beside(&of_cos, &of_sin));
    for (cos, sin, which) in [(&twice_cos, &twice_sin, "first"), (&cache, &cache, "second")] {
        let (first, other) = (half("first", cos), half(which, sin));
        let (cos, sin) = (cos.view().unwrap().with_layout(first), sin.view().unwrap().with_layout(other));
        let rotary = Rotary::of_views(RotaryStyle::HalfSplit, cos.unwrap(), sin.unwrap());
        assert_eq!(norm.clone().rotary(&rotary).forward(&x).unwrap(), expected);
    }
    // Backwards in memory, so that the first pair is the last element.
    let reversed = |table: &HostTensor| {
        let values: Vec<f64> = table.to_f64().into_iter().rev().collect();
        HostTensor::from_f64(&values, &[4, 4], DType::F32).unwrap()
    };
    let (cos, sin) = (reversed(&cos), reversed(&sin));
    let backwards = || Layout::strided(&[4, 4], &[-4, -1], 15).unwrap();
    let [cos, sin] = [&cos, &sin].map(|table| table.view().unwrap().with_layout(backwards()).unwrap());
    let rotary = Rotary::of_views(RotaryStyle::HalfSplit, cos, sin);
    assert_eq!(norm.rotary(&rotary).forward(&x).unwrap(), expected);
}

#[test]
fn tables_are_the_nearest_numbers() {
    for (theta, dims, scale) in [(10_000.0, 8, 1.0), (500_000.0, 128, 1.0), (10_000.0, 64, 4.0)] {
        for dtype in DType::FLOATS {
            let [cos, sin] = rotary_tables(theta, dims, 9, scale, dtype).unwrap();
            assert_eq!((cos.shape(), sin.shape()), (&[9, dims / 2][..], &[9, dims / 2][..]));
            let angle = |at: usize| {
                let (p, i) = (at / (dims / 2), at % (dims / 2));
                p as f64 / scale * theta.powf(-2.0 * i as f64 / dims as f64)
            };
            let rounded = |of: fn(f64) -> f64| {
                let values: Vec<f64> = (0..9 * dims / 2).map(|at| of(angle(at))).collect();
                HostTensor::from_f64(&values, &[9, dims / 2], dtype).unwrap()
            };
            assert_eq!((cos, sin), (rounded(f64::cos), rounded(f64::sin)), "{theta} {dims} {dtype}");
        }
    }
    assert_eq!(rotary_tables(10_000.0, 4, 0, 1.0, DType::F32).unwrap()[0].shape(), [0, 2]);
    assert_eq!(named(rotary_tables(10_000.0, 3, 1, 1.0, DType::F32)), "dims");
    assert_eq!(named(rotary_tables(10_000.0, 0, 1, 1.0, DType::F32)), "dims");
    assert_eq!(named(rotary_tables(0.0, 4, 1, 1.0, DType::F32)), "theta");
    assert_eq!(named(rotary_tables(f64::NAN, 4, 1, 1.0, DType::F32)), "theta");
    assert_eq!(named(rotary_tables(1e4, 4, 1, f64::INFINITY, DType::F32)), "scale");
    assert!(rotary_tables(1e4, 4, usize::MAX, 1.0, DType::F32).is_err());
    assert!(rotary_tables(1e4, usize::MAX - 1, 2, 1.0, DType::F32).is_err());
    assert_eq!(named(rotary_tables(1e4, 4, 1, 1.0, DType::I32)), "dtype");
}

/// Queries and keys of one packed tensor, `[tokens, (heads + 2 * key_heads) * dim]`, rotated in its own memory, forward and
/// backward: the bits are those of tensors apart.
#[test]
fn packed_queries_and_keys_are_rotated_in_place() {
    let (tokens, heads, key_heads, dim) = (5, 6, 2, 24);
    let stream = Device::Cpu.stream();
    let [cos, sin] = rotary_tables(10_000.0, 16, tokens, 1.0, DType::F32).unwrap();
    for (dtype, style) in DType::FLOATS.into_iter().flat_map(|dtype| STYLES.map(|style| (dtype, style))) {
        let (q_weight, k_weight) = (tensor(&[dim], 0.7, dtype), tensor(&[dim], 1.2, dtype));
        let norms = [QkNorm::rms(), QkNorm::layer(), QkNorm::l2()];
        for norm in norms.map(|norm| norm.query_weight(&q_weight).key_weight(&k_weight)) {
            let norm = norm.rotary(&rotary(style, &cos, &sin));
            let packed = tensor(&[tokens, heads + 2 * key_heads, dim], 0.2, dtype);
            let gradient = tensor(&[tokens, heads + 2 * key_heads, dim], 1.1, dtype);
            let whole = || Layout::contiguous(packed.shape());
            let of_q = || whole().sliced(1, 0..heads, 1).unwrap();
            let of_k = || whole().sliced(1, heads..heads + key_heads, 1).unwrap();
            let part = |tensor: &HostTensor, layout: Layout| {
                let values: Vec<f64> =
                    (0..layout.len()).map(|i| tensor.to_f64()[layout.offset_of(i)]).collect();
                HostTensor::from_f64(&values, layout.shape(), dtype).unwrap()
            };
            let (q, k) = (part(&packed, of_q()), part(&packed, of_k()));
            let (g_q, g_k) = (part(&gradient, of_q()), part(&gradient, of_k()));
            let (y_q, y_k, saved) = norm.forward_train(&q, &k).unwrap();
            let grads = norm.backward(Pair { query: &g_q, key: &g_k }, &q, &k, &saved).unwrap();

            let mut memory = packed.clone();
            let mut of_gradient = gradient.clone();
            for (head, layout, y, dx) in [
                (norm.query(), of_q(), &y_q, &grads.query.input),
                (norm.key(), of_k(), &y_k, &grads.key.input),
            ] {
                let rows = layout.len() / dim;
                let mut statistics = HostTensor::zeros(&[rows, 4], dtype.compute()).unwrap();
                let input = packed.view().unwrap().with_layout(layout.clone()).unwrap();
                {
                    let mut whole = memory.view_mut().unwrap().with_layout(layout.clone()).unwrap();
                    let (from, mut to) = whole.in_place();
                    let mut saved = statistics.view_mut().unwrap();
                    head.forward_into(&from, &mut to, Some(&mut saved), &stream).unwrap();
                    let mut whole = of_gradient.view_mut().unwrap().with_layout(layout.clone()).unwrap();
                    let (from, to) = whole.in_place();
                    let grads = Gradients { input: Some(to), ..Gradients::default() };
                    let saved = saved.in_place().0;
                    head.backward_into(&from, &input, Some(&saved), grads, &mut Workspace::new(), &stream)
                        .unwrap();
                }
                assert_eq!(&part(&memory, layout.clone()), y, "{dtype} {style:?}");
                assert_eq!(&part(&of_gradient, layout), dx, "{dtype} {style:?}");
            }
            // The values are as they were.
            let of_v = || whole().sliced(1, heads + key_heads..heads + 2 * key_heads, 1).unwrap();
            assert_eq!(part(&memory, of_v()), part(&packed, of_v()));
            assert_eq!(part(&of_gradient, of_v()), part(&gradient, of_v()));
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let zeros = |shape: &[usize], dtype| HostTensor::zeros(shape, dtype).unwrap();
    let x = zeros(&[3, 2, 8], DType::F32);
    let table = zeros(&[3, 4], DType::F32);
    let (wide, short, other) =
        (zeros(&[3, 4], DType::F64), zeros(&[3, 3], DType::F32), zeros(&[2, 4], DType::F32));
    let norm = || RmsNorm::new([8]);
    let run = |rotary: Rotary<'_>| norm().rotary(&rotary).forward(&x);
    assert!(run(Rotary::half_split(&table, &table)).is_ok());
    assert!(run(Rotary::half_split(&table, &table).dims(8)).is_ok());
    assert_eq!(named(run(Rotary::half_split(&table, &table).dims(7))), "dims");
    assert_eq!(named(run(Rotary::half_split(&table, &table).dims(0))), "dims");
    assert_eq!(named(run(Rotary::half_split(&table, &table).dims(10))), "dims");
    assert_eq!(named(run(Rotary::half_split(&table, &table).dims(6))), "cos");
    assert_eq!(named(run(Rotary::half_split(&wide, &table))), "cos");
    assert_eq!(named(run(Rotary::half_split(&table, &wide))), "sin");
    assert_eq!(named(run(Rotary::half_split(&table, &short))), "sin");
    assert_eq!(named(run(Rotary::interleaved(&other, &other))), "cos");
    let too_many = zeros(&[3, 2, 1, 4], DType::F32);
    assert_eq!(named(run(Rotary::interleaved(&too_many, &too_many))), "cos");
    let no_pairs = zeros(&[3, 0], DType::F32);
    assert_eq!(named(run(Rotary::interleaved(&no_pairs, &no_pairs))), "dims");
    let scalar = zeros(&[], DType::F32);
    assert_eq!(named(run(Rotary::interleaved(&scalar, &scalar))), "dims");
    // Positions.
    let chosen = |dtype, shape: &[usize]| HostTensor::zeros(shape, dtype).unwrap();
    let (good, float, byte) = (chosen(DType::I64, &[3]), chosen(DType::F32, &[3]), chosen(DType::I8, &[3]));
    assert!(run(Rotary::half_split(&table, &table).positions(&good)).is_ok());
    assert_eq!(named(run(Rotary::half_split(&table, &table).positions(&float))), "positions");
    assert_eq!(named(run(Rotary::half_split(&table, &table).positions(&byte))), "positions");
    for shape in [&[2][..], &[3, 3], &[3, 2, 8]] {
        let other = chosen(DType::I32, shape);
        assert_eq!(named(run(Rotary::half_split(&table, &table).positions(&other))), "positions");
    }
    let (three, none) = (zeros(&[3, 1, 4], DType::F32), zeros(&[0, 4], DType::F32));
    assert_eq!(named(run(Rotary::half_split(&three, &three).positions(&good))), "cos");
    assert_eq!(named(run(Rotary::half_split(&none, &none).positions(&good))), "cos");
    let whole = chosen(DType::I32, &[3, 4]);
    assert_eq!(named(run(Rotary::half_split(&whole, &table))), "cos");
    // Rows that are more than the last axis.
    let rotary = Rotary::half_split(&table, &table);
    assert_eq!(named(RmsNorm::new([2, 8]).rotary(&rotary).forward(&x)), "rotary");
    assert_eq!(named(norm().activation(Activation::Silu).rotary(&rotary).forward(&x)), "epilogue");
    // Results that become codes.
    let coded = Quantized::new(norm().rotary(&rotary), DType::I8, Scaling::Row);
    assert_eq!(named(coded.forward(&x)), "rotary");
    // Tables that would be written.
    let mut memory = vec![0f32; 24];
    let mut view = ViewMut::from_slice(&mut memory, &[3, 8]).unwrap();
    let (from, mut to) = view.in_place();
    let half = from.clone().with_layout(Layout::contiguous(&[3, 8]).sliced(1, 0..4, 1).unwrap()).unwrap();
    let inside = Rotary::of_views(RotaryStyle::HalfSplit, half.clone(), half);
    let input = [0f32; 24];
    let x = View::from_slice(&input, &[3, 8]).unwrap();
    let stream = Device::Cpu.stream();
    assert_eq!(named(norm().rotary(&inside).forward_into(&x, &mut to, None, &stream)), "output");
    let mut statistics = vec![0f32; 12];
    let mut statistics = ViewMut::from_slice(&mut statistics, &[3, 4]).unwrap();
    let saved = statistics.in_place().0;
    let grads = Gradients { input: Some(to), ..Gradients::default() };
    let backward =
        norm().rotary(&inside).backward_into(&x, &x, Some(&saved), grads, &mut Workspace::new(), &stream);
    assert_eq!(named(backward), "grad_input");
}
