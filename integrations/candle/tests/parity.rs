//! Values and gradients beside compositions of candle's own operations in float64: for every dtype, for every subset of arguments that
//! need a gradient, contiguous and not.

mod common;

use candle_core::{D, DType, Result, Tensor, Var};
use common::device;
use normkit_candle::ops::{self, QkNormKind};

/// Numbers that look random and are exact in every dtype.
fn noise(seed: u64, shape: &[usize]) -> Tensor {
    let mut state = seed;
    let count: usize = shape.iter().product();
    let values: Vec<f64> = (0..count)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            f64::from((state >> 58) as i32 - 32) / 16.0
        })
        .collect();
    Tensor::from_vec(values, shape, &device()).unwrap()
}

/// The results of a function, each weighted by numbers of its own and added up.
fn loss(outputs: &[Tensor]) -> Result<Tensor> {
    let mut sum = Tensor::zeros((), DType::F64, &device())?;
    for (index, output) in outputs.iter().enumerate() {
        let weights = noise(100 + index as u64, output.dims());
        sum = (sum + (output.to_dtype(DType::F64)? * weights)?.sum_all()?)?;
    }
    Ok(sum)
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// How far apart, as a share of the largest.
fn apart(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.dims(), expected.dims());
    let (found, expected) = (numbers(found), numbers(expected));
    let largest = expected.iter().fold(1e-3f64, |most, x| most.max(x.abs()));
    found
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs() / largest)
        .fold(0.0, |most: f64, x| if x.is_nan() { f64::INFINITY } else { most.max(x) })
}

/// The same tensor, lying in memory as its transpose does.
fn turned(tensor: &Tensor) -> Result<Tensor> {
    if tensor.rank() < 2 {
        // Every third number of a longer one.
        let wide = tensor
            .unsqueeze(D::Minus1)?
            .repeat(tensor.dims().iter().map(|_| 1).chain([3]).collect::<Vec<_>>())?;
        return wide.narrow(D::Minus1, 1, 1)?.squeeze(D::Minus1);
    }
    tensor.transpose(0, 1)?.contiguous()?.transpose(0, 1)
}

type Function<'a> = dyn Fn(&[Tensor]) -> Result<Vec<Tensor>> + 'a;

