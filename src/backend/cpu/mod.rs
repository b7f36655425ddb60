//! The CPU backend.
use super::{Backward, Forward};
use crate::spec::Spec;
use crate::{Result, Workspace};
/// How the CPU runs launches.
#[derive(Debug, Clone, Default)]
pub struct Cpu {}
pub(crate) fn forward(_: &Spec, _: Forward<'_>, _: &Cpu) -> Result<()> { Ok(()) }
pub(crate) fn backward(_: &Spec, _: Backward<'_>, _: &mut Workspace, _: &Cpu) -> Result<()> { Ok(()) }
