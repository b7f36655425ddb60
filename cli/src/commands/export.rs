//! `normkit export`

use super::progress;
use crate::arguments::ExportArguments;
use crate::exported::Export;
use crate::failure::{Failure, Result};
use crate::report::Report;
use normkit::Stream;
use normkit::backend::wgpu::{Overrides, Reduction, WgpuDevice};
use normkit::check::{self, Effort};
use normkit::tensor::DType;
use serde_json::json;

pub(super) fn export(arguments: &ExportArguments) -> Result<Report> {
    if arguments.dtype == Some(DType::F64) {
        return Err(Failure::new("nothing to export: WebGPU has no f64"));
    }
    let effort = if arguments.quick { Effort::Quick } else { Effort::Full };
    let methods =
        check::METHODS.iter().filter(|&&m| arguments.method.is_none_or(|wanted| wanted.name() == m));
    let dtypes = || {
        let wanted = |dtype: &DType| arguments.dtype.is_none_or(|wanted| wanted == *dtype);
        [DType::F32, DType::BF16, DType::F16].into_iter().filter(wanted)
    };
    let cases: Vec<_> =
        methods.flat_map(|m| dtypes().flat_map(|dtype| check::cases(m, dtype, effort))).collect();

    let device = WgpuDevice::recording(arguments.subgroup_size)?;
    let workgroup = Overrides { reduction: Some(Reduction::Workgroup), ..Overrides::default() };
    let mut ways = vec![("without subgroups".to_owned(), workgroup)];
    if let Some(size) = arguments.subgroup_size {
        ways.insert(0, (format!("subgroups of {size}"), Overrides::default()));
    }
    let mut export = Export::create(&arguments.directory, arguments.quick)?;
    let bar = progress(cases.len());
    for case in &cases {
        bar.set_message(format!("{} {}", case.method, case.dtype));
        for (way, overrides) in &ways {
            let stream = Stream::Wgpu(device.stream().with_overrides(*overrides)?);
            let replay = check::record(case, &stream).map_err(|error| {
                Failure::new(format!("{} {}, {}: {error}", case.method, case.dtype, case.name))
            })?;
            export.add(case, way, &replay)?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (count, files, bytes) = export.finish()?;
    let text = format!("{count} cases in {files} files, {:.1} MB", bytes as f64 / 1e6);
    Ok(Report::new(text, json!({ "cases": count, "files": files, "bytes": bytes })))
}
