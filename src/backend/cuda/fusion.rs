//! What of a fusion is compiled into kernels; `kernels/fusion.cuh` says what it does.

use crate::spec::{Activation, Epilogue, Fusion, Prologue};

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
        }
    }
}
