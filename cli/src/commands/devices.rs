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
    let (lines, cuda) = cuda();
    text += &lines;
    Ok(Report::new(text, json!({ "cpu": cpu, "wgpu": wgpu, "cuda": cuda })))
}

/// Each adapter and whether it can be used.
#[cfg(feature = "wgpu")]
fn wgpu() -> (String, Value) {
    use normkit::backend::wgpu::{WgpuDevice, adapters};
    // The device that a program gets which asks for no adapter by name.
    let default = WgpuDevice::new();
    let mut text = match &default {
        Ok(device) => format!("wgpu  {}\n", device.info().name),
        Err(error) => format!("wgpu  no: {error}\n"),
    };
    let mut list = Vec::new();
    for adapter in adapters() {
        let kind = if adapter.software { "software" } else { "hardware" };
        let (smallest, largest) = adapter.subgroup_sizes;
        text += &format!("      - {} ({}, {kind}, {})", adapter.name, adapter.interface, adapter.driver);
        text += &match &adapter.unusable {
            Some(reason) => format!(": no: {reason}\n"),
            None if adapter.subgroups => format!(": subgroups of {smallest} to {largest}\n"),
            None => ": no subgroups\n".into(),
        };
        list.push(json!({
            "name": adapter.name,
            "interface": adapter.interface,
            "driver": adapter.driver,
            "software": adapter.software,
            "subgroups": adapter.subgroups,
            "subgroup_sizes": [smallest, largest],
            "shader_f16": adapter.shader_f16,
            "max_binding": adapter.max_binding,
            "unusable": adapter.unusable,
        }));
    }
    let (name, reason) = match default {
        Ok(device) => (Some(device.info().name), None),
        Err(error) => (None, Some(error.to_string())),
    };
    (text, json!({ "usable": name.is_some(), "default": name, "reason": reason, "adapters": list }))
}

#[cfg(not(feature = "wgpu"))]
fn wgpu() -> (String, Value) {
    let reason = "this command was built without the feature `wgpu`";
    (format!("wgpu  no: {reason}\n"), json!({ "usable": false, "reason": reason }))
}

/// Each GPU and whether it can be used.
#[cfg(feature = "cuda")]
fn cuda() -> (String, Value) {
    use normkit::backend::cuda::{CudaDevice, devices};
    // NVRTC is looked for by the device only.
    let default = CudaDevice::new();
    let mut text = match &default {
        Ok(device) => format!("cuda  {}; {}\n", device.info().name, device.info().compiler),
        Err(error) => format!("cuda  no: {error}\n"),
    };
    let gpus = devices().unwrap_or_default();
    for gpu in &gpus {
        let (major, minor) = gpu.capability;
        let memory = gpu.memory >> 20;
        text += &format!(
            "      - {}: {} (compute capability {major}.{minor}, {memory} MiB)",
            gpu.ordinal, gpu.name
        );
        text += &gpu.unusable.as_ref().map_or("\n".into(), |reason| format!(": no: {reason}\n"));
    }
    let list: Vec<Value> = (gpus.iter())
        .map(|gpu| {
            json!({
                "name": gpu.name,
                "ordinal": gpu.ordinal,
                "compute_capability": [gpu.capability.0, gpu.capability.1],
                "memory": gpu.memory,
                "driver": gpu.driver.map(|(major, minor)| format!("{major}.{minor}")),
                "unusable": gpu.unusable,
            })
        })
        .collect();
    let reason = default.as_ref().err().map(ToString::to_string);
    let compiler = default.as_ref().ok().map(|device| device.info().compiler.clone());
    (text, json!({ "usable": default.is_ok(), "compiler": compiler, "reason": reason, "gpus": list }))
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> (String, Value) {
    let reason = "this command was built without the feature `cuda`";
    (format!("cuda  no: {reason}\n"), json!({ "usable": false, "reason": reason }))
}
