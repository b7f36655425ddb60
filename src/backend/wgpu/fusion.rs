//! What surrounds a norm: which files of `shaders/` say so, and which operands its passes have for it.

use super::operand::Operand;
use super::variant::{Entry, Role};
use crate::Result;
use crate::backend::Backward;
use crate::backend::codes::Scaling;
use crate::spec::{Activation, Epilogue, Fusion, Prologue};

/// A prologue, as far as it is compiled into a shader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Before {
    #[default]
    None,
    Residual,
    /// A residual beside scales that are not both one.
    ScaledResidual,
    Gate,
}

/// An epilogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum After {
    #[default]
    None,
    Residual,
    Gate,
    Activation(Activation),
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

    fn file(self) -> &'static str {
        match self {
            Before::None => shader!("prologue_none"),
            Before::Residual | Before::ScaledResidual => shader!("prologue_residual"),
            Before::Gate => shader!("prologue_gate"),
        }
    }
}

impl After {
    pub(super) fn of(fusion: Fusion) -> Self {
        match fusion.epilogue {
            Epilogue::None => After::None,
            Epilogue::Residual => After::Residual,
            Epilogue::Gate => After::Gate,
            Epilogue::Activation(function) => After::Activation(function),
        }
    }

    fn files(self) -> Vec<&'static str> {
        let function = match self {
            After::None => return vec![shader!("epilogue_none")],
            After::Residual => return vec![shader!("epilogue_residual")],
            After::Gate => return vec![shader!("epilogue_gate")],
            After::Activation(Activation::Relu) => shader!("activation_relu"),
            After::Activation(Activation::Silu) => shader!("activation_silu"),
            After::Activation(Activation::Gelu) => shader!("activation_gelu"),
            After::Activation(Activation::GeluTanh) => shader!("activation_gelu_tanh"),
        };
        vec![function, shader!("epilogue_activation")]
    }

    /// Whether the gradient of `v` depends on `v`.
    pub(super) fn is_curved(self) -> bool {
        matches!(self, After::Activation(_))
    }
}

/// The files that say what surrounds a norm.
pub(super) fn files(before: Before, after: After) -> Vec<&'static str> {
    let is_exact = after == After::Activation(Activation::Gelu);
    let smooth = matches!(after, After::Gate | After::Activation(Activation::Silu | Activation::GeluTanh));
    let mut files = Vec::new();
    if before == Before::Gate || smooth || is_exact {
        files.extend([shader!("exponential"), shader!("sigma")]);
    }
    if is_exact {
        files.push(shader!("normal"));
    }
    files.push(before.file());
    files.extend(after.files());
    files
}

/// The files that say whether a result becomes codes.
pub(super) fn of_codes(scaling: Option<Scaling>) -> Vec<&'static str> {
    match scaling {
        None => vec![shader!("codes_none")],
        Some(Scaling::Static) => vec![shader!("codes"), shader!("codes_given")],
        Some(Scaling::Row) => vec![shader!("codes"), shader!("codes_looking"), shader!("codes_row")],
        Some(Scaling::Block) => vec![shader!("codes"), shader!("codes_looking"), shader!("codes_block")],
    }
}

/// The operands that a kernel has for a fusion only.
pub(super) fn operands(entry: Entry) -> &'static [&'static str] {
    match entry {
        Entry::NormForward => &["before", "after", "hidden", "scales"],
        Entry::NormBackward => &["bias", "before", "after", "grad_hidden", "grad_before", "grad_after"],
        Entry::Affine => &["weight", "bias", "before", "after"],
        _ => &[],
    }
}

/// What a backward pass reads to make `h` of the input and the gradient of `v` of the output's; `value` says whether it
/// needs `v` itself.
pub(super) fn of_terms(operands: &Backward<'_>, after: After, value: bool) -> Result<[Option<Operand>; 3]> {
    // The gradient of a residual is that of the output.
    let gate = operands.after.as_ref().filter(|_| after == After::Gate);
    let bias = operands.bias.as_ref().filter(|_| value);
    Ok([
        Operand::new("bias", Role::Load, bias)?,
        Operand::new("before", Role::Load, operands.before.as_ref())?,
        Operand::new("after", Role::Load, gate)?,
    ])
}
