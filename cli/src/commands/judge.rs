//! `normkit judge`

use super::check::{Found, report};
use super::progress;
use crate::arguments::JudgeArguments;
use crate::exported::Exported;
use crate::failure::{Failure, Result};
use crate::report::Report;
use normkit::check;

pub(super) fn judge(arguments: &JudgeArguments) -> Result<Report> {
    let exported = Exported::read(&arguments.directory)?;
    if exported.is_empty() {
        return Err(Failure::file(&arguments.directory, "no cases"));
    }
    let bar = progress(exported.len());
    let mut all: Vec<Found> = Vec::new();
    for item in &exported {
        let mut case = item.case.clone();
        let listed = all.iter().position(|found| found.is_of(&case));
        let index = listed.unwrap_or(all.len());
        if listed.is_none() {
            all.push(Found::new("exported", case.method, case.dtype));
        }
        let found = &mut all[index];
        found.cases += 1;
        // From here on the name is for people.
        case.name = format!("{}, {}", case.name, item.way);
        let outcome = item.result().and_then(|memory| Ok(check::judge_replay(&item.case, &memory)?));
        match outcome {
            Ok(outcome) => found.add(&case, &outcome),
            Err(Failure(reason)) => found.broken.push(format!("{}: {reason}", case.name)),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    // The export mixes them.
    all.sort_by_key(Found::order);
    Ok(report(&all, &[]))
}
