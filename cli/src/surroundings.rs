//! What the command line can put around a norm.

use clap::{Args, ValueEnum};
use normkit::spec::{Activation, Epilogue, Fusion, Prologue};

/// What is done before the norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Before {
    /// Add a residual, and write the sum
    Residual,
    /// Multiply by silu(gate)
    Gate,
}

/// What is done after the norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum After {
    /// max(v, 0)
    Relu,
    /// v / (1 + exp(-v))
    Silu,
    /// The exact GELU
    Gelu,
    /// GELU by way of tanh
    GeluTanh,
    /// Add a residual
    Residual,
    /// Multiply by silu(gate)
    Gate,
}

/// What is done in the norm's pass over memory besides.
#[derive(Args, Default, Clone, Copy)]
pub(crate) struct Surroundings {
    /// Do this before the norm, in the same pass
    #[arg(long, requires = "method")]
    pub(crate) before: Option<Before>,
    /// Do this after the norm, in the same pass
    #[arg(long, requires = "method")]
    pub(crate) after: Option<After>,
}

impl Surroundings {
    pub(crate) fn fusion(self) -> Fusion {
        let prologue = match self.before {
            None => Prologue::None,
            Some(Before::Residual) => Prologue::Residual { input_scale: 1.0, residual_scale: 1.0 },
            Some(Before::Gate) => Prologue::Gate,
        };
        let epilogue = match self.after {
            None => Epilogue::None,
            Some(After::Relu) => Epilogue::Activation(Activation::Relu),
            Some(After::Silu) => Epilogue::Activation(Activation::Silu),
            Some(After::Gelu) => Epilogue::Activation(Activation::Gelu),
            Some(After::GeluTanh) => Epilogue::Activation(Activation::GeluTanh),
            Some(After::Residual) => Epilogue::Residual,
            Some(After::Gate) => Epilogue::Gate,
        };
        Fusion { prologue, epilogue, ..Fusion::default() }
    }

    /// Tensors as large as the input that a forward and a backward pass move beside those of the norm alone. `is_exact`
    /// tells that the sum with a residual is, in its dtype, so that the backward pass reads it alone.
    pub(crate) fn transfers(self, is_exact: bool) -> [usize; 2] {
        let before = match self.before {
            None => [0, 0],
            // The residual and the sum; the sum's own gradient, and the residual unless the sum stands for both.
            Some(Before::Residual) => [2, if is_exact { 1 } else { 2 }],
            Some(Before::Gate) => [1, 2],
        };
        let after = match self.after {
            Some(After::Residual) => [1, 0],
            Some(After::Gate) => [1, 2],
            _ => [0, 0],
        };
        [before[0] + after[0], before[1] + after[1]]
    }

    /// As the tables say it.
    pub(crate) fn label(self) -> String {
        let name =
            |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_string());
        let before = name(self.before.and_then(|before| before.to_possible_value()));
        let after = name(self.after.and_then(|after| after.to_possible_value()));
        let before = before.map_or(String::new(), |name| format!(", {name} before"));
        before + &after.map_or(String::new(), |name| format!(", {name} after"))
    }
}
