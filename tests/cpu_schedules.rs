//! Schedules are a matter of speed: whichever runs a norm, its bits are the same.

use normkit::backend::cpu::{Cpu, Isa, Schedule};
use normkit::prelude::*;
use normkit::tensor::{DType, Layout, View, ViewMut};
use normkit::{Gradients, Stream, Workspace, norm};

/// Numbers of which some rows, along any axis, are out of the ordinary: zero, constant, tiny, huge, far from zero. Which
/// ones depends on the seed, so that they meet ordinary ones of another tensor.
fn numbers(shape: &[usize], seed: u64) -> Vec<f64> {
    let count: usize = shape.iter().product();
    let noise = |i: usize| {
        let mut x = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(seed);
        x = (x ^ x >> 31).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (x >> 40) as f64 / f64::from(1u32 << 23) - 1.0
    };
    let slow = shape.last().copied().unwrap_or(1).max(1);
    (0..count)
        .map(|i| {
            let x = noise(i);
            match ((i % slow) % 19, (i / slow + seed as usize) % 23) {
                (3, 5) | (7, _) => 0.0,
                (11, _) => 1e-30 * x,
                (_, 17) => 1e-37 * x,
                (13, _) => 1e25 * x,
                (15, _) | (_, 13) => 100.0 + x,
                // Slowly rising: the first numbers say little about the mean.
                (2, _) => i as f64 / count as f64 + 1e-3 * x,
                _ => x,
            }
        })
        .collect()
}

/// How a tensor lies in memory.
#[derive(Debug, Clone, Copy)]
enum Order {
    RowMajor,
    ChannelsLast,
    Reversed,
    Gaps,
}

/// The layout of `shape`, and how many elements its memory has.
fn layout(shape: &[usize], order: Order) -> (Layout, usize) {
    let rank = shape.len();
    let (axes, step): (Vec<usize>, isize) = match order {
        Order::RowMajor => ((0..rank).collect(), 1),
        Order::Gaps => ((0..rank).collect(), 3),
        Order::Reversed => ((0..rank).rev().collect(), 1),
        Order::ChannelsLast => {
            ((0..rank).filter(|&axis| axis != 1).chain([1]).filter(|&a| a < rank).collect(), 1)
        }
    };
    let mut strides = vec![0; rank];
    let mut stride = step;
    for &axis in axes.iter().rev() {
        strides[axis] = stride;
        stride *= shape[axis].max(1) as isize;
    }
    (Layout::strided(shape, &strides, 1).expect("a layout"), stride as usize + 1)
}

fn placed(values: &[f64], layout: &Layout, elements: usize, dtype: DType) -> HostTensor {
    let mut memory = vec![7.0; elements];
    for (index, value) in values.iter().enumerate() {
        memory[layout.offset_of(index)] = *value;
    }
    HostTensor::from_f64(&memory, &[elements], dtype).expect("memory")
}

fn view<'a>(tensor: &'a HostTensor, layout: &Layout) -> View<'a> {
    tensor.view().expect("a view").with_layout(layout.clone()).expect("a layout within")
}

fn view_mut<'a>(tensor: &'a mut HostTensor, layout: &Layout) -> ViewMut<'a> {
    use half::{bf16, f16};
    let (dtype, layout) = (tensor.dtype(), layout.clone());
    let bytes = tensor.bytes_mut();
    match dtype {
        DType::F16 => ViewMut::strided(bytemuck::cast_slice_mut::<u8, f16>(bytes), layout),
        DType::BF16 => ViewMut::strided(bytemuck::cast_slice_mut::<u8, bf16>(bytes), layout),
        DType::F32 => ViewMut::strided(bytemuck::cast_slice_mut::<u8, f32>(bytes), layout),
        _ => ViewMut::strided(bytemuck::cast_slice_mut::<u8, f64>(bytes), layout),
    }
    .expect("a layout within")
}

