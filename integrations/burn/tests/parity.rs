//! Values and gradients beside burn's own operations in float64: every method, backend, dtype, and choice of arguments that want
//! a gradient.

mod common;

use burn::tensor::{DType, Device, Tensor};
use common::Case;
use normkit_burn as ours;
use normkit_burn::HeadKind;

/// `x / sqrt(mean(x²) + eps)` of the last axis, centred first or not.
fn normalized<const D: usize>(x: Tensor<D>, is_centred: bool, eps: f64) -> Tensor<D> {
    let x = if is_centred { x.clone() - x.mean_dim(D - 1) } else { x };
    x.clone() / (x.square().mean_dim(D - 1) + eps).sqrt()
}

fn along_last<const D: usize>(parameter: &Tensor<1>) -> Tensor<D> {
    parameter.clone().unsqueeze()
}

fn along_channels<const D: usize>(parameter: &Tensor<1>) -> Tensor<D> {
    let mut shape = [1; D];
    shape[1] = parameter.dims()[0];
    parameter.clone().reshape(shape)
}

#[test]
fn layer_norm() {
    Case::<3> {
        name: "layer_norm",
        inputs: vec![[3, 5, 37]],
        parameters: vec![37, 37],
        ours: &|x, p| {
            vec![ours::layer_norm(x[0].clone(), Some(p[0].clone()), Some(p[1].clone()), 1e-5).unwrap()]
        },
        reference: &|x, p| vec![normalized(x[0].clone(), true, 1e-5) * along_last(&p[0]) + along_last(&p[1])],
    }
    .check();
}

#[test]
fn rms_norm() {
    Case::<2> {
        name: "rms_norm",
        inputs: vec![[21, 130]],
        parameters: vec![130],
        ours: &|x, p| vec![ours::rms_norm(x[0].clone(), Some(p[0].clone()), 1e-6).unwrap()],
        reference: &|x, p| vec![normalized(x[0].clone(), false, 1e-6) * along_last(&p[0])],
    }
    .check();
    Case::<2> {
        name: "rms_norm without weight",
        inputs: vec![[4, 9]],
        parameters: vec![],
        ours: &|x, _| vec![ours::rms_norm(x[0].clone(), None, 1e-6).unwrap()],
        reference: &|x, _| vec![normalized(x[0].clone(), false, 1e-6)],
    }
    .check();
}

/// Both results have gradients, which add up.
#[test]
fn residuals() {
    Case::<2> {
        name: "add_rms_norm",
        inputs: vec![[7, 64], [7, 64]],
        parameters: vec![64],
        ours: &|x, p| {
            let (y, h) = ours::add_rms_norm(x[0].clone(), x[1].clone(), Some(p[0].clone()), 1e-6).unwrap();
            vec![y, h]
        },
        reference: &|x, p| {
            let h = x[0].clone() + x[1].clone();
            vec![normalized(h.clone(), false, 1e-6) * along_last(&p[0]), h]
        },
    }
    .check();
    Case::<2> {
        name: "add_layer_norm, whose sum is not used",
        inputs: vec![[7, 33], [7, 33]],
        parameters: vec![33, 33],
        ours: &|x, p| {
            let (weight, bias) = (Some(p[0].clone()), Some(p[1].clone()));
            vec![ours::add_layer_norm(x[0].clone(), x[1].clone(), weight, bias, 1e-5).unwrap().0]
        },
        reference: &|x, p| {
            let h = x[0].clone() + x[1].clone();
            vec![normalized(h, true, 1e-5) * along_last(&p[0]) + along_last(&p[1])]
        },
    }
    .check();
}