fn check(name: &str, inputs: &[Tensor], ours: &Function<'_>, theirs: &Function<'_>) {
    let vars: Vec<Var> = inputs.iter().map(|input| Var::from_tensor(input).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let expected = theirs(&tensors).unwrap();
    let expected_grads = loss(&expected).unwrap().backward().unwrap();
    for (dtype, bound) in [(DType::F64, 1e-12), (DType::F32, 4e-6), (DType::BF16, 2e-2), (DType::F16, 4e-3)] {
        let vars: Vec<Var> =
            inputs.iter().map(|input| Var::from_tensor(&input.to_dtype(dtype).unwrap()).unwrap()).collect();
        for subset in 0..1u32 << inputs.len() {
            for is_turned in [false, true] {
                let needs = |index: usize| subset >> index & 1 == 1;
                let arguments: Vec<Tensor> = (vars.iter().enumerate())
                    .map(|(index, var)| {
                        let tensor =
                            if needs(index) { var.as_tensor().clone() } else { var.as_detached_tensor() };
                        if is_turned { turned(&tensor).unwrap() } else { tensor }
                    })
                    .collect();
                let what = format!("{name}, {dtype:?}, gradients of {subset:b}, turned {is_turned}");
                let outputs = ours(&arguments).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(outputs.len(), expected.len());
                for (output, expected) in outputs.iter().zip(&expected) {
                    assert_eq!(output.dtype(), dtype, "{what}");
                    let apart = apart(output, expected);
                    assert!(apart <= bound, "{what}: {apart:e}");
                }
                assert_eq!(outputs.iter().any(Tensor::track_op), subset != 0, "{what}");
                if subset == 0 {
                    continue;
                }
                let grads = loss(&outputs).unwrap().backward().unwrap();
                for (index, var) in vars.iter().enumerate() {
                    let found = grads.get(var.as_tensor());
                    assert_eq!(found.is_some(), needs(index), "{what}: argument {index}");
                    let Some(found) = found else {
                        // Nor was one computed for the tensor that needs none.
                        assert!(grads.get(&arguments[index]).is_none(), "{what}: argument {index}");
                        continue;
                    };
                    let apart = apart(found, expected_grads.get(&tensors[index]).unwrap());
                    assert!(apart <= 2.0 * bound, "{what}: gradient of argument {index}: {apart:e}");
                }
            }
        }
    }
}

fn one(result: Result<Tensor>) -> Result<Vec<Tensor>> {
    result.map(|tensor| vec![tensor])
}

#[test]
fn layer_norm() {
    let inputs = [noise(1, &[3, 4, 10]), noise(2, &[10]), noise(3, &[10])];
    check("layer_norm", &inputs, &|t| one(ops::layer_norm(&t[0], &t[1], &t[2], 1e-5)), &|t| {
        one(candle_nn::ops::layer_norm_slow(&t[0], &t[1], &t[2], 1e-5))
    });
    check(
        "layer_norm without a bias",
        &inputs[..2],
        &|t| one(ops::layer_norm_over(&t[0], &[10], Some(&t[1]), None, 1e-5)),
        &|t| one(candle_nn::ops::layer_norm_slow(&t[0], &t[1], &t[1].zeros_like()?, 1e-5)),
    );
    check(
        "layer_norm of two axes",
        &inputs[..1],
        &|t| one(ops::layer_norm_over(&t[0], &[4, 10], None, None, f64::from(1e-5f32))),
        &|t| {
            let ones = Tensor::ones(40, DType::F64, &device())?;
            let flat = t[0].reshape((3, 40))?;
            one(candle_nn::ops::layer_norm_slow(&flat, &ones, &ones.zeros_like()?, 1e-5)?.reshape((3, 4, 10)))
        },
    );
}

#[test]
fn rms_norm() {
    check(
        "rms_norm",
        &[noise(1, &[3, 4, 10]), noise(2, &[10])],
        &|t| one(ops::rms_norm(&t[0], &t[1], 1e-5)),
        &|t| one(candle_nn::ops::rms_norm_slow(&t[0], &t[1], 1e-5)),
    );
}

/// Both results, both used.
#[test]
fn added_norms() {
    let inputs = [noise(1, &[5, 10]), noise(2, &[5, 10]), noise(3, &[10]), noise(4, &[10])];
    let eps = 1e-5f32;
    check(
        "add_rms_norm",
        &inputs[..3],
        &|t| ops::add_rms_norm(&t[0], &t[1], Some(&t[2]), eps.into()).map(|(y, h)| vec![y, h]),
        &|t| {
            let h = (&t[0] + &t[1])?;
            Ok(vec![candle_nn::ops::rms_norm_slow(&h, &t[2], eps)?, h])
        },
    );
    check(
        "add_rms_norm without a weight",
        &inputs[..2],
        &|t| one(ops::add_rms_norm(&t[0], &t[1], None, eps.into()).map(|(y, _)| y)),
        &|t| {
            let ones = Tensor::ones(10, DType::F64, &device())?;
            one(candle_nn::ops::rms_norm_slow(&(&t[0] + &t[1])?, &ones, eps))
        },
    );
    check(
        "add_layer_norm",
        &inputs,
        &|t| ops::add_layer_norm(&t[0], &t[1], Some(&t[2]), Some(&t[3]), eps.into()).map(|(y, h)| vec![y, h]),
        &|t| {
            let h = (&t[0] + &t[1])?;
            Ok(vec![candle_nn::ops::layer_norm_slow(&h, &t[2], &t[3], eps)?, h])
        },
    );
}

/// A float32 stream beside a bfloat16 branch: the sum has the stream's dtype, the norm the branch's.
#[test]
fn a_residual_may_be_wider() {
    let (x, r, w) = (noise(1, &[5, 10]), noise(2, &[5, 10]), noise(3, &[10]));
    let x = Var::from_tensor(&x.to_dtype(DType::BF16).unwrap()).unwrap();
    let r = Var::from_tensor(&r.to_dtype(DType::F32).unwrap()).unwrap();
    let (y, h) = ops::add_rms_norm(&x, &r, Some(&w.to_dtype(DType::F32).unwrap()), 1e-5).unwrap();
    assert_eq!((y.dtype(), h.dtype()), (DType::BF16, DType::F32));
    let grads = loss(&[y, h]).unwrap().backward().unwrap();
    assert_eq!(grads.get(&x).unwrap().dtype(), DType::BF16);
    assert_eq!(grads.get(&r).unwrap().dtype(), DType::F32);
}

#[test]
fn group_norm() {
    check(
        "group_norm",
        &[noise(1, &[2, 6, 5]), noise(2, &[6]), noise(3, &[6])],
        &|t| one(ops::group_norm(&t[0], 3, Some(&t[1]), Some(&t[2]), 1e-5)),
        &|t| {
            let norm = candle_nn::GroupNorm::new(t[1].clone(), t[2].clone(), 6, 3, 1e-5)?;
            one(candle_nn::Module::forward(&norm, &t[0]))
        },
    );
}

/// candle's, whose running statistics are its own.
fn their_batch_norm(t: &[Tensor]) -> candle_nn::BatchNorm {
    let (mean, var) = (noise(7, &[4]), (noise(8, &[4]).abs().unwrap() + 0.5).unwrap());
    candle_nn::BatchNorm::new(4, mean, var, t[1].clone(), t[2].clone(), 1e-5).unwrap()
}

#[test]
fn batch_norm() {
    let inputs = [noise(1, &[6, 4, 3]), noise(2, &[4]), noise(3, &[4])];
    check(
        "batch_norm in training",
        &inputs,
        &|t| one(ops::batch_norm(&t[0], None, Some(&t[1]), Some(&t[2]), true, 0.1, 1e-5)),
        &|t| one(their_batch_norm(t).forward_train(&t[0])),
    );
    let of_running = |training: bool| {
        move |t: &[Tensor]| {
            let theirs = their_batch_norm(&[t[0].clone(), noise(2, &[4]), noise(3, &[4])]);
            let (mean, var) =
                (Var::from_tensor(theirs.running_mean())?, Var::from_tensor(theirs.running_var())?);
            one(ops::batch_norm(&t[0], Some((&mean, &var)), Some(&t[1]), Some(&t[2]), training, 0.25, 1e-5))
        }
    };
    check("batch_norm that moves statistics", &inputs, &of_running(true), &|t| {
        one(their_batch_norm(t).forward_train(&t[0]))
    });
    check("batch_norm in inference", &inputs, &of_running(false), &|t| {
        one(candle_nn::ModuleT::forward_t(&their_batch_norm(t), &t[0], false))
    });
}

#[test]
fn running_statistics_move_as_candles() {
    let t = [noise(1, &[6, 4, 3]), noise(2, &[4]), noise(3, &[4])];
    let theirs = their_batch_norm(&t);
    let ours = normkit_candle::BatchNorm::new(
        4,
        theirs.running_mean().copy().unwrap(),
        theirs.running_var().copy().unwrap(),
        t[1].clone(),
        t[2].clone(),
        1e-5,
    )
    .unwrap();
    for _ in 0..2 {
        theirs.forward_train(&t[0]).unwrap();
        ours.forward_train(&t[0]).unwrap();
    }
    assert!(apart(ours.running_mean(), theirs.running_mean()) < 1e-14);
    assert!(apart(ours.running_var(), theirs.running_var()) < 1e-14);
}

/// What a backward pass of constants normalizes by is what the forward pass did.
#[test]
fn constants_may_be_set_before_the_backward_pass() {
    let x = Var::from_tensor(&noise(1, &[6, 4, 3])).unwrap();
    let [mean, var] = [noise(2, &[4]), noise(3, &[4]).sqr().unwrap()].map(|t| Var::from_tensor(&t).unwrap());
    let gradient = |sets: bool| {
        let y = ops::batch_norm(x.as_tensor(), Some((&mean, &var)), None, None, false, 0.1, 1e-5).unwrap();
        if sets {
            var.set(&Tensor::ones(4, DType::F64, &device()).unwrap()).unwrap();
        }
        let grads = loss(&[y]).unwrap().backward().unwrap();
        grads.get(x.as_tensor()).unwrap().clone()
    };
    let expected = gradient(false);
    assert!(apart(&gradient(true), &expected) == 0.0);
}

#[test]
fn dyt() {
    let inputs = [noise(1, &[3, 4, 10]), noise(2, &[1]), noise(3, &[10]), noise(4, &[10])];
    let plain = |t: &[Tensor]| t[0].broadcast_mul(&t[1])?.tanh();
    check("dyt", &inputs, &|t| one(ops::dyt(&t[0], &t[1], Some(&t[2]), Some(&t[3]))), &|t| {
        one(plain(t)?.broadcast_mul(&t[2])?.broadcast_add(&t[3]))
    });
    check("dyt without a bias", &inputs[..3], &|t| one(ops::dyt(&t[0], &t[1], Some(&t[2]), None)), &|t| {
        one(plain(t)?.broadcast_mul(&t[2]))
    });
}

#[test]
fn qk_norm() {
    let inputs = [noise(1, &[3, 4, 8]), noise(2, &[3, 2, 8]), noise(3, &[8]), noise(4, &[8])];
    let eps = 1e-5f32;
    check(
        "qk_norm",
        &inputs,
        &|t| {
            let weights = (Some(&t[2]), Some(&t[3]));
            ops::qk_norm(&t[0], &t[1], QkNormKind::Rms, weights, eps.into()).map(|(q, k)| vec![q, k])
        },
        &|t| {
            let norm = candle_nn::ops::rms_norm_slow;
            Ok(vec![norm(&t[0], &t[2], eps)?, norm(&t[1], &t[3], eps)?])
        },
    );
    check(
        "qk_norm by length",
        &[noise(1, &[3, 4, 8]), noise(2, &[3, 4, 8]), noise(3, &[1])],
        &|t| ops::qk_norm(&t[0], &t[1], QkNormKind::L2, (Some(&t[2]), None), 1e-12).map(|(q, k)| vec![q, k]),
        &|t| {
            let unit = |x: &Tensor| x.broadcast_div(&x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?);
            Ok(vec![unit(&t[0])?.broadcast_mul(&t[2])?, unit(&t[1])?])
        },
    );
}

#[test]
fn weight_norm() {
    check(
        "weight_norm",
        &[noise(1, &[4, 3, 5]), noise(2, &[4, 1, 1])],
        &|t| one(ops::weight_norm(&t[0], &t[1], Some(0))),
        &|t| {
            let length = t[0].sqr()?.sum_keepdim((1, 2))?.sqrt()?;
            one(t[0].broadcast_div(&length)?.broadcast_mul(&t[1]))
        },
    );
}