/// Two threads, and a schedule or whatever is chosen.
fn scheduled(schedule: Option<Schedule>) -> Cpu {
    let cpu = Cpu::default().with_threads(2).expect("threads");
    match schedule {
        Some(schedule) => cpu.with_schedule(schedule),
        None => cpu,
    }
}

/// The bytes of every result.
fn results(
    method: &dyn Method,
    shape: &[usize],
    dtype: DType,
    order: Order,
    cpu: Cpu,
) -> Vec<(&'static str, Vec<u8>)> {
    let (layout, elements) = layout(shape, order);
    let x = placed(&numbers(shape, 1), &layout, elements, dtype);
    let g = placed(&numbers(shape, 2), &layout, elements, dtype);
    let zeros = |shape: &[usize], dtype| HostTensor::zeros(shape, dtype).expect("memory");
    let (mut y, mut dx) = (zeros(&[elements], dtype), zeros(&[elements], dtype));
    let saved = method.statistics_shape(shape, dtype).expect("a shape").expect("statistics");
    let mut statistics = zeros(&saved, dtype.compute());
    let stream = Stream::Cpu(cpu);
    let x = view(&x, &layout);
    let mut saved = statistics.view_mut().expect("a view");
    method.forward_into(&x, &mut view_mut(&mut y, &layout), Some(&mut saved), &stream).expect("forward");
    let parameters = method.parameters();
    let like = |p: &Option<View<'_>>| p.as_ref().map(|p| zeros(p.shape(), p.dtype()));
    let (mut dw, mut db) = (like(&parameters.weight), like(&parameters.bias));
    let grads = Gradients {
        input: Some(view_mut(&mut dx, &layout)),
        weight: dw.as_mut().map(|t| t.view_mut().expect("a view")),
        bias: db.as_mut().map(|t| t.view_mut().expect("a view")),
        ..Gradients::default()
    };
    let saved = statistics.view().expect("a view");
    let g = view(&g, &layout);
    method.backward_into(&g, &x, Some(&saved), grads, &mut Workspace::new(), &stream).expect("backward");
    let mut results = vec![
        ("output", y.bytes().to_vec()),
        ("statistics", statistics.bytes().to_vec()),
        ("grad_input", dx.bytes().to_vec()),
    ];
    results.extend(dw.map(|t| ("grad_weight", t.bytes().to_vec())));
    results.extend(db.map(|t| ("grad_bias", t.bytes().to_vec())));
    results
}

#[track_caller]
fn assert_same(name: &str, method: &dyn Method, shape: &[usize], dtype: DType, order: Order) {
    let others = [None, Some(Schedule::Column), Some(Schedule::Split)].map(scheduled);
    assert_same_by(name, method, shape, dtype, order, scheduled(Some(Schedule::Row)), others);
}

/// Every result of `others` is that of `one`.
#[track_caller]
fn assert_same_by(
    name: &str,
    method: &dyn Method,
    shape: &[usize],
    dtype: DType,
    order: Order,
    one: Cpu,
    others: impl IntoIterator<Item = Cpu>,
) {
    let expected = results(method, shape, dtype, order, one);
    for cpu in others {
        let how = format!("{cpu:?}");
        let found = results(method, shape, dtype, order, cpu);
        for ((what, expected), (_, found)) in expected.iter().zip(&found) {
            let differs = expected.iter().zip(found).position(|(a, b)| a != b);
            assert!(
                differs.is_none(),
                "{name} {dtype} {shape:?} {order:?} by {how}: {what} differs at byte {differs:?}"
            );
        }
    }
}

