//! Modules from a builder have candle_nn's names, and its results; bad input is candle's error with normkit's message.

mod common;

use candle_core::{DType, Module, ModuleT, Result, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use common::device;
use normkit_candle::ops::{self, QkNormKind};

fn input(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7).sin()).collect();
    Tensor::from_vec(values, shape, &device()).unwrap()
}

fn builder(map: &VarMap) -> VarBuilder<'static> {
    VarBuilder::from_varmap(map, DType::F32, &device())
}

fn names(map: &VarMap) -> Vec<String> {
    let mut names: Vec<String> = map.data().lock().unwrap().keys().cloned().collect();
    names.sort();
    names
}

/// Sets the variables of both to the same numbers, which are not the initial ones.
fn fill(map: &VarMap) {
    for (index, name) in names(map).iter().enumerate() {
        let data = map.data().lock().unwrap();
        let var = &data[name];
        let values = ((input(var.dims()) * 0.5).unwrap() + (1.0 + index as f64)).unwrap();
        var.set(&values).unwrap();
    }
}

/// What two builders of modules name and compute.
fn check<A, B>(
    x: &Tensor,
    ours: impl Fn(VarBuilder<'static>) -> Result<A>,
    theirs: impl Fn(VarBuilder<'static>) -> Result<B>,
) where
    A: ModuleT,
    B: ModuleT,
{
    let (mine, own) = (VarMap::new(), VarMap::new());
    // Built once to make the variables, and again from what they were set to.
    let (_, _) = (ours(builder(&mine)).unwrap(), theirs(builder(&own)).unwrap());
    assert_eq!(names(&mine), names(&own));
    fill(&mine);
    fill(&own);
    let (mine, own) = (ours(builder(&mine)).unwrap(), theirs(builder(&own)).unwrap());
    for train in [false, true] {
        let (a, b) = (mine.forward_t(x, train).unwrap(), own.forward_t(x, train).unwrap());
        let apart = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(apart < 2e-5, "{apart}");
    }
}

#[test]
fn modules_stand_in_for_candles() {
    let x = input(&[6, 4, 8]);
    check(&x, |vb| normkit_candle::layer_norm(8, 1e-5, vb), |vb| candle_nn::layer_norm(8, 1e-5, vb));
    check(
        &x,
        |vb| normkit_candle::layer_norm_no_bias(8, 1e-5, vb),
        |vb| candle_nn::layer_norm_no_bias(8, 1e-5, vb),
    );
    check(&x, |vb| normkit_candle::rms_norm(8, 1e-5, vb), |vb| candle_nn::rms_norm(8, 1e-5, vb));
    check(&x, |vb| normkit_candle::group_norm(2, 4, 1e-5, vb), |vb| candle_nn::group_norm(2, 4, 1e-5, vb));
    check(&x, |vb| normkit_candle::batch_norm(4, 1e-5, vb), |vb| candle_nn::batch_norm(4, 1e-5, vb));
}

/// What candle's fused functions leave out.
#[test]
fn modules_have_gradients() {
    let map = VarMap::new();
    let norm = normkit_candle::layer_norm(8, 1e-5, builder(&map)).unwrap();
    let grads = norm.forward(&input(&[6, 8])).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
    for var in map.all_vars() {
        assert!(grads.get(&var).is_some());
    }
}

#[test]
fn the_others_have_names() {
    let map = VarMap::new();
    let vb = builder(&map);
    let x = input(&[2, 4, 8]);
    let dyt = normkit_candle::dyt(8, 0.5, vb.pp("dyt")).unwrap();
    assert_eq!(dyt.forward(&x).unwrap().dims(), [2, 4, 8]);
    let qk = normkit_candle::qk_norm(8, 1e-6, vb.pp("attn")).unwrap();
    let (q, k) = qk.forward(&x, &x.narrow(1, 0, 2).unwrap()).unwrap();
    assert_eq!((q.dims(), k.dims()), (&[2, 4, 8][..], &[2, 2, 8][..]));
    let weight = normkit_candle::weight_norm(&[3, 8], vb.pp("linear")).unwrap().weight().unwrap();
    let lengths = weight.sqr().unwrap().sum(1).unwrap().to_vec1::<f32>().unwrap();
    assert!(lengths.iter().all(|length| (length - 1.0).abs() < 1e-6));
    let added = normkit_candle::add_rms_norm(8, 1e-6, vb.pp("norm")).unwrap();
    assert_eq!(added.forward(&x, &x).unwrap().1.dims(), [2, 4, 8]);
    let expected = [
        "attn.k_norm.weight",
        "attn.q_norm.weight",
        "dyt.alpha",
        "dyt.bias",
        "dyt.weight",
        "linear.weight_g",
        "linear.weight_v",
        "norm.weight",
    ];
    assert_eq!(names(&map), expected);
}

/// Several threads use one module and differentiate through it.
#[test]
fn modules_are_shared_by_threads() {
    let norm = normkit_candle::LayerNorm::new(input(&[8]), input(&[8]), 1e-5);
    let run = || {
        let x = Var::from_tensor(&input(&[64, 8])).unwrap();
        let grads = norm.forward(&x).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
        grads.get(&x).unwrap().to_vec2::<f32>().unwrap()
    };
    let expected = run();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..20).for_each(|_| assert_eq!(run(), expected)));
        }
    });
}

