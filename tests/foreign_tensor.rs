//! A framework links by implementing the trait: here one with reference-counted, strided storage, as they have.

mod common;

use common::wave;
use normkit::norm::Pair;
use normkit::prelude::*;
use normkit::tensor::{DType, Layout, View, ViewMut};
use normkit::{Error, Result};
use std::sync::Arc;

/// A framework's storage: one allocation that many tensors may share.
#[derive(Clone)]
enum Storage {
    Float(Arc<Vec<f32>>),
    Double(Arc<Vec<f64>>),
}

/// A framework's tensor: storage, and which part of it, in which order.
#[derive(Clone)]
struct Foreign {
    storage: Storage,
    layout: Layout,
}

impl Foreign {
    fn new(values: Vec<f32>, shape: &[usize]) -> Self {
        Foreign { storage: Storage::Float(Arc::new(values)), layout: Layout::contiguous(shape) }
    }

    /// A view of the same storage, as the framework's `transpose` gives.
    fn transposed(&self) -> Self {
        Foreign { storage: self.storage.clone(), layout: self.layout.clone().transposed(0, 1).unwrap() }
    }

    fn values(&self) -> Vec<f64> {
        let at = |i| self.layout.offset_of(i);
        match &self.storage {
            Storage::Float(data) => (0..self.layout.len()).map(|i| data[at(i)].into()).collect(),
            Storage::Double(data) => (0..self.layout.len()).map(|i| data[at(i)]).collect(),
        }
    }

    /// Owners of the storage.
    fn owners(&self) -> usize {
        match &self.storage {
            Storage::Float(data) => Arc::strong_count(data),
            Storage::Double(data) => Arc::strong_count(data),
        }
    }
}

impl Tensor for Foreign {
    fn device(&self) -> Device {
        Device::Cpu
    }

    fn view(&self) -> Result<View<'_>> {
        match &self.storage {
            Storage::Float(data) => View::strided(data, self.layout.clone()),
            Storage::Double(data) => View::strided(data, self.layout.clone()),
        }
    }

    fn view_mut(&mut self) -> Result<ViewMut<'_>> {
        // A framework copies on write, or refuses, as here.
        let shared = || Error::Argument {
            name: "tensor",
            expected: "storage of its own".into(),
            found: "shared storage".into(),
        };
        match &mut self.storage {
            Storage::Float(data) => {
                ViewMut::strided(Arc::get_mut(data).ok_or_else(shared)?, self.layout.clone())
            }
            Storage::Double(data) => {
                ViewMut::strided(Arc::get_mut(data).ok_or_else(shared)?, self.layout.clone())
            }
        }
    }

    fn empty(&self, shape: &[usize], dtype: DType) -> Result<Self> {
        let (layout, len) = (Layout::contiguous(shape), shape.iter().product());
        let storage = match dtype {
            DType::F32 => Storage::Float(Arc::new(vec![f32::NAN; len])),
            DType::F64 => Storage::Double(Arc::new(vec![f64::NAN; len])),
            other => return Err(Error::UnsupportedDType { name: "dtype", dtype: other, backend: "foreign" }),
        };
        Ok(Foreign { storage, layout })
    }
}

fn data(n: usize, phase: f64) -> Vec<f32> {
    (0..n).map(|i| wave(i, phase) as f32).collect()
}

