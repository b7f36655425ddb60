//! What of a fusion is compiled into kernels; `kernels/fusion.cuh` says what it does.

use super::launch::{Operand, Role};
use super::params::Scalars;
use crate::Result;
use crate::backend::Rotary;
use crate::spec::{Activation, Epilogue, Fusion, Prologue, RotaryStyle};

/// What is normalized, as `params.cuh` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) enum Before {
    #[default]
    None,
    Residual,
    /// At least one of both has a factor.
    ScaledResidual,
    Gate,
}

/// What becomes of what the norm gives, likewise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) enum After {
    #[default]
    None,
    Relu,
    Silu,
    Gelu,
    GeluTanh,
    Residual,
    Gate,
    /// Rotary embeddings, by what makes a pair.
    RotaryHalves,
    RotaryNeighbours,
}

impl Before {
    pub(super) fn of(fusion: Fusion) -> Self {
        match fusion.prologue {
            Prologue::None => Before::None,
            Prologue::Residual { .. } if fusion.scales() == [1.0; 2] => Before::Residual,
            Prologue::Residual { .. } => Before::ScaledResidual,
            Prologue::Gate => Before::Gate,
        }
    }

    /// In C++.
    pub(super) fn name(self) -> &'static str {
        match self {
            Before::None => "None",
            Before::Residual => "Residual",
            Before::ScaledResidual => "ScaledResidual",
            Before::Gate => "Gate",
        }
    }
}

impl After {
    pub(super) fn of(epilogue: Epilogue) -> Self {
        match epilogue {
            Epilogue::None => After::None,
            Epilogue::Activation(Activation::Relu) => After::Relu,
            Epilogue::Activation(Activation::Silu) => After::Silu,
            Epilogue::Activation(Activation::Gelu) => After::Gelu,
            Epilogue::Activation(Activation::GeluTanh) => After::GeluTanh,
            Epilogue::Residual => After::Residual,
            Epilogue::Gate => After::Gate,
            Epilogue::Rotary { style: RotaryStyle::HalfSplit, .. } => After::RotaryHalves,
            Epilogue::Rotary { style: RotaryStyle::Interleaved, .. } => After::RotaryNeighbours,
        }
    }

    /// In C++.
    pub(super) fn name(self) -> &'static str {
        match self {
            After::None => "None",
            After::Relu => "Relu",
            After::Silu => "Silu",
            After::Gelu => "Gelu",
            After::GeluTanh => "GeluTanh",
            After::Residual => "Residual",
            After::Gate => "Gate",
            After::RotaryHalves => "RotaryHalves",
            After::RotaryNeighbours => "RotaryNeighbours",
        }
    }
}

/// `scalars` with what a launch is told of a rotary embedding's tables.
pub(super) fn chosen(scalars: Scalars, rotary: Option<&Rotary<'_>>) -> Scalars {
    let choice = rotary.map_or([0; 3], |rotary| rotary.choice().map(|number| number as i64));
    Scalars { choice, ..scalars }
}

/// What a rotary embedding reads, walked with a row's `cols` columns.
pub(super) fn tables(rotary: Option<&Rotary<'_>>, cols: usize) -> Result<[Option<Operand>; 3]> {
    let Some(rotary) = rotary else { return Ok([None, None, None]) };
    // Neighbours share an angle, and take it one by one.
    let role = if rotary.style == RotaryStyle::HalfSplit { Role::Load } else { Role::Number };
    let table = |name, view| Operand::laid_out(name, role, view, rotary.layout(view, cols)).map(Some);
    let positions = rotary.positions.as_ref().zip(rotary.positions_layout(cols));
    let positions =
        positions.map(|(view, layout)| Operand::laid_out("positions", Role::Number, view, layout));
    Ok([table("cos", &rotary.cos)?, table("sin", &rotary.sin)?, positions.transpose()?])
}

/// What columns that a thread works on at a time must divide, so that all of them are first columns of pairs, or none, and of one
/// head; `cols` are a head's.
pub(super) fn run(rotary: Option<&Rotary<'_>>, cols: usize) -> usize {
    match rotary {
        Some(rotary) if rotary.style == RotaryStyle::HalfSplit => greatest_divisor(rotary.pairs, cols),
        Some(_) => cols,
        None => 0,
    }
}

fn greatest_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}
