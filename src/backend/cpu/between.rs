//! Launches on the few numbers of each row, between the passes over tensors.

use super::Isa;
use super::launch::alone;
use super::real::Real;
use super::sink::Sink;
use super::source::Source;
use super::statistics::{Constants, Moments, Statistics, Sums};
use crate::Result;
use crate::backend::Between;
use crate::spec::{MOMENTS, Norm, SUMS};
use crate::tensor::{Layout, View, ViewMut};

/// A constant's part that does not depend on a row's length.
fn constants<F: Real>(norm: &Norm) -> Constants<F> {
    Constants::new(Isa::Portable, norm, 1, F::DTYPE)
}

pub(super) fn run<F: Real>(launch: Between<'_>) -> Result<()> {
    match launch {
        Between::MergeMoments { norm, parts, output } => {
            let measure = constants::<F>(norm).measure;
            merge::<F, MOMENTS>(parts, &output, |a, b| {
                Moments::from_numbers(a).merged(measure, Moments::from_numbers(b)).to_numbers()
            })
        }
        Between::MergeSums { parts, output } => merge::<F, SUMS>(parts, &output, |a, b| {
            Sums::from_numbers(a).merged(Sums::from_numbers(b)).to_numbers()
        }),
        Between::Finish { norm, moments, output } => {
            let constants = constants::<F>(norm);
            let rows = rows_of(output.layout());
            with_source("moments", &moments, |moments| {
                with_sink("statistics", &output, |output| {
                    for row in 0..rows {
                        let moments = Moments::from_numbers(moments.numbers(row, MOMENTS));
                        output.put(row, &moments.finished(&constants).to_numbers());
                    }
                })
            })?
        }
        Between::FromRunning { norm, mean, var, output } => {
            let eps = constants::<F>(norm).eps;
            let rows = rows_of(output.layout());
            with_source("running_mean", &mean, |mean| {
                with_source("running_var", &var, |var| {
                    with_sink("statistics", &output, |output| {
                        for row in 0..rows {
                            let s = Statistics::from_running(element(mean, row), element(var, row), eps);
                            output.put::<F>(row, &s.to_numbers());
                        }
                    })
                })?
            })?
        }
        Between::UpdateRunning { moments, mean, var, factor } => {
            let (keep, take) = (F::of(1.0 - factor), F::of(factor));
            let rows = rows_of(moments.layout());
            with_source("moments", &moments, |moments| {
                update::<F>("running_mean", &mean, rows, |row, running| {
                    let m = Moments::from_numbers(moments.numbers(row, MOMENTS));
                    keep * running + take * m.batch_mean()
                })?;
                update::<F>("running_var", &var, rows, |row, running| {
                    let m = Moments::from_numbers(moments.numbers(row, MOMENTS));
                    keep * running + take * m.unbiased_variance()
                })
            })?
        }
    }
}

fn rows_of(layout: &Layout) -> usize {
    layout.shape().first().copied().unwrap_or(0)
}

/// Runs `body` on a tensor whose first axis counts rows.
fn with_source<R>(name: &'static str, view: &View<'_>, body: impl FnOnce(&Source<'_>) -> R) -> Result<R> {
    let folded = alone(Isa::Portable, &in_rows(view.layout()), 1);
    Ok(body(&folded.source(name, view, 0, false)?))
}

/// As [`with_source`], to write.
fn with_sink<R>(name: &'static str, view: &ViewMut<'_>, body: impl FnOnce(&Sink<'_>) -> R) -> Result<R> {
    let folded = alone(Isa::Portable, &in_rows(view.layout()), 1);
    Ok(body(&folded.sink(name, view, 0)?))
}

/// One number a row is a row of one.
fn in_rows(layout: &Layout) -> Layout {
    let mut shape = layout.shape().to_vec();
    let mut strides = layout.strides().to_vec();
    if shape.len() == 1 {
        shape.push(1);
        strides.push(1);
    }
    Layout::strided(&shape, &strides, layout.offset()).unwrap_or_else(|_| layout.clone())
}

/// A row's only number, of any dtype.
fn element<F: Real>(source: &Source<'_>, row: usize) -> F {
    let mut one = [F::ZERO];
    source.fill(row, 0, &mut one);
    one[0]
}

/// `view[row] = new(row, view[row])`.
fn update<F: Real>(
    name: &'static str,
    view: &ViewMut<'_>,
    rows: usize,
    new: impl Fn(usize, F) -> F,
) -> Result<()> {
    let before = view.as_view();
    with_source(name, &before, |before| {
        with_sink(name, view, |after| {
            for row in 0..rows {
                let mut one = [F::ZERO];
                let to = after.begin(row, 0, &mut one, 1);
                let value = new(row, element(before, row));
                to[0] = value;
                after.commit(row, 0, to);
            }
        })
    })?
}

/// Merges the parts' numbers, row by row, in order.
fn merge<F: Real, const N: usize>(
    parts: &[View<'_>],
    output: &ViewMut<'_>,
    merged: impl Fn(&[F], &[F]) -> [F; N],
) -> Result<()> {
    let rows = rows_of(output.layout());
    with_sink("output", output, |output| {
        for (index, part) in parts.iter().enumerate() {
            with_source("parts", part, |part| {
                for row in 0..rows {
                    let numbers = part.numbers(row, N);
                    if index == 0 {
                        output.put(row, numbers);
                    } else {
                        let so_far = output.numbers::<F, N>(row);
                        output.put(row, &merged(&so_far, numbers));
                    }
                }
            })?;
        }
        Ok(())
    })?
}
