//! Whole methods as their papers and PyTorch write them, on tensors of several axes, with every number worked out by
//! hand: what the oracle's per-row definitions must amount to.

use super::*;
use ndarray::array;

/// The rows of a row-major tensor, as the oracle wants them.
fn rows_of(spec: &Spec, tensor: &[f64]) -> Array2<f64> {
    let index = Index::of_elements(spec);
    Array2::from_shape_fn(index.dim(), |at| tensor[index.at(at)])
}

/// The reverse: a row-major tensor of the oracle's rows.
fn tensor_of(spec: &Spec, rows: &Array2<f64>) -> Vec<f64> {
    let index = Index::of_elements(spec);
    let mut tensor = vec![f64::NAN; rows.len()];
    rows.indexed_iter().for_each(|(at, &x)| tensor[index.at(at)] = x);
    tensor
}

/// `[N, C, L]` = `[2, 2, 2]`; channel 0 holds 1, 3, 5, 7, channel 1 holds 0, 0, 4, 4.
const BATCH: [f64; 8] = [1.0, 3.0, 0.0, 0.0, 5.0, 7.0, 4.0, 4.0];

/// Channel 0: mean 4, variance (9 + 1 + 1 + 9) / 4 = 5, with eps 4 the root is 3. Channel 1: mean 2, variance 4, with
/// eps... of its own, so that the root is a whole number there: eps 5, and 9 - 5 = 4.
#[test]
fn batch_norm() {
    let spec = |eps| Spec::Norm(norm(&[2, 2, 2], &[0, 2], &[1], Statistic::Moments, eps));
    let (weight, bias) = (array![3.0, 6.0], array![1.0, 0.0]);
    let run = |eps| {
        let spec = spec(eps);
        let x = rows_of(&spec, &BATCH);
        let problem = Problem { weight: Some(weight.view()), bias: Some(bias.view()), ..plain(&x) };
        let g = rows_of(&spec, &[1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        let grads = backward(&spec, &problem, g.view()).unwrap();
        (tensor_of(&spec, &forward(&spec, &problem).unwrap().value), grads, tensor_of(&spec, &x))
    };
    // (x - 4) / 3 * 3 + 1 = x - 3 in channel 0.
    let (y, grads, _) = run(4.0);
    assert_eq!([y[0], y[1], y[4], y[5]], [-2.0, 0.0, 2.0, 4.0]);
    // Σ g x_hat = (1 - 4) / 3, Σ g = 1.
    assert_eq!((grads.weight.value[(0, 0)], grads.bias.value[(0, 0)]), (-1.0, 1.0));
    // weight / root * (g - mean(g) - x_hat * mean(g x_hat)) = 1 * (g - 1/4 + x_hat / 4), x_hat = -1, -1/3, 1/3, 1.
    let expected = [0.5, -1.0 / 3.0, -1.0 / 6.0, 0.0];
    assert!(grads.input.value.row(0).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15));
    // (x - 2) / 3 * 6 in channel 1.
    let (y, grads, _) = run(5.0);
    assert_eq!([y[2], y[3], y[6], y[7]], [-4.0, -4.0, 4.0, 4.0]);
    assert!((grads.weight.value[(0, 1)] + 2.0 / 3.0).abs() < 1e-15);
}

/// Inference: (x - running_mean) / sqrt(running_var + eps), and nothing of the batch.
#[test]
fn batch_norm_at_inference() {
    let norm = norm(&[2, 2, 2], &[0, 2], &[1], Statistic::Moments, 1.0);
    let spec = Spec::Norm(Norm { frozen: true, ..norm });
    let (x, weight) = (rows_of(&spec, &BATCH), array![4.0, 1.0]);
    let problem =
        Problem { given: Some(&[(1.0, 3.0), (0.0, 15.0)]), weight: Some(weight.view()), ..plain(&x) };
    let y = tensor_of(&spec, &forward(&spec, &problem).unwrap().value);
    assert_eq!(y, [0.0, 4.0, 0.0, 0.0, 8.0, 12.0, 1.0, 1.0]);
    let ones = Array2::ones((2, 4));
    let grads = backward(&spec, &problem, ones.view()).unwrap();
    assert_eq!(tensor_of(&spec, &grads.input.value), [2.0, 2.0, 0.25, 0.25, 2.0, 2.0, 0.25, 0.25]);
    // Σ (x - 1) / 2 and Σ x / 4.
    assert_eq!(grads.weight.value, array![[6.0, 2.0]]);
}

/// PyTorch's momentum: the weight of the new batch. Unbiased variances: 20 / 3 and 16 / 3.
#[test]
fn running_statistics() {
    let spec = moments(&[2, 2, 2], &[0, 2], &[1]);
    let x = rows_of(&spec, &BATCH);
    let (mean, var) = update_running(&plain(&x), &[(0.0, 1.0), (10.0, 1.0)], 0.25);
    assert_eq!(mean.value, array![[0.25 * 4.0, 0.75 * 10.0 + 0.25 * 2.0]]);
    let expected = [0.75 + 0.25 * 20.0 / 3.0, 0.75 + 0.25 * 16.0 / 3.0];
    assert!(var.value.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15));
    // The batch alone, and nothing of it.
    assert_eq!(update_running(&plain(&x), &[(9.0, 9.0), (9.0, 9.0)], 1.0).0.value, array![[4.0, 2.0]]);
    assert_eq!(update_running(&plain(&x), &[(9.0, 7.0), (9.0, 7.0)], 0.0).1.value, array![[7.0, 7.0]]);
}

