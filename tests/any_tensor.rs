//! P4: any shape, any strides, any alignment, and no element written but those of the outputs.

mod common;

use normkit::check::{Case, Given, METHODS, compute};
use normkit::prelude::*;
use normkit::spec::STATISTICS;
use normkit::tensor::{DType, Layout, View, ViewMut};
use normkit::{Gradients, Stream};

#[test]
fn every_row_length_works_in_every_placement() {
    for device in common::devices() {
        common::check_all(&device.stream(), common::row_lengths(&device));
    }
}

#[test]
fn zero_rows_leave_zero_parameter_gradients() {
    for device in common::devices() {
        for dtype in common::dtypes(&device) {
            let mut list: Vec<Case> = common::matrices(dtype, 0, 14).collect();
            for method in METHODS.iter().filter(|m| !["weight_norm", "normalize"].contains(m)) {
                list.push(Case::new(method, dtype, &[0, 7, 2]));
            }
            let mut frozen = Case::new("batch_norm", dtype, &[0, 7, 2]);
            frozen.frozen = Some(Given::default());
            list.push(frozen);
            for case in list {
                let results = compute(&case, &device.stream()).unwrap_or_else(|e| panic!("{case:?}: {e}"));
                for result in results {
                    let elements = ["output", "grad_input"].contains(&result.name);
                    let name = format!("{} {dtype} {:?} {}", case.method, case.shape, result.name);
                    assert!(!elements || result.values.is_empty(), "{name}");
                    assert!(result.values.iter().all(|&x| x == 0.0), "{name}: {:?}", result.values);
                    assert!(result.guards_intact, "{name}");
                }
            }
        }
    }
}

#[test]
fn an_empty_batch_leaves_running_statistics() {
    for device in common::devices() {
        let zeros = |shape: &[usize]| device.zeros(shape, DType::F32).unwrap();
        let of =
            |values: &[f64]| common::on(&device, &HostTensor::from_f64(values, &[2], DType::F32).unwrap());
        let mut running = RunningStatistics { mean: of(&[0.25, -3.0]), var: of(&[1.5, 4.0]), batches: 0 };
        let norm = BatchNorm::new(2);
        let x = zeros(&[0, 2, 5]);
        let (y, _) = norm.train(&x, &mut running, Momentum::Factor(0.5)).unwrap();
        assert_eq!(y.view().unwrap().layout().shape(), [0, 2, 5]);
        assert_eq!(running.mean.read().unwrap().to_f64(), [0.25, -3.0], "{}", device.backend());
        assert_eq!(running.var.read().unwrap().to_f64(), [1.5, 4.0], "{}", device.backend());
    }
}

#[test]
fn column_major_and_expanded_inputs_need_no_copy() {
    let data: Vec<f32> = (0..12).map(|i| common::wave(i, 0.1) as f32).collect();
    let norm = LayerNorm::new([3]);
    let run = |layout: Layout| {
        let mut out = vec![0f32; layout.len()];
        let shape = layout.shape().to_vec();
        let x = View::strided(&data, layout).unwrap();
        norm.forward_into(
            &x,
            &mut ViewMut::from_slice(&mut out, &shape).unwrap(),
            None,
            &Device::Cpu.stream(),
        )
        .unwrap();
        out
    };
    let transposed = Layout::contiguous(&[3, 4]).transposed(0, 1).unwrap();
    let copied: Vec<f32> = (0..12).map(|i| data[transposed.offset_of(i)]).collect();
    let x = HostTensor::from_vec(copied, &[4, 3]).unwrap();
    assert_eq!(run(transposed), norm.forward(&x).unwrap().as_slice::<f32>().unwrap());

    let expanded = run(Layout::contiguous(&[1, 3]).expanded(0, 5).unwrap());
    assert!(expanded.chunks(3).all(|row| row == &expanded[..3]));
}

/// In place, the bits are those of a pass that writes elsewhere.
#[test]
fn forward_and_backward_work_in_place() {
    let (shape, len) = ([37, 131], 37 * 131);
    let stream = Device::Cpu.stream();
    for dtype in DType::FLOATS {
        let tensor = |phase| {
            let values: Vec<f64> = (0..len).map(|i| common::wave(i, phase)).collect();
            HostTensor::from_f64(&values, &shape, dtype).unwrap()
        };
        let alpha = HostTensor::from_f64(&[0.7], &[1], dtype).unwrap();
        let methods: [Box<dyn Method>; 9] = [
            Box::new(LayerNorm::new([131])),
            Box::new(RmsNorm::new([131]).partial(0.5)),
            Box::new(DyT::new([131]).alpha(&alpha)),
            Box::new(Eln::new([131]).alpha(&alpha)),
            Box::new(BatchNorm::new(131)),
            Box::new(GroupNorm::new(131, 131)),
            Box::new(LayerNorm2d::new(131)),
            Box::new(WeightNorm::new(Some(1))),
            Box::new(Normalize::new().p(1.0).dim(0)),
        ];
        for method in methods {
            let (x, g) = (tensor(0.2), tensor(1.1));
            let (mut y, mut dx) = (tensor(0.0), tensor(0.0));
            let saves = method.statistics_shape(&shape, dtype).unwrap().is_some();
            let saved_shape = method.statistics_shape(&shape, dtype).unwrap().unwrap_or([0, STATISTICS]);
            let mut statistics = HostTensor::zeros(&saved_shape, dtype.compute()).unwrap();
            {
                let mut view = statistics.view_mut().unwrap();
                let saved = saves.then_some(&mut view);
                method.forward_into(&x.view().unwrap(), &mut y.view_mut().unwrap(), saved, &stream).unwrap();
            }
            let (mut workspace, saved) = (Workspace::new(), statistics.view().unwrap());
            let saved = saves.then_some(&saved);
            let input = x.view().unwrap();
            let grads = Gradients { input: Some(dx.view_mut().unwrap()), ..Gradients::default() };
            method.backward_into(&g.view().unwrap(), &input, saved, grads, &mut workspace, &stream).unwrap();

            let (mut x_to_y, mut g_to_dx) = (x.clone(), g.clone());
            let mut memory = x_to_y.view_mut().unwrap();
            let (from, mut to) = memory.in_place();
            method.forward_into(&from, &mut to, None, &stream).unwrap();
            let mut memory = g_to_dx.view_mut().unwrap();
            let (from, to) = memory.in_place();
            let grads = Gradients { input: Some(to), ..Gradients::default() };
            method.backward_into(&from, &input, saved, grads, &mut workspace, &stream).unwrap();
            assert_eq!((x_to_y, g_to_dx), (y, dx), "{} {dtype}", method.name());
        }
    }
}

#[test]
fn a_stream_knows_its_device() {
    for device in common::devices() {
        assert_eq!(device.stream().device(), device);
        assert_eq!(matches!(device.stream(), Stream::Cpu(_)), device == Device::Cpu);
    }
}
