//! The cases that are checked: those of every method, and steps on the hypersphere, which are no method of this command's but specs
//! of their own.

use clap::ValueEnum;
use clap::builder::PossibleValue;
use normkit::check::{self, ANY_SPEC, Case, Effort};
use normkit::tensor::DType;

/// What has cases, by the name that [`cases`] takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed(&'static str);

/// All of it, in the order of reports.
const ALL: [Listed; check::METHODS.len() + 1] = {
    let mut all = [Listed(ANY_SPEC); check::METHODS.len() + 1];
    let mut index = 0;
    while index < check::METHODS.len() {
        all[index] = Listed(check::METHODS[index]);
        index += 1;
    }
    all
};

impl ValueEnum for Listed {
    fn value_variants<'a>() -> &'a [Self] {
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(title(self.0)))
    }
}

/// What is asked for, or all.
pub(crate) fn methods(wanted: Option<Listed>) -> Vec<&'static str> {
    ALL.iter()
        .filter(|&&listed| wanted.is_none_or(|wanted| wanted == listed))
        .map(|listed| listed.0)
        .collect()
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
