//! A mix of two norms: the shares that it makes of alpha are the weights of the norms, and the gradient of alpha is made of those
//! of the weights. They are float32 or float64 numbers that nothing rounds, in memory that the calling thread keeps.

use super::Cpu;
use super::launch::{alone, with_kept, with_scratch};
use super::norm;
use super::norm_backward;
use super::real::Real;
use crate::backend::{Backward, Forward};
use crate::plan::tree::LEAF;
use crate::spec::Norm;
use crate::tensor::{Layout, View, ViewMut};
use crate::{Error, Result, Workspace};

/// The numbers of alpha, from the first element of a row on.
fn fill<F: Real>(spec: &Norm, alpha: &View<'_>, cpu: &Cpu, to: &mut [F]) -> Result<()> {
    let folded = alone(cpu.isa, &spec.affine.contract(alpha.layout())?, 0);
    let source = folded.source("alpha", alpha, 0, false)?;
    for (index, piece) in to.chunks_mut(LEAF).enumerate() {
        source.fill(0, index * LEAF, piece);
    }
    Ok(())
}

/// `alpha_scale * alpha`, whose magnitude is the share of the residual.
fn product<F: Real>(spec: &Norm, alpha: F) -> F {
    alpha * scale(spec)
}

fn scale<F: Real>(spec: &Norm) -> F {
    F::of(spec.fusion.mix.map_or(1.0, |mix| mix.alpha_scale))
}

/// Puts the share of the input to `rest`, and that of the residual to `share`.
fn put_shares<F: Real>(spec: &Norm, alpha: &View<'_>, cpu: &Cpu, [rest, share]: [&mut [F]; 2]) -> Result<()> {
    fill(spec, alpha, cpu, share)?;
    for (rest, share) in rest.iter_mut().zip(share) {
        *share = product(spec, *share).abs();
        *rest = F::ONE - *share;
    }
    Ok(())
}

/// How numbers of columns lie in the shape of the spec.
fn in_rows(spec: &Norm) -> Result<Layout> {
    let own = Layout::contiguous(&spec.affine.shape);
    spec.affine.expand(&spec.shape, &own).ok_or_else(no_alpha)
}

/// What the arguments' checks exclude.
fn no_alpha() -> Error {
    Error::argument("alpha", "one number for each column", "none")
}

pub(super) fn forward<F: Real>(spec: &Norm, operands: Forward<'_>, cpu: &Cpu) -> Result<()> {
    let cols = spec.affine.shape.iter().product::<usize>();
    let layout = in_rows(spec)?;
    with_kept::<F, _>(2 * cols, |numbers| {
        let mut operands = operands;
        let (Some(inner), Some(mix)) = (&mut operands.inner, &mut operands.mix) else {
            return Err(no_alpha());
        };
        let (rest, share) = numbers.split_at_mut(cols);
        put_shares(spec, &mix.alpha, cpu, [rest, share])?;
        inner.weight = Some(View::strided(rest, layout.clone())?);
        mix.weight = Some(View::strided(share, layout)?);
        norm::forward::<F>(spec, &operands, cpu)
    })
}

pub(super) fn backward<F: Real>(
    spec: &Norm,
    operands: Backward<'_>,
    workspace: &mut Workspace,
    cpu: &Cpu,
) -> Result<()> {
    let cols = spec.affine.shape.iter().product::<usize>();
    let layout = in_rows(spec)?;
    let mut operands = operands;
    let Some(mix) = &mut operands.mix else { return Err(no_alpha()) };
    let (alpha, grad_alpha) = (mix.alpha.clone(), mix.grad_alpha.take());
    with_kept::<F, _>(4 * cols, |numbers| {
        let (shares, sums) = numbers.split_at_mut(2 * cols);
        {
            let mut operands = operands;
            let (Some(inner), Some(mix)) = (&mut operands.inner, &mut operands.mix) else {
                return Err(no_alpha());
            };
            let (rest, share) = shares.split_at_mut(cols);
            put_shares(spec, &alpha, cpu, [rest, share])?;
            inner.weight = Some(View::strided(rest, layout.clone())?);
            mix.weight = Some(View::strided(share, layout.clone())?);
            if grad_alpha.is_some() {
                let (of_rest, of_share) = sums.split_at_mut(cols);
                inner.grad_weight = Some(ViewMut::strided(of_rest, layout.clone())?);
                mix.grad_weight = Some(ViewMut::strided(of_share, layout)?);
            }
            norm_backward::backward::<F>(spec, &operands, workspace, cpu)?;
        }
        let Some(target) = grad_alpha else { return Ok(()) };
        let (gradient, of_share) = (&mut shares[..cols], &sums[cols..]);
        fill(spec, &alpha, cpu, gradient)?;
        for ((gradient, &of_rest), &of_share) in gradient.iter_mut().zip(&sums[..cols]).zip(of_share) {
            let sign = sign(product(spec, *gradient));
            *gradient = ((of_share - of_rest) * scale(spec)) * sign;
        }
        write(spec, gradient, &target, cpu)
    })
}

/// -1, 0 or 1; NaN stays.
fn sign<F: Real>(z: F) -> F {
    if z > F::ZERO {
        F::ONE
    } else if z < F::ZERO {
        -F::ONE
    } else {
        z.abs()
    }
}

/// Writes numbers of columns to a tensor that is seen in the shape of the spec.
fn write<F: Real>(spec: &Norm, numbers: &[F], target: &ViewMut<'_>, cpu: &Cpu) -> Result<()> {
    let folded = alone(cpu.isa, &spec.affine.contract(target.layout())?, 0);
    let sink = folded.sink("grad_alpha", target, 0)?;
    with_scratch::<F, _>(0, |[tile, ..], _| {
        for (index, piece) in numbers.chunks(LEAF).enumerate() {
            let at = index * LEAF;
            let out = sink.begin(0, at, tile, piece.len());
            out.copy_from_slice(piece);
            sink.commit(0, at, out);
        }
    });
    Ok(())
}
