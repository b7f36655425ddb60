//! The learned tensors of a method, and the builder calls that bind them.

use super::RotaryTables;
use crate::spec::Fusion;
use crate::tensor::{Tensor, View};
use crate::{Error, Result};

/// The learned tensors a method was given. A method ignores none of them: those it has no use for are absent.
#[derive(Clone, Default)]
pub struct Parameters<'a> {
    /// Multiplies the normalized value.
    pub weight: Option<View<'a>>,
    /// Added last.
    pub bias: Option<View<'a>>,
    /// A scalar inside an elementwise function; one element.
    pub alpha: Option<View<'a>>,
    /// Which elements take part: those where it is not zero. Broadcasts to the input's shape.
    pub mask: Option<View<'a>>,
    /// What is done before and after the norm.
    pub fusion: Fusion,
    /// The other operand of the fusion's prologue: of the input's shape.
    pub before: Option<View<'a>>,
    /// The other operand of its epilogue: of the input's shape.
    pub after: Option<View<'a>>,
    /// Added to the input before a residual is: of the weight's shape.
    pub branch_bias: Option<View<'a>>,
    /// Multiplies that: of the weight's shape.
    pub branch_scale: Option<View<'a>>,
    /// The cosines and sines of a rotary epilogue.
    pub tables: Option<Box<RotaryTables<'a>>>,
    /// Weight and bias of the norms of trailing axes may vary along any axes.
    pub(super) broadcast: bool,
    /// A tensor whose view could not be made; reported by the next call.
    pub(super) error: Option<Error>,
}

impl<'a> Parameters<'a> {
    /// Refuses to go on without alpha; one whose view could not be made is reported by itself.
    pub(super) fn check_alpha_bound(&self) -> Result<()> {
        match (&self.alpha, &self.error) {
            (None, None) => Err(Error::argument("alpha", "a tensor of one element", "none")),
            _ => Ok(()),
        }
    }

    pub(super) fn bind(&mut self, slot: fn(&mut Self) -> &mut Option<View<'a>>, tensor: &'a impl Tensor) {
        match tensor.view() {
            Ok(view) => *slot(self) = Some(view),
            Err(error) => self.error = Some(error),
        }
    }
}

/// A builder call that binds a parameter, and the same for a view.
macro_rules! bind {
    ($(#[$doc:meta])+ $name:ident, $name_view:ident => $slot:ident) => {
        $(#[$doc])+
        pub fn $name(mut self, $name: &'a impl $crate::tensor::Tensor) -> Self {
            self.parameters.bind(|p| &mut p.$slot, $name);
            self
        }

        #[doc = concat!("As [`", stringify!($name), "`](Self::", stringify!($name), "), for a view.")]
        pub fn $name_view(mut self, $name: $crate::tensor::View<'a>) -> Self {
            self.parameters.$slot = Some($name);
            self
        }
    };
}
pub(crate) use bind;

/// The builder calls that methods with a weight and a bias share.
macro_rules! bind_weight_and_bias {
    () => {
        $crate::norm::bind! {
            /// Multiplies the normalized value by `weight`, whose shape is the normalized shape.
            weight, weight_view => weight
        }
        $crate::norm::bind! {
            /// Adds `bias`, whose shape is the normalized shape.
            bias, bias_view => bias
        }
    };
}
pub(crate) use bind_weight_and_bias;

/// The builder calls of methods with a learned scalar inside their function.
macro_rules! bind_alpha {
    () => {
        $crate::norm::bind! {
            /// The learned scalar inside the function: one element.
            alpha, alpha_view => alpha
        }
    };
}
pub(crate) use bind_alpha;

/// The builder calls of methods whose statistics may leave elements out.
macro_rules! bind_mask {
    () => {
        $crate::norm::bind! {
            /// Only elements where `mask` is not zero take part: the others are not read into statistics, and their
            /// output and gradient are zero, as is a row's that has none. Any float dtype; broadcasts to the input's
            /// shape.
            mask, mask_view => mask
        }
    };
}
pub(crate) use bind_mask;

/// The builder call of norms of trailing axes whose weight and bias may vary along others.
macro_rules! bind_broadcast {
    () => {
        /// Weight and bias, and those of a residual's branch, may have as many axes as the input, of which those of size 1 repeat:
        /// one of each sample, of each token or of each group of columns.
        pub fn broadcast_parameters(mut self) -> Self {
            self.parameters.broadcast = true;
            self
        }
    };
}
pub(crate) use bind_broadcast;
