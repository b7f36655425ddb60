//! What surrounds a norm: which files of `shaders/` say so, and which operands its passes have for it.

use super::launch::Scalars;
use super::operand::Operand;
use super::variant::{Entry, Role, Style};
use crate::Result;
use crate::backend::codes::Scaling;
use crate::backend::{Backward, Rotary};
use crate::spec::{Activation, Epilogue, Fusion, Norm, Prologue, RotaryStyle};

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
    /// A rotary embedding: whether pairs are halves of what is rotated, not neighbours, and whether they are whole quads.
    Rotary {
        halves: bool,
        whole: bool,
    },
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
    pub(super) fn of(fusion: Fusion, head: usize) -> Self {
        match fusion.epilogue {
            Epilogue::None => After::None,
            Epilogue::Residual => After::Residual,
            Epilogue::Gate => After::Gate,
            Epilogue::Activation(function) => After::Activation(function),
            Epilogue::Rotary { style, dims } => {
                let rotation = Rotation { style, pairs: dims / 2, head };
                After::Rotary { halves: style == RotaryStyle::HalfSplit, whole: rotation.is_whole() }
            }
        }
    }

    fn files(self) -> Vec<&'static str> {
        let function = match self {
            After::None => return vec![shader!("epilogue_none")],
            After::Residual => return vec![shader!("epilogue_residual")],
            After::Gate => return vec![shader!("epilogue_gate")],
            After::Rotary { .. } => return vec![shader!("epilogue_rotary")],
            After::Activation(Activation::Relu) => shader!("activation_relu"),
            After::Activation(Activation::Silu) => shader!("activation_silu"),
            After::Activation(Activation::Gelu) => shader!("activation_gelu"),
            After::Activation(Activation::GeluTanh) => shader!("activation_gelu_tanh"),
        };
        vec![function, shader!("epilogue_activation")]
    }

    /// What it does to the output's gradient, where its file does not say.
    pub(super) fn back(self) -> Option<&'static str> {
        matches!(self, After::Rotary { .. }).then_some(shader!("rotary_back"))
    }

    /// How the elements of a row are written in each pass: by themselves, or by pairs of columns that lie apart.
    pub(super) fn writing(self, style: Style) -> [Vec<&'static str>; 2] {
        if !self.has_pairs_apart(style) {
            return [vec![shader!("emit_each")], vec![shader!("again_each")]];
        }
        let pairs = styled!(style, "pairs");
        [vec![pairs, shader!("emit_pairs")], vec![pairs, shader!("again_pairs")]]
    }

    /// Whether both of a pair of columns are not among those that a thread of a norm's kernel works on at a time.
    pub(super) fn has_pairs_apart(self, style: Style) -> bool {
        match self {
            After::Rotary { halves, .. } => halves || style == Style::Column,
            _ => false,
        }
    }

    /// Whether the gradient of `v` depends on `v`.
    pub(super) fn is_curved(self) -> bool {
        matches!(self, After::Activation(_))
    }
}

/// A rotary embedding's pairs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rotation {
    pub(super) style: RotaryStyle,
    pub(super) pairs: usize,
    /// Columns of a head.
    pub(super) head: usize,
}

impl Rotation {
    pub(super) fn of(spec: &Norm) -> Option<Self> {
        let Epilogue::Rotary { style, dims } = spec.fusion.epilogue else { return None };
        Some(Rotation { style, pairs: dims / 2, head: spec.shape.last().copied()? })
    }

    /// Whether the other columns of pairs of which four neighbours are some are four neighbours, too, in any of several heads.
    pub(super) fn is_whole(&self) -> bool {
        match self.style {
            RotaryStyle::HalfSplit => self.pairs.is_multiple_of(4) && self.head.is_multiple_of(4),
            RotaryStyle::Interleaved => self.head.is_multiple_of(2),
        }
    }
}

/// `scalars` with what a launch is told of a rotary embedding's tables.
pub(super) fn chosen(scalars: Scalars, rotary: Option<&Rotary<'_>>) -> Scalars {
    // Offsets wrap around.
    let choice = rotary.map_or([0; 3], |rotary| rotary.choice().map(|number| number as u32));
    Scalars { choice, ..scalars }
}

/// What a rotary embedding reads.
pub(super) fn tables(rotary: Option<&Rotary<'_>>, spec: &Norm) -> Result<[Option<Operand>; 3]> {
    let (Some(rotary), Some(&head)) = (rotary, spec.shape.last()) else { return Ok([None, None, None]) };
    let table = |name, view| Operand::table(name, rotary, view, head);
    Ok([table("cos", &rotary.cos)?, table("sin", &rotary.sin)?, Operand::positions(rotary, head)?])
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
        Entry::NormForward => &[
            "before",
            "after",
            "hidden",
            "scales",
            "cos",
            "sin",
            "positions",
            "branch_bias",
            "branch_scale",
            "inner_weight",
            "inner_bias",
            "inner_statistics",
            "mix_weight",
            "mix_statistics",
        ],
        Entry::NormBackward => &[
            "bias",
            "before",
            "after",
            "grad_hidden",
            "grad_before",
            "grad_after",
            "cos",
            "sin",
            "positions",
            "branch_bias",
            "branch_scale",
            "inner_weight",
            "inner_bias",
            "inner_statistics",
            "mix_weight",
            "mix_statistics",
        ],
        Entry::Affine => &[
            "weight",
            "bias",
            "before",
            "after",
            "given",
            "grad_hidden",
            "cos",
            "sin",
            "positions",
            "branch_bias",
            "branch_scale",
            "inner_weight",
            "inner_bias",
            "inner_statistics",
        ],
        _ => &[],
    }
}

/// What a backward pass reads to make `h` of the input and the gradient of `v` of the output's; `value` says whether it
/// needs `v` itself, and `returns` whether it goes from the gradient of `h` to that of the input.
pub(super) fn of_terms(
    spec: &Norm,
    operands: &Backward<'_>,
    after: After,
    value: bool,
    returns: bool,
) -> Result<[Option<Operand>; 8]> {
    // The gradient of a residual is that of the output.
    let gate = operands.after.as_ref().filter(|_| after == After::Gate);
    let bias = operands.bias.as_ref().filter(|_| value);
    let [cos, sin, positions] = tables(operands.rotary.as_ref(), spec)?;
    let before = operands.before.as_ref();
    let branch_bias = operands.branch_bias.as_ref().filter(|_| before.is_some());
    let branch_scale = operands.branch_scale.as_ref().filter(|_| before.is_some() || returns);
    Ok([
        cos,
        sin,
        positions,
        Operand::new("bias", Role::Load, bias)?,
        Operand::new("before", Role::Load, before)?,
        Operand::new("after", Role::Load, gate)?,
        Operand::new("branch_bias", Role::Load, branch_bias)?,
        Operand::new("branch_scale", Role::Load, branch_scale)?,
    ])
}
