//! Running statistics: what BatchNorm keeps of its batches.

use super::real::Real;
use super::{Expected, Problem};

/// With `n` elements in a row and `factor` the share of the batch:
///
/// ```text
/// batch_mean   = Σ x / n
/// batch_var    = Σ (x - batch_mean)² / (n - 1)
/// running_mean = (1 - factor) * running_mean + factor * batch_mean
/// running_var  = (1 - factor) * running_var  + factor * batch_var
/// ```
///
/// Gives the new mean and variance, `[1, rows]` each.
pub fn update_running<R: Real>(
    problem: &Problem<'_, R>,
    running: &[(R, R)],
    factor: f64,
) -> (Expected<R>, Expected<R>) {
    let (mut means, mut vars) = (Expected::zeros(1, running.len()), Expected::zeros(1, running.len()));
    let (old, new) = (R::new(1.0) - R::new(factor), R::new(factor));
    for (row, &(mean, var)) in running.iter().enumerate() {
        let x: Vec<R> = (0..problem.input.ncols())
            .filter(|&col| problem.takes_part((row, col)))
            .map(|col| problem.input[(row, col)])
            .collect();
        let n = R::new(x.len() as f64);
        // As in layer_norm, counted from the first element.
        let shift = x.first().copied().unwrap_or(R::new(0.0));
        let from_shift = R::sum(x.iter().map(|&x| x - shift)) / n;
        let squares = x.iter().map(|&x| (x - shift - from_shift) * (x - shift - from_shift));
        let batch_var = R::sum(squares) / (n - R::new(1.0));
        let batch_mag = R::sum(x.iter().map(|x| x.abs())) / n;
        let (mean_mag, var_mag) = (old * mean.abs() + new * batch_mag, old * var + new * batch_var);
        means.set((0, row), old * mean + new * (shift + from_shift), mean_mag.to_f64());
        vars.set((0, row), var_mag, var_mag.to_f64());
    }
    (means, vars)
}
