//! `normkit devices`

use crate::failure::Result;
use crate::report::Report;
use normkit::backend::cpu::Isa;
use serde_json::{Value, json};

pub(super) fn devices() -> Result<Report> {
    let sets: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    let threads = rayon::current_num_threads();
    let architecture = std::env::consts::ARCH;
    let mut text =
        format!("cpu   {architecture}, {threads} threads; instruction sets: {}\n", sets.join(", "));
    let cpu =
        json!({ "usable": true, "architecture": architecture, "threads": threads, "instruction_sets": sets });
    let (lines, wgpu) = wgpu();
    text += &lines;
    let reason = "not built yet: normkit has no CUDA backend";
    text += &format!("cuda  no: {reason}\n");
    let cuda = json!({ "usable": false, "reason": reason });
    Ok(Report::new(text, json!({ "cpu": cpu, "wgpu": wgpu, "cuda": cuda })))
}

/// Each adapter and whether it can be used.
#[cfg(feature = "wgpu")]
fn wgpu() -> (String, Value) {
    todo_wgpu()
}

#[cfg(not(feature = "wgpu"))]
fn wgpu() -> (String, Value) {
    let reason = "this command was built without the feature `wgpu`";
    (format!("wgpu  no: {reason}\n"), json!({ "usable": false, "reason": reason }))
}