/// Output and gradient of the input, each in the place of what it is computed from, are those of elsewhere.
#[track_caller]
fn assert_same_in_place(name: &str, method: &dyn Method, shape: &[usize], dtype: DType, order: Order) {
    let expected = results(method, shape, dtype, order, scheduled(None));
    let bytes = |what: &str| &expected.iter().find(|(name, _)| *name == what).expect("a result").1;
    let (layout, elements) = layout(shape, order);
    let mut x = placed(&numbers(shape, 1), &layout, elements, dtype);
    let mut g = placed(&numbers(shape, 2), &layout, elements, dtype);
    let saved = method.statistics_shape(shape, dtype).expect("a shape").expect("statistics");
    let mut saved = HostTensor::zeros(&saved, dtype.compute()).expect("memory");
    saved.bytes_mut().copy_from_slice(bytes("statistics"));
    let stream = Stream::Cpu(scheduled(None));
    {
        let input = view(&x, &layout);
        let mut memory = view_mut(&mut g, &layout);
        let (from, to) = memory.in_place();
        let grads = Gradients { input: Some(to), ..Gradients::default() };
        let saved = saved.view().expect("a view");
        method
            .backward_into(&from, &input, Some(&saved), grads, &mut Workspace::new(), &stream)
            .expect("backward");
    }
    let mut memory = view_mut(&mut x, &layout);
    let (from, mut to) = memory.in_place();
    method.forward_into(&from, &mut to, None, &stream).expect("forward");
    for (what, found) in [("output", &x), ("grad_input", &g)] {
        // Only what the layout has: between its elements the others are zero.
        let (width, found, expected) = (dtype.size(), found.bytes(), bytes(what));
        let differs = (0..layout.len()).find(|&index| {
            let at = layout.offset_of(index) * width;
            found[at..at + width] != expected[at..at + width]
        });
        assert!(differs.is_none(), "{name} {dtype} {shape:?} {order:?}: {what} differs at {differs:?}");
    }
}

const ORDERS: [Order; 4] = [Order::RowMajor, Order::ChannelsLast, Order::Reversed, Order::Gaps];

fn parameter(shape: &[usize]) -> HostTensor {
    let values: Vec<f64> = numbers(shape, 3).into_iter().map(|x| x.clamp(-4.0, 4.0)).collect();
    HostTensor::from_f64(&values, shape, DType::F32).expect("a parameter")
}

#[test]
fn norms_over_channels() {
    for shape in [&[3, 40, 5, 7][..], &[2, 300, 70], &[5, 33], &[2, 9, 4200], &[1, 4500, 40]] {
        let channels = shape[1];
        let (weight, bias) = (parameter(&[channels]), parameter(&[channels]));
        let mask: Vec<f64> =
            (0..shape.iter().product()).map(|i: usize| f64::from(!i.is_multiple_of(5))).collect();
        let mask = HostTensor::from_f64(&mask, shape, DType::F32).expect("a mask");
        let layer = norm::LayerNorm2d::new(channels).weight(&weight).bias(&bias);
        let batch = norm::BatchNorm::new(channels).weight(&weight).bias(&bias);
        let masked = norm::BatchNorm::new(channels).weight(&weight).bias(&bias).mask(&mask);
        for order in ORDERS {
            for dtype in DType::FLOATS.into_iter().filter(|&d| d == DType::F32 || shape.len() == 4) {
                if dtype != DType::F64 {
                    assert_same("layer_norm_2d", &layer, shape, dtype, order);
                    assert_same("batch_norm", &batch, shape, dtype, order);
                }
                assert_same("plain batch_norm", &norm::BatchNorm::new(channels), shape, dtype, order);
            }
            assert_same("masked batch_norm", &masked, shape, DType::F32, order);
        }
    }
}

#[test]
fn norms_along_any_axis() {
    for shape in [&[6, 40, 30][..], &[70, 257], &[5000, 9], &[9, 5000], &[3, 2, 70_000]] {
        for order in ORDERS {
            for dim in 0..shape.len() as isize {
                for p in [1.0, 2.0, 2.5, 3.0, f64::INFINITY] {
                    if p.fract() != 0.0 && shape.iter().product::<usize>() > 30_000 {
                        continue;
                    }
                    let method = norm::Normalize::new().p(p).dim(dim).eps(1e-12);
                    assert_same(&format!("normalize p={p} dim={dim}"), &method, shape, DType::F32, order);
                }
                let method = norm::Normalize::new().p(2.0).dim(dim).eps(1e-12);
                assert_same("normalize", &method, shape, DType::BF16, order);
            }
        }
    }
}