/// A stream in float32 beside a branch in 16 bits: the sum is of the stream's dtype, each gradient of its tensor's.
#[test]
fn residuals_of_two_dtypes() {
    let device = &Device::flex().autodiff();
    let made = |dtype| Tensor::<2>::ones([3, 8], (device, dtype)).require_grad();
    let (branch, stream) = (made(DType::BF16), made(DType::F32));
    let (y, h) = ours::add_rms_norm(branch.clone(), stream.clone(), None, 1e-6).unwrap();
    assert_eq!((y.dtype(), h.dtype()), (DType::BF16, DType::F32));
    let grads = (y.cast(DType::F32) + h * 3.0).sum().backward();
    for (tensor, dtype) in [(branch, DType::BF16), (stream, DType::F32)] {
        let gradient = tensor.grad(&grads).expect("a gradient");
        assert_eq!(gradient.dtype(), dtype);
        common::near("gradient", &gradient.into_data().iter::<f64>().collect::<Vec<_>>(), &[3.0; 24], 1e-2);
    }
}

#[test]
fn batch_norm() {
    let centred = |x: &Tensor<4>| {
        let mean = x.clone().mean_dim(0).mean_dim(2).mean_dim(3);
        x.clone() - mean
    };
    Case::<4> {
        name: "batch_norm_train",
        inputs: vec![[4, 3, 5, 6]],
        parameters: vec![3, 3],
        ours: &|x, p| {
            vec![
                ours::batch_norm_train(x[0].clone(), Some(p[0].clone()), Some(p[1].clone()), 1e-5).unwrap().0,
            ]
        },
        reference: &|x, p| {
            let x = centred(&x[0]);
            let var = x.clone().square().mean_dim(0).mean_dim(2).mean_dim(3);
            vec![x / (var + 1e-5).sqrt() * along_channels(&p[0]) + along_channels(&p[1])]
        },
    }
    .check();
    Case::<4> {
        name: "batch_norm_train with a weight alone",
        inputs: vec![[4, 3, 5, 6]],
        parameters: vec![3],
        ours: &|x, p| vec![ours::batch_norm_train(x[0].clone(), Some(p[0].clone()), None, 1e-5).unwrap().0],
        reference: &|x, p| {
            let x = centred(&x[0]);
            let var = x.clone().square().mean_dim(0).mean_dim(2).mean_dim(3);
            vec![x / (var + 1e-5).sqrt() * along_channels(&p[0])]
        },
    }
    .check();
    Case::<3> {
        name: "batch_norm",
        inputs: vec![[4, 3, 7]],
        parameters: vec![3, 3],
        ours: &|x, p| {
            let like = x[0].clone().without_autodiff();
            let device = (&like.device(), like.dtype());
            let mean = Tensor::<1>::from_data([0.25, -0.5, 1.0], device);
            let var = Tensor::<1>::from_data([0.5, 1.0, 2.0], device);
            let (weight, bias) = (Some(p[0].clone()), Some(p[1].clone()));
            vec![ours::batch_norm(x[0].clone(), weight, bias, mean, var, 1e-5).unwrap()]
        },
        reference: &|x, p| {
            let device = (&x[0].device(), x[0].dtype());
            let mean = Tensor::<1>::from_data([0.25, -0.5, 1.0], device);
            let var = Tensor::<1>::from_data([0.5, 1.0, 2.0], device);
            let x = (x[0].clone() - along_channels(&mean)) / (along_channels(&var) + 1e-5).sqrt();
            vec![x * along_channels(&p[0]) + along_channels(&p[1])]
        },
    }
    .check();
}

#[test]
fn groups_and_instances() {
    let normalized = |x: &Tensor<3>, groups: usize| {
        let [n, c, l] = x.dims();
        normalized(x.clone().reshape([n, groups, c / groups * l]), true, 1e-5).reshape([n, c, l])
    };
    Case::<3> {
        name: "group_norm",
        inputs: vec![[3, 6, 11]],
        parameters: vec![6, 6],
        ours: &|x, p| {
            vec![ours::group_norm(x[0].clone(), 2, Some(p[0].clone()), Some(p[1].clone()), 1e-5).unwrap()]
        },
        reference: &|x, p| vec![normalized(&x[0], 2) * along_channels(&p[0]) + along_channels(&p[1])],
    }
    .check();
    Case::<3> {
        name: "instance_norm",
        inputs: vec![[3, 4, 19]],
        parameters: vec![4, 4],
        ours: &|x, p| {
            vec![ours::instance_norm(x[0].clone(), Some(p[0].clone()), Some(p[1].clone()), 1e-5).unwrap()]
        },
        reference: &|x, p| vec![normalized(&x[0], 4) * along_channels(&p[0]) + along_channels(&p[1])],
    }
    .check();
}

