//! The builder calls that put other operations around a norm, in its one pass over memory.

use super::Parameters;
use crate::spec::{Epilogue, Prologue};
use crate::tensor::View;
use crate::{Error, Result};

/// The builder calls of methods that other operations can be fused with.
macro_rules! bind_fusion {
    () => {
        /// Normalizes `h = input + residual`, whose shape is the input's; `h` itself is the
        /// [hidden](crate::Method::forward_hidden) value. Its gradient is that of both, beside the one that `h` has of its own.
        pub fn residual(self, residual: &'a impl $crate::tensor::Tensor) -> Self {
            self.scaled_residual(1.0, residual, 1.0)
        }

        /// As [`residual`](Self::residual), for a view.
        pub fn residual_view(self, residual: $crate::tensor::View<'a>) -> Self {
            self.scaled_residual_view(1.0, residual, 1.0)
        }

        /// Normalizes `h = input_scale * input + residual_scale * residual` (DeepNorm: 1 and alpha).
        pub fn scaled_residual(
            mut self,
            input_scale: f64,
            residual: &'a impl $crate::tensor::Tensor,
            residual_scale: f64,
        ) -> Self {
            let prologue = $crate::spec::Prologue::Residual { input_scale, residual_scale };
            self.parameters.fuse_before(prologue, Some(residual.view()));
            self
        }

        /// As [`scaled_residual`](Self::scaled_residual), for a view.
        pub fn scaled_residual_view(
            mut self,
            input_scale: f64,
            residual: $crate::tensor::View<'a>,
            residual_scale: f64,
        ) -> Self {
            let prologue = $crate::spec::Prologue::Residual { input_scale, residual_scale };
            self.parameters.fuse_before(prologue, Some(Ok(residual)));
            self
        }

        /// Leaves elements of the input out of the sum with a residual, at random, and scales the others up:
        /// [`Dropout`](crate::spec::Dropout) says which. A backward pass is to have the same numbers.
        pub fn dropout(mut self, probability: f64, seed: u64, offset: u64) -> Self {
            self.parameters.fusion.dropout = Some($crate::spec::Dropout { probability, seed, offset });
            self
        }

        /// Adds `bias` to the input before a residual is added to that: `h = input_scale * (input + bias) + residual_scale *
        /// residual`, as the bias of the linear layer that the input is the result of. Its shape is the weight's, and its
        /// gradient [a sum over rows](crate::Grads::branch_bias) like the weight's. Elements that dropout leaves out have none.
        pub fn branch_bias(mut self, bias: &'a impl $crate::tensor::Tensor) -> Self {
            self.parameters.bind_branch_bias(bias.view());
            self
        }

        /// As [`branch_bias`](Self::branch_bias), for a view.
        pub fn branch_bias_view(mut self, bias: $crate::tensor::View<'a>) -> Self {
            self.parameters.bind_branch_bias(Ok(bias));
            self
        }

        /// Multiplies the input by `scale` before a residual is added to it (LayerScale), after the
        /// [bias](Self::branch_bias): `h = input_scale * scale * (input + bias) + residual_scale * residual`. Its shape is the
        /// weight's, and its gradient [a sum over rows](crate::Grads::branch_scale) like the weight's, which needs the input: a
        /// backward pass [of the hidden value](Self::of_hidden) cannot give it.
        pub fn branch_scale(mut self, scale: &'a impl $crate::tensor::Tensor) -> Self {
            self.parameters.bind_branch_scale(scale.view());
            self
        }

        /// As [`branch_scale`](Self::branch_scale), for a view.
        pub fn branch_scale_view(mut self, scale: $crate::tensor::View<'a>) -> Self {
            self.parameters.bind_branch_scale(Ok(scale));
            self
        }

        /// For a backward pass: its input is the hidden value `h = input_scale * input + residual_scale * residual`, so
        /// neither needs to be there.
        pub fn of_hidden(mut self, input_scale: f64, residual_scale: f64) -> Self {
            let prologue = $crate::spec::Prologue::Residual { input_scale, residual_scale };
            self.parameters.fuse_before(prologue, None);
            self
        }

        /// Normalizes `input * silu(gate)`, `silu(z) = z / (1 + exp(-z))`. The gate has the input's shape.
        pub fn input_gate(mut self, gate: &'a impl $crate::tensor::Tensor) -> Self {
            self.parameters.fuse_before($crate::spec::Prologue::Gate, Some(gate.view()));
            self
        }

        /// As [`input_gate`](Self::input_gate), for a view.
        pub fn input_gate_view(mut self, gate: $crate::tensor::View<'a>) -> Self {
            self.parameters.fuse_before($crate::spec::Prologue::Gate, Some(Ok(gate)));
            self
        }

        /// Multiplies the result by `silu(gate)`. The gate has the input's shape.
        pub fn output_gate(mut self, gate: &'a impl $crate::tensor::Tensor) -> Self {
            self.parameters.fuse_after($crate::spec::Epilogue::Gate, Some(gate.view()));
            self
        }

        /// As [`output_gate`](Self::output_gate), for a view.
        pub fn output_gate_view(mut self, gate: $crate::tensor::View<'a>) -> Self {
            self.parameters.fuse_after($crate::spec::Epilogue::Gate, Some(Ok(gate)));
            self
        }

        /// Adds `residual` to the result. It has the input's shape.
        pub fn output_residual(mut self, residual: &'a impl $crate::tensor::Tensor) -> Self {
            self.parameters.fuse_after($crate::spec::Epilogue::Residual, Some(residual.view()));
            self
        }

        /// As [`output_residual`](Self::output_residual), for a view.
        pub fn output_residual_view(mut self, residual: $crate::tensor::View<'a>) -> Self {
            self.parameters.fuse_after($crate::spec::Epilogue::Residual, Some(Ok(residual)));
            self
        }

        /// Applies a function to the result.
        pub fn activation(mut self, activation: $crate::spec::Activation) -> Self {
            self.parameters.fuse_after($crate::spec::Epilogue::Activation(activation), None);
            self
        }

        /// The same with its parameters changed.
        #[cfg(feature = "check")]
        pub(crate) fn with_parameters(
            mut self,
            change: impl FnOnce(&mut $crate::norm::Parameters<'a>),
        ) -> Self {
            change(&mut self.parameters);
            self
        }
    };
}
pub(crate) use bind_fusion;

impl<'a> Parameters<'a> {
    pub(super) fn fuse_before(&mut self, prologue: Prologue, operand: Option<Result<View<'a>>>) {
        if self.fusion.prologue != Prologue::None {
            self.error = Some(one_each("prologue"));
        }
        self.fusion.prologue = prologue;
        self.before = self.viewed(operand);
    }

    pub(super) fn fuse_after(&mut self, epilogue: Epilogue, operand: Option<Result<View<'a>>>) {
        if self.fusion.epilogue != Epilogue::None {
            self.error = Some(one_each("epilogue"));
        }
        self.fusion.epilogue = epilogue;
        self.after = self.viewed(operand);
    }

    pub(super) fn bind_branch_bias(&mut self, bias: Result<View<'a>>) {
        self.fusion.branch.bias = true;
        self.branch_bias = self.viewed(Some(bias));
    }

    pub(super) fn bind_branch_scale(&mut self, scale: Result<View<'a>>) {
        self.fusion.branch.scale = true;
        self.branch_scale = self.viewed(Some(scale));
    }

    fn viewed(&mut self, operand: Option<Result<View<'a>>>) -> Option<View<'a>> {
        match operand.transpose() {
            Ok(view) => view,
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }
}

fn one_each(name: &'static str) -> Error {
    Error::argument(name, "one: a residual, a gate, an activation or a rotary embedding", "two")
}
