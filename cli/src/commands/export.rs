//! `normkit export`

use super::progress;
use crate::arguments::ExportArguments;
use crate::exported::{Export, hash};
use crate::failure::{Failure, Result};
use crate::listed;
use crate::report::Report;
use normkit::backend::wgpu::{Overrides, Reduction, WgpuDevice};
use normkit::check::{self, Case, Effort, Replay};
use normkit::tensor::DType;
use normkit::{Error, Stream};
use serde_json::json;
use std::collections::{HashMap, HashSet};

pub(super) fn export(arguments: &ExportArguments) -> Result<Report> {
    if arguments.dtype == Some(DType::F64) {
        return Err(Failure::new("nothing to export: WebGPU has no f64"));
    }
    let cases = cases(arguments);
    let device = WgpuDevice::recording(arguments.subgroup_size)?;
    let workgroup = Overrides { reduction: Some(Reduction::Workgroup), ..Overrides::default() };
    let mut ways = vec![(None, workgroup)];
    ways.extend(arguments.subgroup_size.map(|size| (Some(size), Overrides::default())));
    let mut export = Export::create(&arguments.directory, arguments.quick)?;
    let mut sample = Sample { most: arguments.shaders, there: HashSet::new(), counts: HashMap::new() };
    let bar = progress(cases.len());
    let (mut overlapping, mut too_large) = (0, 0);
    for case in &cases {
        bar.set_message(format!("{} {}", listed::title(case.method), case.dtype));
        let mut plain: Option<Replay> = None;
        for (subgroup, overrides) in &ways {
            let stream = Stream::Wgpu(device.stream().with_overrides(*overrides)?);
            let way = || subgroup.map_or("without subgroups".into(), |size| format!("subgroups of {size}"));
            match check::record(case, &stream) {
                Err(Error::Limit { .. }) => too_large += 1,
                // As `check` does: a case that fails hides no other.
                Err(error) => export.add_refused(case, &way(), &error.to_string()),
                // Elsewhere an overlap is a fault, which the browser is to name.
                Ok(replay) if case.one_buffer && !replay.is_portable() => overlapping += 1,
                // Nothing in it combines the numbers of threads.
                Ok(replay) if plain.as_ref().is_some_and(|plain| has_same_shaders(plain, &replay)) => {}
                Ok(replay) => {
                    if sample.takes(case, *subgroup, &replay) {
                        export.add(case, &way(), &replay)?;
                    }
                    plain = Some(replay);
                }
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (count, files, bytes) = export.finish()?;
    let mut text = format!("{count} cases in {files} files, {:.1} MB", bytes as f64 / 1e6);
    if overlapping > 0 {
        text += &format!(
            "\n{overlapping} cases left out: their operands overlap in the bindings of one buffer, which browsers refuse"
        );
    }
    if too_large > 0 {
        text += &format!(
            "\n{too_large} cases left out: they exceed a limit that every WebGPU device has at least"
        );
    }
    let left_out = overlapping + too_large;
    Ok(Report::new(text, json!({ "cases": count, "left_out": left_out, "files": files, "bytes": bytes })))
}

/// The cases that were asked for: first those as they occur in networks, then the others, one of each method and dtype
/// in turn, so that a sample has some of all.
fn cases(arguments: &ExportArguments) -> Vec<Case> {
    let effort = if arguments.quick { Effort::Quick } else { Effort::Full };
    let mut cases = Vec::new();
    for method in listed::methods(arguments.method) {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            if arguments.dtype.is_none_or(|wanted| wanted == dtype) {
                cases.extend(listed::cases(method, dtype, effort));
            }
        }
    }
    cases.sort_by_cached_key(|case| hash(format!("{} {} {}", case.method, case.dtype, case.name).as_bytes()));
    let mut turns: HashMap<(&str, DType), usize> = HashMap::new();
    cases.sort_by_cached_key(|case| {
        let turn = turns.entry((case.method, case.dtype)).or_default();
        *turn += 1;
        (!case.well_conditioned, *turn)
    });
    cases
}

fn has_same_shaders(a: &Replay, b: &Replay) -> bool {
    let sources = |replay: &Replay| replay.dispatches.iter().map(|d| d.source.clone()).collect::<Vec<_>>();
    sources(a) == sources(b)
}

/// Which cases are exported where shaders are limited. Shaders are what costs: a software adapter compiles one for
/// seconds and runs it in milliseconds.
struct Sample {
    most: Option<usize>,
    /// The hashes of the shaders that are exported.
    there: HashSet<u64>,
    /// How many of each kind are exported because the limit allowed it.
    counts: HashMap<Kind, usize>,
}

/// Shaders that share a limit: a kernel's in one way for one dtype, those for long rows apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    entry: &'static str,
    subgroup: Option<u32>,
    dtype: DType,
    long: bool,
}

impl Sample {
    /// Whether the case is exported in a way: all its shaders are there already, or the limit leaves room for those
    /// that are not, or it is as in networks.
    fn takes(&mut self, case: &Case, subgroup: Option<u32>, replay: &Replay) -> bool {
        let Some(most) = self.most else { return true };
        // A thread of a small subgroup owns so much of a long row that Chromium's software adapter compiles the
        // kernel for 5 to 28 s, and others for 1 to 3 s. One of each kind has to do.
        let cols = case.lower().map_or(0, |spec| spec.cols());
        let long = subgroup.is_some_and(|size| cols > 64 * size as usize);
        let most = if long { 1 } else { most };
        let shaders = replay.dispatches.iter().map(|dispatch| {
            let kind = Kind { entry: dispatch.entry, subgroup, dtype: case.dtype, long };
            (hash(dispatch.source.as_bytes()), kind)
        });
        let new: HashMap<u64, Kind> = shaders.filter(|(shader, _)| !self.there.contains(shader)).collect();
        let mut counts = self.counts.clone();
        new.values().for_each(|kind| *counts.entry(*kind).or_default() += 1);
        if case.well_conditioned && !long {
            // Beside the limit.
        } else if new.values().all(|kind| counts[kind] <= most) {
            self.counts = counts;
        } else {
            return false;
        }
        self.there.extend(new.keys());
        true
    }
}