/// Four channels of one position in two groups: groups {1, 3} and {2, 8} have means 2 and 5, deviations 1 and 3. Each
/// channel has a weight of its own, shared by the samples.
#[test]
fn group_norm() {
    // [N, groups, channels of a group, positions]
    let spec = moments(&[2, 2, 2, 1], &[2, 3], &[1, 2]);
    let x = rows_of(&spec, &[1.0, 3.0, 2.0, 8.0, 5.0, 5.5, -1.0, 1.0]);
    let (weight, bias) = (array![1.0, 2.0, 3.0, 4.0], array![0.0, 0.0, 0.5, 0.0]);
    let problem = Problem { weight: Some(weight.view()), bias: Some(bias.view()), ..plain(&x) };
    let y = forward(&spec, &problem).unwrap().value;
    assert_eq!(tensor_of(&spec, &y), [-1.0, 2.0, -2.5, 4.0, -1.0, 2.0, -2.5, 4.0]);
    let g = rows_of(&spec, &[1.0, 0.0, 0.0, 2.0, 0.0, 1.0, 0.0, 2.0]);
    let grads = backward(&spec, &problem, g.view()).unwrap();
    assert_eq!(grads.weight.value, array![[-1.0, 1.0, 0.0, 4.0]]);
    assert_eq!(grads.bias.value, array![[1.0, 1.0, 0.0, 4.0]]);
    // Two elements are -1 and 1 wherever they are: no gradient passes.
    assert!(grads.input.value.iter().all(|&g| g == 0.0));
}

/// w = g v / |v| over each row of a matrix, with v = (3, 4): dg = G·u, dv = g / |v| (G - u (G·u)).
#[test]
fn weight_norm() {
    let spec = Spec::Norm(norm(&[2, 2], &[1], &[0], Statistic::Norm(2.0), 0.0));
    let (v, length) = (array![[3.0, 4.0], [0.0, 0.0]], array![10.0, 7.0]);
    let problem = Problem { weight: Some(length.view()), ..plain(&v) };
    let w = forward(&spec, &problem).unwrap().value;
    assert!((w - array![[6.0, 8.0], [0.0, 0.0]]).iter().all(|e| e.abs() < 2e-15));
    let grads = backward(&spec, &problem, array![[5.0, 0.0], [1.0, 1.0]].view()).unwrap();
    assert!((grads.weight.value - array![[3.0, 0.0]]).iter().all(|e| e.abs() < 1e-15));
    // 2 * ((5, 0) - (0.6, 0.8) * 3)
    assert!((grads.input.value - array![[6.4, -4.8], [0.0, 0.0]]).iter().all(|e| e.abs() < 2e-15));
}

/// Over the columns: the same matrix transposed, the same numbers.
#[test]
fn weight_norm_over_another_axis() {
    let spec = Spec::Norm(norm(&[2, 2], &[0], &[1], Statistic::Norm(2.0), 0.0));
    let (v, length) = (rows_of(&spec, &[3.0, 0.0, 4.0, 0.0]), array![10.0, 7.0]);
    let w = forward(&spec, &Problem { weight: Some(length.view()), ..plain(&v) }).unwrap().value;
    let expected = [6.0, 0.0, 8.0, 0.0];
    assert!(tensor_of(&spec, &w).iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-15));
}