/// The framework trains with it: forward, backward, and the results are tensors of its own.
#[test]
fn a_foreign_tensor_goes_through_forward_and_backward() {
    let (x, g) = (Foreign::new(data(60, 0.1), &[6, 10]), Foreign::new(data(60, 0.7), &[6, 10]));
    let (weight, bias) = (Foreign::new(data(10, 1.3), &[10]), Foreign::new(data(10, 1.9), &[10]));
    let alpha = Foreign::new(vec![0.4], &[]);

    let norm = LayerNorm::new([10]).weight(&weight).bias(&bias);
    let (y, saved) = norm.forward_train(&x).unwrap();
    let grads = norm.backward(&g, &x, &saved).unwrap();
    let dyt = DyT::new([10]).alpha(&alpha).weight(&weight);
    let (z, nothing) = dyt.forward_train(&x).unwrap();
    let dyt_grads = dyt.backward(&g, &x, &nothing).unwrap();

    let host = |t: &Foreign| HostTensor::from_f64(&t.values(), t.layout.shape(), DType::F32).unwrap();
    let (hx, hg, hw, hb, ha) = (host(&x), host(&g), host(&weight), host(&bias), host(&alpha));
    let host_norm = LayerNorm::new([10]).weight(&hw).bias(&hb);
    let (hy, host_saved) = host_norm.forward_train(&hx).unwrap();
    let host_grads = host_norm.backward(&hg, &hx, &host_saved).unwrap();
    assert_eq!(y.values(), hy.to_f64());
    assert_eq!(grads.input.values(), host_grads.input.to_f64());
    assert_eq!(grads.weight.unwrap().values(), host_grads.weight.unwrap().to_f64());
    assert_eq!(grads.bias.unwrap().values(), host_grads.bias.unwrap().to_f64());

    let host_dyt = DyT::new([10]).alpha(&ha).weight(&hw);
    let (hz, nothing) = host_dyt.forward_train(&hx).unwrap();
    let host_dyt_grads = host_dyt.backward(&hg, &hx, &nothing).unwrap();
    assert_eq!(z.values(), hz.to_f64());
    let grad_alpha = dyt_grads.alpha.unwrap();
    assert_eq!((grad_alpha.layout.shape(), grad_alpha.values().len()), (&[][..], 1));
    assert_eq!(grad_alpha.values(), host_dyt_grads.alpha.unwrap().to_f64());
}

/// Running statistics are the framework's own tensors, updated in place; storage that it shares is refused before
/// anything is written.
#[test]
fn foreign_running_statistics_are_updated_in_place() {
    let x = Foreign::new(data(60, 0.1), &[5, 3, 4]);
    let start = |value| Foreign::new(vec![value; 3], &[3]);
    let mut running = RunningStatistics { mean: start(0.0), var: start(1.0), batches: 0 };
    let norm = BatchNorm::new(3);
    let (y, saved) = norm.train(&x, &mut running, Momentum::Factor(0.1)).unwrap();
    let grads = norm.backward(&x, &x, &saved).unwrap();

    let host = |t: &Foreign| HostTensor::from_f64(&t.values(), t.layout.shape(), DType::F32).unwrap();
    let (hx, mut host_running) =
        (host(&x), RunningStatistics { mean: host(&start(0.0)), var: host(&start(1.0)), batches: 0 });
    let (hy, host_saved) = norm.train(&hx, &mut host_running, Momentum::Factor(0.1)).unwrap();
    assert_eq!((y.values(), running.batches), (hy.to_f64(), 1));
    assert_eq!(running.mean.values(), host_running.mean.to_f64());
    assert_eq!(running.var.values(), host_running.var.to_f64());
    assert_eq!(grads.input.values(), norm.backward(&hx, &hx, &host_saved).unwrap().input.to_f64());

    let frozen = norm.frozen(&running.mean, &running.var).unwrap();
    let host_frozen = norm.frozen(&host_running.mean, &host_running.var).unwrap();
    let (z, nothing) = frozen.forward_train(&x).unwrap();
    assert_eq!(z.values(), host_frozen.forward(&hx).unwrap().to_f64());
    let grads = frozen.backward(&x, &x, &nothing).unwrap();
    assert_eq!(grads.input.values(), host_frozen.backward(&hx, &hx, &nothing).unwrap().input.to_f64());

    let copy = running.var.clone();
    let (mean, batches) = (running.mean.values(), running.batches);
    let error = norm.train(&x, &mut running, Momentum::Cumulative).err().expect("storage is shared");
    assert!(matches!(error, Error::Argument { name: "tensor", .. }), "{error}");
    assert_eq!(
        (copy.values(), mean, batches),
        (running.var.values(), running.mean.values(), running.batches)
    );
}