fn refused(result: Result<Tensor>, message: &str) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains(message), "{error}");
}

#[test]
fn bad_input_is_named() {
    let (x, w, short) = (input(&[3, 4]), input(&[4]), input(&[3]));
    refused(ops::layer_norm(&x, &short, &w, 1e-5), "layer_norm: weight: expected shape [4], found shape [3]");
    refused(ops::layer_norm(&x, &w, &short, 1e-5), "layer_norm: bias: expected");
    refused(ops::layer_norm(&x, &w, &w, -1.0), "layer_norm: eps: expected");
    refused(ops::layer_norm_over(&x, &[], None, None, 1e-5), "normalized_shape");
    refused(ops::layer_norm_over(&x, &[3], None, None, 1e-5), "input: expected a shape that ends with [3]");
    refused(
        ops::layer_norm(&x, &w.to_dtype(DType::F64).unwrap(), &w, 1e-5),
        "weight: expected f16, bf16 or f32",
    );
    refused(
        ops::layer_norm(&x, &w.to_dtype(DType::U8).unwrap(), &w, 1e-5),
        "unsupported dtype U8 for op layer_norm",
    );
    refused(
        ops::layer_norm(&x.to_dtype(DType::I64).unwrap(), &w, &w, 1e-5),
        "unsupported dtype I64 for op layer_norm",
    );
    refused(ops::rms_norm(&input(&[1]).squeeze(0).unwrap(), &w, 1e-5), "out of range");
    refused(
        ops::add_rms_norm(&x, &w, None, 1e-5).map(|(y, _)| y),
        "add_rms_norm: residual: expected shape [3, 4]",
    );
    refused(ops::add_rms_norm(&x, &x, Some(&short), 1e-5).map(|(y, _)| y), "add_rms_norm: weight: expected");
    refused(ops::group_norm(&x, 3, None, None, 1e-5), "num_groups: expected a divisor of num_channels, 4");
    refused(ops::group_norm(&w, 2, None, None, 1e-5), "group_norm: input: expected a shape [N, C, ...]");
    refused(ops::batch_norm(&x, None, None, None, false, 0.1, 1e-5), "batch_norm: running: expected");
    refused(
        ops::batch_norm(&x.narrow(0, 0, 1).unwrap(), None, None, None, true, 0.1, 1e-5),
        "more than one value",
    );
    let (mean, var) = (Var::from_tensor(&short).unwrap(), Var::from_tensor(&w).unwrap());
    refused(
        ops::batch_norm(&x, Some((&mean, &var)), None, None, true, 0.1, 1e-5),
        "running_mean: expected shape [4]",
    );
    let before = numbers(&var);
    refused(ops::batch_norm(&x, Some((&var, &var)), None, None, true, f64::NAN, 1e-5), "momentum: expected");
    assert_eq!(numbers(&var), before);
    refused(ops::dyt(&x, &w, None, None), "dyt: alpha: expected one element");
    refused(ops::dyt(&x, &input(&[1]), Some(&short), Some(&w)), "dyt: weight: expected shape [4]");
    let keys = input(&[3, 5]);
    refused(
        ops::qk_norm(&x, &keys, QkNormKind::Rms, (None, None), 1e-6).map(|(q, _)| q),
        "qk_norm: key: expected",
    );
    refused(ops::weight_norm(&x, &w, Some(2)), "weight_norm: dim: expected an axis of v");
    assert!(normkit_candle::GroupNorm::new(w.clone(), w.clone(), 4, 0, 1e-5).is_err());
    assert!(normkit_candle::GroupNorm::new(w.clone(), w.clone(), 4, 3, 1e-5).is_err());
    let norm = normkit_candle::GroupNorm::new(w.clone(), w, 4, 2, 1e-5).unwrap();
    refused(norm.forward(&input(&[2, 6])), "group_norm: input: expected a shape [N, 4, ...]");
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec1().unwrap()
}
