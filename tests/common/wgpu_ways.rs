//! The schedules that the WebGPU backend can be forced to.

use normkit::Stream;
use normkit::backend::wgpu::{Overrides, Reduction, Style, WgpuDevice};

/// Each way to run a norm.
pub(crate) fn forced() -> [(&'static str, Overrides); 6] {
    let of =
        |style, split, reduction| Overrides { style: Some(style), split, reduction, ..Overrides::default() };
    [
        ("as it comes", Overrides::default()),
        ("row", of(Style::Row, false, None)),
        ("column", of(Style::Column, false, None)),
        ("row split", of(Style::Row, true, None)),
        ("column split", of(Style::Column, true, None)),
        ("row through workgroup memory", of(Style::Row, false, Some(Reduction::Workgroup))),
    ]
}

/// Complains of what `differences` finds in any of these problems, each in the schedule of its number.
#[allow(dead_code, reason = "one of the tests that share it has its own")]
pub(crate) fn check<P>(
    device: &WgpuDevice,
    problems: &[(usize, P)],
    differences: impl Fn(&P, &Stream<'_>, &str) -> Vec<String>,
) {
    let mut different = Vec::new();
    for (index, problem) in problems {
        let (name, overrides) = forced()[index % 6];
        let stream = Stream::Wgpu(device.stream().with_overrides(overrides).unwrap());
        different.extend(differences(problem, &stream, name));
    }
    assert!(different.is_empty(), "{} results differ:\n{}", different.len(), different.join("\n"));
}
