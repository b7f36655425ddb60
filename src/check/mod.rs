//! The equivalence harness: runs a method on a device and measures its error against the [`oracle`](crate::oracle).
//!
//! A [`Case`] says what to compute, on which values and how they lie in memory; [`cases`] lists the adversarial ones.
//! [`run`] gives an [`Outcome`]: for every output the worst error as a share of what is allowed, and whether the guard
//! elements around it are intact; [`Quantity`] says in which measure.
//!
//! ```
//! use normkit::check::{Case, run};
//! use normkit::{Device, tensor::DType};
//! let case = Case::new("layer_norm", DType::F32, &[4, 31]);
//! let outcome = run(&case, &Device::Cpu)?;
//! assert!(outcome.passed(), "{outcome:?}");
//! # Ok::<(), normkit::Error>(())
//! ```

mod arena;
mod bound;
mod case;
mod cases;
#[cfg(feature = "cuda")]
mod cuda;
mod data;
mod execute;
mod judge;
mod mask;
mod method;
mod operands;
mod placement;
#[cfg(feature = "wgpu")]
mod replay;
#[cfg(feature = "wgpu")]
mod wgpu;

pub use case::{ANY_SPEC, Case, METHODS, Parameters};
pub use cases::{Effort, cases};
pub use data::Fill;
pub use execute::Computed;
pub use judge::{Outcome, Quantity};
pub use mask::{Mask, MaskKind};
pub use method::{Given, HeadKind};
pub use placement::Placement;
#[cfg(feature = "wgpu")]
pub use replay::{Replay, ReplayBuffer, judge_replay, record};

use crate::{Device, Result, Stream};

/// Runs `case` on a device's default stream and judges what it computed.
pub fn run(case: &Case, device: &Device) -> Result<Outcome> {
    run_on(case, &device.stream())
}

/// Runs `case` on a stream, which may force an instruction set or a variant, and judges what it computed.
pub fn run_on(case: &Case, stream: &Stream<'_>) -> Result<Outcome> {
    let executed = execute::execute(case, stream)?;
    judge::judge(case, &executed, stream.device().backend() == "wgpu")
}

/// Runs `case` on a stream and returns what it computed, for comparison with another run.
pub fn compute(case: &Case, stream: &Stream<'_>) -> Result<Vec<Computed>> {
    Ok(execute::execute(case, stream)?.outputs)
}
