//! `normkit export`

use super::progress;
use crate::arguments::ExportArguments;
use crate::exported::{Export, hash};
use crate::failure::{Failure, Result};
use crate::report::Report;
use normkit::Stream;
use normkit::backend::wgpu::{Overrides, Reduction, WgpuDevice};
use normkit::check::{self, Case, Effort, Replay};
use normkit::tensor::DType;
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
    let mut sample = Sample { most: arguments.shaders, taken: HashMap::new() };
    let bar = progress(cases.len());
    let mut refused = 0;
    for case in &cases {
        bar.set_message(format!("{} {}", case.method, case.dtype));
        for (subgroup, overrides) in &ways {
            let stream = Stream::Wgpu(device.stream().with_overrides(*overrides)?);
            let name = || format!("{} {}, {}", case.method, case.dtype, case.name);
            let replay =
                check::record(case, &stream).map_err(|error| Failure::new(format!("{}: {error}", name())))?;
            if !replay.is_portable() {
                refused += 1;
            } else if sample.takes(case, *subgroup, &replay) {
                let way = subgroup.map_or("without subgroups".into(), |size| format!("subgroups of {size}"));
                export.add(case, &way, &replay)?;
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (count, files, bytes) = export.finish()?;
    let mut text = format!("{count} cases in {files} files, {:.1} MB", bytes as f64 / 1e6);
    if refused > 0 {
        text += &format!(
            "\n{refused} cases left out: their operands overlap in the bindings of one buffer, which browsers refuse"
        );
    }
    Ok(Report::new(text, json!({ "cases": count, "refused": refused, "files": files, "bytes": bytes })))
}

/// The cases that were asked for: first those as they occur in networks, the others in an order that mixes methods and
/// dtypes, so that a sample has some of each.
fn cases(arguments: &ExportArguments) -> Vec<Case> {
    let effort = if arguments.quick { Effort::Quick } else { Effort::Full };
    let mut cases = Vec::new();
    for method in check::METHODS.iter().filter(|&&m| arguments.method.is_none_or(|wanted| wanted.name() == m))
    {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            if arguments.dtype.is_none_or(|wanted| wanted == dtype) {
                cases.extend(check::cases(method, dtype, effort));
            }
        }
    }
    cases.sort_by_cached_key(|case| {
        let text = format!("{} {} {}", case.method, case.dtype, case.name);
        (!case.well_conditioned, hash(text.as_bytes()))
    });
    cases
}

/// Which cases are exported where shaders are limited. Shaders are what costs: a software adapter compiles one for
/// seconds and runs it in milliseconds.
struct Sample {
    most: Option<usize>,
    /// The hashes of the shaders that are exported of each kind.
    taken: HashMap<Kind, HashSet<u64>>,
}

/// Shaders that share a limit: a kernel's in one way for one dtype, those for long rows apart.
#[derive(PartialEq, Eq, Hash)]
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
        let long =
            subgroup.is_some_and(|size| case.lower().is_ok_and(|spec| spec.cols() > 64 * size as usize));
        let most = if long { 1 } else { most };
        let shaders = replay.dispatches.iter().map(|dispatch| {
            let kind = Kind { entry: dispatch.entry, subgroup, dtype: case.dtype, long };
            (kind, hash(dispatch.source.as_bytes()))
        });
        let shaders: HashSet<(Kind, u64)> = shaders.collect();
        let fits = shaders.iter().all(|(kind, shader)| {
            self.taken.get(kind).is_none_or(|taken| taken.contains(shader) || taken.len() < most)
        });
        let takes = fits || case.well_conditioned && !long;
        if takes {
            shaders.into_iter().for_each(|(kind, shader)| {
                self.taken.entry(kind).or_default().insert(shader);
            });
        }
        takes
    }
}
