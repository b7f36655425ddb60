//! Compiled shaders, cached per device.

use super::WgpuDevice;
use super::fault::{refused, scoped};
use super::variant::{Target, Variant};
use crate::Result;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The shaders that a device has compiled.
#[derive(Default)]
pub(super) struct Pipelines {
    compiled: Mutex<HashMap<Variant, Arc<Pipeline>>>,
}

/// A compiled shader and how its operands are bound.
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

impl Pipelines {
    /// The variant's pipeline, compiled now if it is the first of its kind.
    pub(super) fn get(&self, device: &WgpuDevice, variant: &Variant) -> Result<Arc<Pipeline>> {
        let cached = |pipelines: &Pipelines| {
            pipelines.compiled.lock().unwrap_or_else(PoisonError::into_inner).get(variant).cloned()
        };
        if let Some(pipeline) = cached(self) {
            return Ok(pipeline);
        }
        // Compiled without the lock: two threads may do it twice, but none waits for another's shader.
        let pipeline = Arc::new(compile(device, variant)?);
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(compiled.entry(variant.clone()).or_insert(pipeline).clone())
    }
}

/// Parses and validates WGSL, so that a broken shader is an error value before any driver sees it.
pub(crate) fn check_wgsl(
    source: &str,
    subgroups: bool,
) -> std::result::Result<(naga::Module, naga::valid::ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|e| e.emit_to_string(source))?;
    let mut capabilities = naga::valid::Capabilities::default();
    capabilities.set(naga::valid::Capabilities::SUBGROUP, subgroups);
    let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities);
    if subgroups {
        validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE);
        validator.subgroup_operations(naga::valid::SubgroupOperationSet::all());
    }
    let info = validator.validate(&module).map_err(|e| e.emit_to_string(source))?;
    Ok((module, info))
}

fn compile(device: &WgpuDevice, variant: &Variant) -> Result<Pipeline> {
    let name = variant.entry.name();
    let what = format!("the shader {name}");
    let source = variant.render(Target::Native);
    check_wgsl(&source, variant.uses_subgroups()).map_err(|reason| refused(&what, reason))?;
    tracing::debug!(?variant, "compiling");
    let buffer = |binding: usize, ty| wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    let mut entries = vec![buffer(0, wgpu::BufferBindingType::Uniform)];
    let bound = (0..variant.slots.len()).filter(|&index| variant.slots[index].host.is_none());
    for (number, index) in bound.enumerate() {
        let read_only = !variant.is_writable(index);
        entries.push(buffer(number + 1, wgpu::BufferBindingType::Storage { read_only }));
    }
    let raw = device.raw();
    scoped(device, &what, || {
        let module = trusted_module(raw, name, source);
        let layout = raw.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(name),
            entries: &entries,
        });
        let pipeline_layout = raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(name),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every number in workgroup memory is written before it is read.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        Pipeline { pipeline, layout }
    })
}

/// Compiles without the checks that wgpu adds for shaders of strangers.
fn trusted_module(device: &wgpu::Device, name: &str, source: String) -> wgpu::ShaderModule {
    let descriptor =
        wgpu::ShaderModuleDescriptor { label: Some(name), source: wgpu::ShaderSource::Wgsl(source.into()) };
    // SAFETY: the source is this crate's own. Its loops count up to constants and numbers of `Params`, and its
    // indices stay within the rows and columns that `launch` has bound, whatever the data.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}