#[test]
fn dyt() {
    Case::<2> {
        name: "dyt",
        inputs: vec![[9, 50]],
        parameters: vec![1, 50, 50],
        ours: &|x, p| {
            let (weight, bias) = (Some(p[1].clone()), Some(p[2].clone()));
            vec![ours::dyt(x[0].clone(), p[0].clone(), weight, bias).unwrap()]
        },
        reference: &|x, p| {
            let inside = x[0].clone() * p[0].clone().unsqueeze();
            vec![inside.tanh() * along_last(&p[1]) + along_last(&p[2])]
        },
    }
    .check();
}

#[test]
fn queries_and_keys() {
    for (kind, eps) in [(HeadKind::Rms, 1e-6), (HeadKind::Layer, 1e-5), (HeadKind::L2, 1e-12)] {
        Case::<4> {
            name: &format!("qk_norm {kind:?}"),
            inputs: vec![[2, 3, 4, 16], [2, 3, 2, 16]],
            parameters: vec![16, 16],
            ours: &|x, p| {
                let weights = (Some(p[0].clone()), Some(p[1].clone()));
                let (q, k) =
                    ours::qk_norm(x[0].clone(), x[1].clone(), weights.0, weights.1, kind, eps).unwrap();
                vec![q, k]
            },
            reference: &|x, p| {
                let norm = |x: &Tensor<4>| match kind {
                    HeadKind::L2 => x.clone() / x.clone().square().sum_dim(3).sqrt(),
                    _ => normalized(x.clone(), kind == HeadKind::Layer, eps),
                };
                vec![norm(&x[0]) * along_last(&p[0]), norm(&x[1]) * along_last(&p[1])]
            },
        }
        .check();
    }
}

#[test]
fn weight_norm() {
    Case::<2> {
        name: "weight_norm of columns",
        inputs: vec![[12, 7]],
        parameters: vec![7],
        ours: &|v, g| vec![ours::weight_norm(v[0].clone(), g[0].clone(), Some(1)).unwrap()],
        reference: &|v, g| vec![v[0].clone() / v[0].clone().square().sum_dim(0).sqrt() * along_last(&g[0])],
    }
    .check();
    Case::<2> {
        name: "weight_norm of all",
        inputs: vec![[12, 7]],
        parameters: vec![1],
        ours: &|v, g| vec![ours::weight_norm(v[0].clone(), g[0].clone(), None).unwrap()],
        reference: &|v, g| {
            vec![v[0].clone() / v[0].clone().square().sum().sqrt().unsqueeze() * g[0].clone().unsqueeze()]
        },
    }
    .check();
}

/// What makes another view of a tensor's memory.
type View = fn(Tensor<3>) -> Tensor<3>;

/// Views of all kinds are read where they are, and gradients find their way back.
#[test]
fn strides() {
    let views: [(&str, View); 5] = [
        ("transposed", |x| x.swap_dims(0, 2)),
        ("permuted", |x| x.permute([1, 2, 0])),
        ("sliced", |x| x.slice([1..4, 0..6, 1..6])),
        ("flipped", |x| x.flip([2])),
        ("expanded", |x| x.slice([0..1, 0..6, 0..6]).expand([4, 6, 6])),
    ];
    for (name, view) in views {
        Case::<3> {
            name: &format!("layer_norm, {name}"),
            inputs: vec![[6, 6, 6]],
            parameters: vec![],
            ours: &|x, _| vec![ours::layer_norm(view(x[0].clone()), None, None, 1e-5).unwrap()],
            reference: &|x, _| vec![normalized(view(x[0].clone()), true, 1e-5)],
        }
        .check();
    }
}
