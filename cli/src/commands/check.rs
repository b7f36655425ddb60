//! `normkit check`

use super::progress;
use crate::arguments::CheckArguments;
use crate::device::Place;
use crate::failure::{Failure, Result};
use crate::listed;
use crate::report::{Report, table};
use normkit::check::{self, Case, Effort, Outcome, Quantity};
use normkit::tensor::DType;
use serde_json::{Value, json};

/// Broken cases that are shown of a method and dtype: a shader that does not compile breaks all of them alike.
const SHOWN: usize = 10;

/// What was found for a method and dtype on a backend, over all cases.
pub(super) struct Found {
    backend: &'static str,
    method: &'static str,
    dtype: DType,
    pub(super) cases: usize,
    /// The worst error, in units of what the promise allows, and the case and quantity it was found in.
    worst: f64,
    worst_at: String,
    /// The worst error of an output in units of the last place, over the well-conditioned cases.
    ulp: Option<f64>,
    /// The smallest share of correctly rounded elements, where it was counted.
    rounded: Option<f64>,
    pub(super) broken: Vec<String>,
}

pub(super) fn check(arguments: &CheckArguments) -> Result<Report> {
    let (places, missing) = Place::find(arguments.backend, &arguments.overrides)?;
    let effort = if arguments.quick { Effort::Quick } else { Effort::Full };
    let dtypes =
        || DType::FLOATS.into_iter().filter(|&dtype| arguments.dtype.is_none_or(|wanted| wanted == dtype));
    let mut plan = Vec::new();
    for place in &places {
        place.self_test()?;
        for method in listed::methods(arguments.method) {
            for dtype in dtypes().filter(|&dtype| place.has(dtype)) {
                plan.push((place, method, dtype, listed::cases(method, dtype, effort)));
            }
        }
    }
    let bar = progress(plan.iter().map(|(.., cases)| cases.len()).sum());
    let mut all = Vec::new();
    for (place, method, dtype, cases) in &plan {
        bar.set_message(format!("{} {} {dtype}", place.backend(), listed::title(method)));
        let mut found = Found::new(place.backend(), method, *dtype);
        found.cases = cases.len();
        let stream = place.stream()?;
        for case in cases {
            match check::run_on(case, &stream) {
                Ok(outcome) => found.add(case, &outcome),
                Err(error) => found.broken.push(format!("{}: {error}", case.name)),
            }
            bar.inc(1);
        }
        all.push(found);
    }
    bar.finish_and_clear();
    if all.iter().all(|found| found.cases == 0) {
        return Err(Failure::new("nothing to check: no chosen backend has arithmetic for this dtype"));
    }
    Ok(report(&all, &missing))
}

impl Found {
    pub(super) fn new(backend: &'static str, method: &'static str, dtype: DType) -> Self {
        let (worst_at, broken) = (String::new(), Vec::new());
        Found { backend, method, dtype, cases: 0, worst: 0.0, worst_at, ulp: None, rounded: None, broken }
    }

    /// Whether the case belongs here.
    #[cfg(feature = "wgpu")]
    pub(super) fn is_of(&self, case: &Case) -> bool {
        (self.method, self.dtype) == (case.method, case.dtype)
    }

    /// Where it stands in a report: by method and dtype, as they are listed.
    #[cfg(feature = "wgpu")]
    pub(super) fn order(&self) -> (Option<usize>, Option<usize>) {
        let method = listed::methods(None).iter().position(|&method| method == self.method);
        (method, DType::FLOATS.iter().position(|&dtype| dtype == self.dtype))
    }

    pub(super) fn add(&mut self, case: &Case, outcome: &Outcome) {
        for quantity in &outcome.quantities {
            let place = format!("{}, {}", case.name, quantity.name);
            // NaN is the worst there is.
            if quantity.worst.is_nan() || quantity.worst > self.worst || self.worst_at.is_empty() {
                (self.worst, self.worst_at) = (quantity.worst, place.clone());
            }
            if case.well_conditioned && quantity.name == "output" {
                self.ulp = Some(self.ulp.map_or(quantity.ulp, |ulp| ulp.max(quantity.ulp)));
            }
            self.rounded = match (self.rounded, quantity.rounded) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            if !quantity.passed() {
                self.broken.push(format!("{place}: {}", verdict(quantity)));
            }
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "backend": self.backend,
            "method": listed::title(self.method),
            "dtype": self.dtype.name(),
            "cases": self.cases,
            "worst": self.worst,
            "worst_at": self.worst_at,
            "ulp": self.ulp,
            "correctly_rounded": self.rounded,
            "broken": self.broken,
        })
    }
}

/// What a quantity has broken, in words.
fn verdict(quantity: &Quantity) -> String {
    let mut words = vec![format!("error {:.3} of what is allowed", quantity.worst)];
    if let Some((row, col)) = quantity.at {
        words[0] += &format!(", at row {row}, column {col}");
    }
    if let Some(share) = quantity.rounded {
        words.push(format!("{:.3} % correctly rounded", 100.0 * share));
    }
    if !quantity.guards_intact {
        words.push("wrote outside its tensor".into());
    }
    words.join("; ")
}

pub(super) fn report(all: &[Found], missing: &[String]) -> Report {
    let rows = all.iter().map(|found| {
        vec![
            found.backend.into(),
            listed::title(found.method).into(),
            found.dtype.to_string(),
            found.cases.to_string(),
            format!("{:.3}", found.worst),
            found.ulp.map_or("-".into(), |ulp| format!("{ulp:.2}")),
            found.rounded.map_or("-".into(), |share| format!("{:.3} %", 100.0 * share)),
            if found.broken.is_empty() { "kept".into() } else { format!("{} BROKEN", found.broken.len()) },
        ]
    });
    let header =
        ["backend", "method", "dtype", "cases", "error/bound", "ulp", "correctly rounded", "promise"];
    let mut text = table(&header, &rows.collect::<Vec<_>>(), 3);
    text += "\nerror/bound: the worst error over all cases, in units of the error that is promised at most.\n\
             ulp, correctly rounded: of the outputs of cases as they occur in networks.\n";
    for found in all {
        let place = format!("{} {} {}", found.backend, listed::title(found.method), found.dtype);
        for broken in found.broken.iter().take(SHOWN) {
            text += &format!("\nBroken: {place}: {broken}");
        }
        if found.broken.len() > SHOWN {
            text += &format!("\nBroken: {place}: {} more, which --json lists", found.broken.len() - SHOWN);
        }
    }
    missing.iter().for_each(|reason| text += &format!("\nNot checked: {reason}\n"));
    let kept = all.iter().all(|found| found.broken.is_empty());
    let results: Vec<Value> = all.iter().map(Found::to_json).collect();
    let json = json!({ "kept": kept, "results": results, "not_checked": missing });
    Report { text, json, kept }
}
