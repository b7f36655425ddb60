//! The cases that are checked: those of every method, and steps on the hypersphere, which are no method of this command's but specs
//! of their own.

use crate::method::MethodName;
use normkit::check::{self, ANY_SPEC, Case, Effort};
use normkit::tensor::DType;

/// What has cases, by the names that [`cases`] takes: the method that is asked for, or all.
pub(crate) fn methods(wanted: Option<MethodName>) -> Vec<&'static str> {
    match wanted {
        Some(method) => vec![method.name()],
        None => check::METHODS.iter().copied().chain([ANY_SPEC]).collect(),
    }
}

/// The cases of one of them.
pub(crate) fn cases(method: &str, dtype: DType, effort: Effort) -> Vec<Case> {
    let mut cases = check::cases(method, dtype, effort);
    let is_step = |case: &Case| case.spec.as_ref().is_some_and(|spec| spec.fusion().mix.is_some());
    cases.retain(|case| method != ANY_SPEC || is_step(case));
    cases
}

/// What a report calls it.
pub(crate) fn title(method: &'static str) -> &'static str {
    if method == ANY_SPEC { "hypersphere_step" } else { method }
}