#[test]
fn weights_over_any_axis() {
    for dim in [None, Some(0), Some(1)] {
        let shape = [300, 270];
        let g = match dim {
            None => parameter(&[1, 1]),
            Some(0) => parameter(&[300, 1]),
            _ => parameter(&[1, 270]),
        };
        for order in ORDERS {
            assert_same(
                &format!("weight_norm {dim:?}"),
                &norm::WeightNorm::new(dim).g(&g),
                &shape,
                DType::F32,
                order,
            );
        }
    }
}

#[test]
fn groups_and_long_rows() {
    for (groups, shape) in
        [(4, &[3, 8, 5, 7][..]), (1, &[2, 6, 3000]), (2, &[1, 4, 20_000]), (8, &[2, 8, 70])]
    {
        let (weight, bias) = (parameter(&[shape[1]]), parameter(&[shape[1]]));
        let method = norm::GroupNorm::new(groups, shape[1]).weight(&weight).bias(&bias);
        for order in ORDERS {
            for dtype in [DType::F32, DType::BF16, DType::F16] {
                assert_same("group_norm", &method, shape, dtype, order);
            }
        }
    }
    for cols in [1, 31, 1000, 4097, 40_000] {
        let (weight, bias) = (parameter(&[cols]), parameter(&[cols]));
        for order in ORDERS {
            for dtype in [DType::F32, DType::BF16] {
                let layer = LayerNorm::new([cols]).weight(&weight).bias(&bias);
                assert_same("layer_norm", &layer, &[26, cols], dtype, order);
                let rms = RmsNorm::new([cols]).weight(&weight).partial(if cols > 1 { 0.6 } else { 1.0 });
                assert_same("rms_norm", &rms, &[20, cols], dtype, order);
            }
        }
    }
}

#[test]
fn rows_out_of_the_ordinary_in_place() {
    let shape = [3, 40, 5, 7];
    let (weight, bias) = (parameter(&[40]), parameter(&[40]));
    for order in ORDERS {
        for dtype in [DType::F32, DType::F16] {
            let layer = norm::LayerNorm2d::new(40).weight(&weight).bias(&bias);
            assert_same_in_place("layer_norm_2d", &layer, &shape, dtype, order);
            let batch = norm::BatchNorm::new(40).weight(&weight).bias(&bias);
            assert_same_in_place("batch_norm", &batch, &shape, dtype, order);
            let group = norm::GroupNorm::new(4, 40).weight(&weight).bias(&bias);
            assert_same_in_place("group_norm", &group, &shape, dtype, order);
            assert_same_in_place("layer_norm", &LayerNorm::new([7]), &shape, dtype, order);
        }
    }
}