/// Heads, weights and norms of a framework's own.
#[test]
fn foreign_tensors_go_through_the_family() {
    let (q, k) = (Foreign::new(data(48, 0.1), &[3, 4, 4]), Foreign::new(data(24, 0.5), &[3, 2, 4]));
    let host = |t: &Foreign| HostTensor::from_f64(&t.values(), t.layout.shape(), DType::F32).unwrap();
    let scale = Foreign::new(vec![3.0], &[]);
    let host_scale = host(&scale);
    let norm = QkNorm::l2().scale(&scale);
    let (q_hat, k_hat, saved) = norm.forward_train(&q, &k).unwrap();
    let grads = norm.backward(Pair { query: &q, key: &k }, &q, &k, &saved).unwrap();
    let host_norm = QkNorm::l2().scale(&host_scale);
    let (hq, hk) = (host(&q), host(&k));
    let (host_q, host_k, host_saved) = host_norm.forward_train(&hq, &hk).unwrap();
    let host_grads = host_norm.backward(Pair { query: &hq, key: &hk }, &hq, &hk, &host_saved).unwrap();
    assert_eq!((q_hat.values(), k_hat.values()), (host_q.to_f64(), host_k.to_f64()));
    assert_eq!(grads.query.input.values(), host_grads.query.input.to_f64());
    assert_eq!(grads.query.weight.unwrap().values(), host_grads.query.weight.unwrap().to_f64());
    assert_eq!(grads.key.input.values(), host_grads.key.input.to_f64());

    let unit = Normalize::new().dim(-1).forward(&q).unwrap();
    assert_eq!(unit.values(), Normalize::new().dim(-1).forward(&hq).unwrap().to_f64());
    let w = WeightNorm::new(Some(2)).forward(&k).unwrap();
    assert_eq!(w.values(), WeightNorm::new(Some(2)).forward(&hk).unwrap().to_f64());
}

/// A view that shares storage is read where it lies.
#[test]
fn shared_transposed_storage_is_read_in_place() {
    let base = Foreign::new(data(60, 0.3), &[10, 6]);
    let x = base.transposed();
    assert_eq!((x.owners(), x.layout.strides()), (2, &[1, 6][..]));
    let y = RmsNorm::new([10]).forward(&x).unwrap();
    let copied = HostTensor::from_f64(&x.values(), &[6, 10], DType::F32).unwrap();
    assert_eq!(y.values(), RmsNorm::new([10]).forward(&copied).unwrap().to_f64());
    assert_eq!(base.values(), Foreign::new(data(60, 0.3), &[10, 6]).values());
}

/// Errors of the framework come through as they are, wherever its methods are called.
#[test]
fn errors_of_the_foreign_tensor_come_through() {
    /// Refuses every view.
    struct Broken;
    fn gone() -> Error {
        Error::NoDevice { backend: "foreign", reason: "gone".into() }
    }
    impl Tensor for Broken {
        fn device(&self) -> Device {
            Device::Cpu
        }
        fn view(&self) -> Result<View<'_>> {
            Err(gone())
        }
        fn view_mut(&mut self) -> Result<ViewMut<'_>> {
            Err(gone())
        }
        fn empty(&self, _: &[usize], _: DType) -> Result<Self> {
            Err(gone())
        }
    }
    let x = Foreign::new(data(4, 0.0), &[2, 2]);
    assert_eq!(LayerNorm::new([2]).weight(&Broken).forward(&x).err(), Some(gone()));
    assert_eq!(LayerNorm::new([2]).forward(&Broken).err(), Some(gone()));
    assert_eq!(DyT::new([2]).alpha(&Broken).forward(&x).err(), Some(gone()));

    let mut shared = x.clone();
    assert!(matches!(shared.view_mut(), Err(Error::Argument { name: "tensor", .. })));
    assert!(x.empty(&[1], DType::BF16).is_err());
}

/// Tensors of other types may be parameters of each other's calls: a view is a view.
#[test]
fn parameters_may_be_of_another_type() {
    let x = Foreign::new(data(40, 0.3), &[4, 10]);
    let weight = HostTensor::from_vec(data(10, 0.5), &[10]).unwrap();
    let foreign_weight = Foreign::new(data(10, 0.5), &[10]);
    let mixed = RmsNorm::new([10]).weight(&weight).forward(&x).unwrap();
    assert_eq!(mixed.values(), RmsNorm::new([10]).weight(&foreign_weight).forward(&x).unwrap().values());
}
