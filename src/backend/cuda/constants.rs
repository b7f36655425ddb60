//! What of a norm's spec is compiled into kernels, and what they are told.

use super::params::Scalars;
use super::variant::Flags;
use crate::Result;
use crate::backend::codes;
use crate::backend::cpu::real::Real;
use crate::backend::kind::Kind;
use crate::plan::tree;
use crate::spec::{Epilogue, EpsPosition, Norm, Statistic};
use crate::tensor::DType;

/// What of a spec is compiled into a kernel that works on rows' numbers or elements.
pub(super) fn flags(spec: &Norm) -> Result<Flags> {
    Ok(Flags {
        kind: Kind::of(spec.statistic)?,
        prefix: spec.prefix < cols(spec),
        outside: spec.eps_position == EpsPosition::Outside,
        ..Flags::default()
    })
}

fn cols(spec: &Norm) -> usize {
    spec.reduced.iter().map(|&axis| spec.shape[axis]).product()
}

/// What of a spec is told at run time.
pub(super) fn scalars(spec: &Norm, compute: DType) -> Scalars {
    match compute {
        DType::F64 => scalars_of::<f64>(spec),
        _ => scalars_of::<f32>(spec),
    }
}

/// eps, the scale exponent that it asks for, and the divisor's reciprocal where the statistic is zero.
fn of_eps<F: Real>(eps: f64, position: EpsPosition) -> (F, i32, F) {
    let eps = F::of(eps);
    let exponent = F::exponent(eps.magnitude());
    match position {
        EpsPosition::Inside => (eps, exponent.div_euclid(2), eps.rsqrt()),
        EpsPosition::Outside | EpsPosition::Floor => (eps, exponent, eps.recip()),
    }
}

fn scalars_of<F: Real>(spec: &Norm) -> Scalars {
    let (eps, eps_exponent, eps_rstd) = of_eps::<F>(spec.eps, spec.eps_position);
    let cols = cols(spec);
    let last = cols - cols.saturating_sub(1) / tree::LEAF * tree::LEAF;
    let p = if let Statistic::Norm(p) = spec.statistic { p } else { 2.0 };
    let inverse = 1.0 / p;
    let rounded = |x: f64| F::of(x).to_f64();
    // A number and what is missing to it, `rest` being what float64 has missed of it already.
    let two_numbers = |x: f64, rest: f64| [rounded(x), rounded((x - rounded(x)) + rest)];
    Scalars {
        prefix: spec.prefix as i64,
        leaves: 1,
        turns: 1,
        eps_exponent,
        inv_last: rounded(1.0 / last as f64),
        eps: eps.to_f64(),
        eps_rstd: eps_rstd.to_f64(),
        weight_offset: rounded(spec.weight_offset),
        power: two_numbers(p, 0.0),
        inv_power: two_numbers(inverse, inverse.mul_add(-p, 1.0) * inverse),
        slope_power: two_numbers(p - 1.0, 0.0),
        pairs: match spec.fusion.epilogue {
            Epilogue::Rotary { dims, .. } => (dims / 2) as i64,
            _ => 0,
        },
        head: spec.shape.last().map_or(0, |&cols| cols as i64),
        scales: spec.fusion.scales().map(rounded),
        dropout: spec.fusion.dropout.map_or([0; 5], |dropout| {
            let ([key_0, key_1], [upper_0, upper_1]) = (dropout.key(), dropout.upper());
            [key_0, key_1, upper_0, upper_1, dropout.threshold()]
        }),
        block: spec.fusion.quantization.and_then(|codes| codes.block(cols)).unwrap_or(0) as i64,
        codes: codes::numbers(spec.fusion.quantization).map(f64::from),
        outlier: f64::from(codes::outlier(spec.fusion.quantization)),
        ..match spec.fusion.inner {
            None => Scalars::default(),
            Some(inner) => {
                let (eps, inner_eps_exponent, eps_rstd) = of_eps::<F>(inner.eps, inner.eps_position);
                let of_inner = [eps.to_f64(), eps_rstd.to_f64(), rounded(inner.weight_offset)];
                let inner_prefix = inner.prefix as i64;
                Scalars { inner: of_inner, inner_prefix, inner_eps_exponent, ..Scalars::default() }
            }
        }
    }
}