/// A NaN all of whose bits are set would become a zero if it were rounded to bf16 like a number.
#[test]
fn a_parameter_that_is_not_a_number_shows_in_its_columns() {
    let (channels, odd) = (4, 2);
    let nan = f32::from_bits(0x7FFF_FFFF);
    for positions in [3, 70, 1300, 5000] {
        let shape = [2, channels, positions];
        let (layout, elements) = layout(&shape, Order::RowMajor);
        let ones = vec![1f32; channels];
        let weights: Vec<f32> = (0..channels).map(|i| if i == odd { nan } else { 1.5 }).collect();
        let ones = HostTensor::from_vec(ones, &[channels]).expect("a parameter");
        let wild = HostTensor::from_vec(weights, &[channels]).expect("a parameter");
        let group = |w, b| norm::GroupNorm::new(2, channels).weight(w).bias(b);
        let layer = |w, b| norm::LayerNorm2d::new(channels).weight(w).bias(b);
        let batch = |w, b| norm::BatchNorm::new(channels).weight(w).bias(b);
        let all: [(&str, Box<dyn Method>); 6] = [
            ("group_norm", Box::new(group(&wild, &ones))),
            ("group_norm", Box::new(group(&ones, &wild))),
            ("batch_norm", Box::new(batch(&wild, &ones))),
            ("batch_norm", Box::new(batch(&ones, &wild))),
            ("layer_norm_2d", Box::new(layer(&wild, &ones))),
            ("layer_norm_2d", Box::new(layer(&ones, &wild))),
        ];
        for (name, method) in &all {
            for schedule in [Schedule::Row, Schedule::Column, Schedule::Split] {
                let x: Vec<f64> = (0..shape.iter().product()).map(|i: usize| (i % 7) as f64 - 2.9).collect();
                let x = placed(&x, &layout, elements, DType::BF16);
                let mut y = HostTensor::zeros(&[elements], DType::BF16).expect("memory");
                let stream = Stream::Cpu(scheduled(Some(schedule)));
                method
                    .forward_into(&view(&x, &layout), &mut view_mut(&mut y, &layout), None, &stream)
                    .expect("forward");
                let y = y.to_f64();
                for index in 0..layout.len() {
                    let is_odd = index / positions % channels == odd;
                    let found = y[layout.offset_of(index)];
                    assert_eq!(found.is_nan(), is_odd, "{name} {shape:?} {schedule:?}: {found} at {index}");
                }
            }
        }
    }
    for cols in [40, 1000, 5000] {
        let mut weights = vec![1f32; cols];
        weights[odd] = nan;
        let weight = HostTensor::from_vec(weights, &[cols]).expect("a parameter");
        let x = HostTensor::from_f64(
            &(0..3 * cols).map(|i| (i % 5) as f64).collect::<Vec<_>>(),
            &[3, cols],
            DType::BF16,
        )
        .expect("an input");
        for method in
            [&LayerNorm::new([cols]).weight(&weight) as &dyn Method, &RmsNorm::new([cols]).weight(&weight)]
        {
            let mut y = HostTensor::zeros(&[3, cols], DType::BF16).expect("memory");
            let (x, stream) = (x.view().expect("a view"), Stream::Cpu(scheduled(None)));
            method.forward_into(&x, &mut y.view_mut().expect("a view"), None, &stream).expect("forward");
            let nans: Vec<usize> = (0..3 * cols).filter(|&i| y.to_f64()[i].is_nan()).collect();
            assert_eq!(nans, [odd, cols + odd, 2 * cols + odd], "{cols} columns");
        }
    }
}

/// From 16 MiB on results are written past the caches, whatever the schedule, but for the portable instruction set.
#[test]
fn large_results() {
    let check = |name: &str, method: &dyn Method, shape: &[usize], dtype: DType, order: Order| {
        let portable = scheduled(None).with_isa(Isa::Portable).expect("available everywhere");
        let others =
            [None, Some(Schedule::Row), Some(Schedule::Column), Some(Schedule::Split)].map(scheduled);
        assert_same_by(name, method, shape, dtype, order, portable, others);
    };
    let (weight, bias) = (parameter(&[1024]), parameter(&[1024]));
    let layer = LayerNorm::new([1024]).weight(&weight).bias(&bias);
    check("layer_norm", &layer, &[4100, 1024], DType::F32, Order::RowMajor);
    check("layer_norm", &layer, &[8200, 1024], DType::BF16, Order::RowMajor);
    let (weight, bias) = (parameter(&[96]), parameter(&[96]));
    let batch = norm::BatchNorm::new(96).weight(&weight).bias(&bias);
    for order in [Order::RowMajor, Order::ChannelsLast] {
        check("batch_norm", &batch, &[30, 96, 1500], DType::F32, order);
    }
    check("normalize", &norm::Normalize::new().dim(0), &[1100, 4000], DType::F32, Order::RowMajor);
}
