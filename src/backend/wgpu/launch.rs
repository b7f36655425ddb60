//! From operands to dispatches: which part of which buffer is bound, what a launch is told, and how a problem that
//! exceeds a binding is cut.

use super::WgpuDevice;
use super::axes::Axes;
use super::bindings::Binding;
use super::fault::{limit, lost, scoped};
use super::fusion::Rotation;
use super::operand::Operand;
use super::pipeline::Pipeline;
use super::text::PARTS;
use super::variant::{Access, Entry, Flags, Place, Role, Shape, Slot, Style, Variant, parts};
use crate::Result;
use crate::plan::{Grid, Walk, fold};
use crate::tensor::Layout;
use bytemuck::{Pod, Zeroable};
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::Arc;

/// A pipeline with its operands bound, ready to be enqueued.
pub(super) struct Dispatch {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) bind_group: wgpu::BindGroup,
    pub(super) groups: (u32, u32),
    /// What a recording device writes down.
    #[cfg(feature = "check")]
    pub(super) note: Option<super::record::Note>,
}

/// The numbers of `Params` in `shaders/params.wgsl`, in its order.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
pub(super) struct Scalars {
    pub(super) zero: u32,
    pub(super) first_row: u32,
    pub(super) rows: u32,
    pub(super) cols: u32,
    pub(super) prefix: u32,
    pub(super) leaves: u32,
    pub(super) inv_last: f32,
    pub(super) inv_count: f32,
    pub(super) eps: f32,
    pub(super) eps_exponent: i32,
    pub(super) eps_rstd: f32,
    pub(super) weight_offset: f32,
    pub(super) first_col: u32,
    pub(super) end_col: u32,
    pub(super) chunk_rows: u32,
    pub(super) chunks: u32,
    pub(super) first_chunk: u32,
    pub(super) partial_cols: u32,
    pub(super) parameter: u32,
    pub(super) col_groups: u32,
    pub(super) turns: u32,
    pub(super) leaf_base: u32,
    pub(super) first_leaf: u32,
    pub(super) power: [f32; 2],
    pub(super) inv_power: [f32; 2],
    pub(super) slope_power: [f32; 2],
    pub(super) factor: f32,
    pub(super) rest: f32,
    pub(super) input_scale: f32,
    pub(super) residual_scale: f32,
    pub(super) pairs: u32,
    pub(super) head: u32,
    /// Rows of a rotary embedding's tables to choose from, and how far they are apart in either.
    pub(super) choice: [u32; 3],
    pub(super) block: u32,
    pub(super) codes: [f32; 4],
    pub(super) dropout: [u32; 5],
    pub(super) inner_prefix: u32,
    pub(super) inner_eps: f32,
    pub(super) inner_eps_exponent: i32,
    pub(super) inner_eps_rstd: f32,
    pub(super) inner_weight_offset: f32,
    pub(super) outlier: f32,
    // What follows is made of four numbers, and so are these.
    pub(super) filler: [u32; 2],
}

/// Operands over one index space.
pub(super) struct Problem<'a> {
    pub(super) device: &'a WgpuDevice,
    pub(super) grid: Grid,
    pub(super) operands: Vec<(Operand, Option<Walk>)>,
    pub(super) rotation: Option<Rotation>,
    /// How the indices of elements are walked, as if they were places in memory, where kernels want to know them.
    elements: Option<Walk>,
}

/// One launch over a part of a problem.
pub(super) struct Launch {
    pub(super) entry: Entry,
    pub(super) shape: Shape,
    pub(super) flags: Flags,
    pub(super) rows: Range<usize>,
    pub(super) cols: Range<usize>,
    pub(super) scalars: Scalars,
    /// Workgroups.
    pub(super) groups: usize,
}

impl<'a> Problem<'a> {
    /// Folds `shape` with its axes `reduced` as rows of the operands.
    pub(super) fn new(
        device: &'a WgpuDevice,
        shape: &[usize],
        reduced: &[usize],
        operands: impl IntoIterator<Item = Option<Operand>>,
    ) -> Result<Self> {
        Problem::counted(device, shape, reduced, operands, false)
    }

    /// The same; kernels are told the indices of elements, where `is_counted`.
    pub(super) fn counted(
        device: &'a WgpuDevice,
        shape: &[usize],
        reduced: &[usize],
        operands: impl IntoIterator<Item = Option<Operand>>,
        is_counted: bool,
    ) -> Result<Self> {
        let operands: Vec<Operand> = operands.into_iter().flatten().collect();
        let elements = is_counted.then(|| Layout::contiguous(shape));
        if elements.as_ref().is_some_and(|elements| elements.len() > u32::MAX as usize) {
            return Err(limit("elements with dropout", u32::MAX, shape.iter().product::<usize>()));
        }
        let of_operands = operands.iter().filter_map(|op| op.layout.as_ref());
        let layouts: SmallVec<[&Layout; 8]> = of_operands.chain(elements.as_ref()).collect();
        let (grid, mut walks) = fold(shape, reduced, &layouts);
        debug_assert!(parts(layouts.len()) <= PARTS.len());
        drop(layouts);
        let elements = if is_counted { walks.pop() } else { None };
        let mut walks = walks.into_iter();
        let with_walk = |op: Operand| {
            let walk = op.layout.as_ref().and_then(|_| walks.next());
            (op, walk)
        };
        let operands = operands.into_iter().map(with_walk).collect();
        if grid.cols > i32::MAX as usize {
            return Err(limit("columns", i32::MAX, grid.cols));
        }
        if grid.rows > i32::MAX as usize {
            return Err(limit("rows", i32::MAX, grid.rows));
        }
        Ok(Problem { device, grid, operands, elements, rotation: None })
    }

    /// The same with a rotary embedding.
    pub(super) fn rotated(self, rotation: Option<Rotation>) -> Self {
        Problem { rotation, ..self }
    }

    /// How the operand of this name is walked.
    pub(super) fn walk(&self, name: &str) -> Option<&Walk> {
        self.operands.iter().find(|(op, _)| op.name == name).and_then(|(_, walk)| walk.as_ref())
    }

    /// Whether there are parameters, and all of them are walked like this.
    pub(super) fn has_parameters(&self, like: impl Fn(&Walk) -> bool) -> bool {
        let mut parameters = ["weight", "bias"].into_iter().filter_map(|name| self.walk(name)).peekable();
        parameters.peek().is_some() && parameters.all(like)
    }

    /// Whether every tensor's columns can be reached four at a time.
    pub(super) fn is_vector(&self) -> bool {
        let tensors = self.operands.iter().filter(|(op, _)| op.is_tensor());
        tensors
            .filter_map(|(op, walk)| walk.as_ref().map(|walk| (op, walk)))
            .all(|(op, walk)| self.access(op, walk, Style::Row) != Access::Element)
    }

    /// Cuts `rows` until every operand's part fits a binding; cuts fall on multiples of `granule`.
    pub(super) fn split(
        &self,
        rows: Range<usize>,
        cols: &Range<usize>,
        granule: usize,
    ) -> Result<Vec<Range<usize>>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let bind = |(op, walk): &(Operand, Option<Walk>)| self.bind(op, walk.as_ref(), &rows, cols).err();
        let Some(error) = self.operands.iter().find_map(bind) else { return Ok(vec![rows]) };
        let middle = rows.start + (rows.len() / 2).max(1).div_ceil(granule) * granule;
        if middle >= rows.end {
            return Err(error);
        }
        let mut parts = self.split(rows.start..middle, cols, granule)?;
        parts.extend(self.split(middle..rows.end, cols, granule)?);
        Ok(parts)
    }

    /// How an operand's four elements are reached, wherever in the problem they are.
    fn access(&self, op: &Operand, walk: &Walk, style: Style) -> Access {
        // Along the quads' axis and across it.
        let (fast, slow, sizes) = match style {
            Style::Row => (&walk.inner, &walk.outer, &self.grid.inner),
            Style::Column => (&walk.outer, &walk.inner, &self.grid.outer),
        };
        let quads = |size: Option<&usize>| size.is_none_or(|size| size.is_multiple_of(4));
        if matches!(op.role, Role::Load | Role::NumberOfColumn) {
            let same = fast.last().is_some_and(|&stride| stride == 0) && quads(sizes.last());
            if same || fast.iter().all(|&stride| stride == 0) {
                return Access::Splat;
            }
        }
        if !op.is_tensor() {
            return Access::Element;
        }
        if style == Style::Row && self.rotation.is_some_and(|rotation| !rotation.is_whole()) {
            return Access::Element;
        }
        let first = op.range.start() as usize / op.dtype.size() + walk.offset;
        let across = slow.iter().all(|stride| stride % 4 == 0);
        if !across || !first.is_multiple_of(4) {
            return Access::Element;
        }
        let others = &fast[..fast.len().saturating_sub(1)];
        let in_quads =
            fast.last() == Some(&1) && quads(sizes.last()) && others.iter().all(|stride| stride % 4 == 0);
        match style {
            Style::Row if walk.contiguous && self.grid.cols.is_multiple_of(4) => Access::Vector,
            Style::Row if in_quads => Access::Quad,
            Style::Column if in_quads => Access::Vector,
            _ => Access::Element,
        }
    }

    /// The launch with its pipeline compiled and its operands bound.
    pub(super) fn prepare(&self, launch: Launch) -> Result<Dispatch> {
        let Launch { entry, shape, flags, rows, cols, mut scalars, groups } = launch;
        if !self.fits_bindings() {
            return Err(limit("storage buffers a shader", self.most_bindings(), self.count_bindings()));
        }
        let written = |op: &Operand| {
            self.operands.iter().any(|(o, _)| o.role.writes() && o.range.buffer() == op.range.buffer())
        };
        let shared = self.operands.iter().any(|(op, _)| !op.role.writes() && written(op));
        scalars.first_row = rows.start as u32;
        scalars.rows = rows.len() as u32;
        scalars.cols = self.grid.cols as u32;
        let (outer_sizes, inner_sizes) = (&self.grid.outer, &self.grid.inner);
        let axes = (bucket(outer_sizes.len(), &[1, 2, 4, 8]), bucket(inner_sizes.len(), &[1, 2, 4, 8]));
        let flags = Flags { dropout: self.elements.is_some(), ..flags };
        let tensors = self.operands.iter().filter_map(|(_, walk)| walk.as_ref()).chain(&self.elements);
        let width = 4 * parts(tensors.count());
        let mut outer = Axes::new(axes.0, width, outer_sizes);
        let mut inner = Axes::new(axes.1, width, inner_sizes);
        let (mut starts, mut flat_starts) = (vec![0; width], [0; 4]);
        let mut slots = SmallVec::new();
        let (hosts, bindings) = (self.hosts(), self.bindings(&rows, &cols)?);
        let (mut full, mut flat) = (0u8, 0u8);
        for (((operand, walk), host), binding) in self.operands.iter().zip(&hosts).zip(&bindings) {
            let (place, access) = match walk {
                Some(walk) => {
                    let n = take(&mut full);
                    starts[n + 1] = binding.start;
                    outer.set(n + 1, walk.outer.iter().map(|&stride| stride as u32));
                    inner.set(n + 1, walk.inner.iter().map(|&stride| stride as u32));
                    (Place::Full(n as u8), self.access(operand, walk, shape.style))
                }
                None => {
                    let n = take(&mut flat);
                    flat_starts[n] = binding.start;
                    (Place::Flat(n as u8), Access::Element)
                }
            };
            let (name, role, dtype) = (operand.name, operand.role, operand.dtype);
            let host = host.map(|host| self.operands[host].0.name);
            slots.push(Slot { name, role, place, access, dtype, host });
        }
        if let Some(walk) = &self.elements {
            let n = take(&mut full);
            outer.set(n + 1, walk.outer.iter().map(|&stride| stride as u32));
            inner.set(n + 1, walk.inner.iter().map(|&stride| stride as u32));
        }
        let variant = Variant { entry, slots, axes, shape, flags, shared };
        let pipeline = self.device.pipelines().get(self.device, &variant)?;
        let mut bytes = bytemuck::bytes_of(&scalars).to_vec();
        for numbers in [&starts[..], &flat_starts, &outer.numbers, &inner.numbers] {
            bytes.extend_from_slice(bytemuck::cast_slice(numbers));
        }
        let most = self.device.limits().max_compute_workgroups_per_dimension as usize;
        let x = groups.min(most);
        let y = groups.div_ceil(x.max(1));
        if y > most {
            return Err(limit("workgroups", format!("{most} x {most}"), groups));
        }
        let bind_group = self.bind_group(&pipeline, &bytes, &bindings, entry)?;
        #[cfg(feature = "check")]
        let note = self.device.recorder().get().map(|_| {
            let bound = self.operands.iter().zip(&bindings);
            super::record::Note::new(
                &variant,
                bytes,
                bound.map(|((op, _), b)| (op.range.buffer(), b.offset, b.size)),
            )
        });
        Ok(Dispatch {
            pipeline,
            bind_group,
            groups: (x as u32, y as u32),
            #[cfg(feature = "check")]
            note,
        })
    }

    fn bind_group(
        &self,
        pipeline: &Pipeline,
        params: &[u8],
        bindings: &[Binding],
        entry: Entry,
    ) -> Result<wgpu::BindGroup> {
        let raw = self.device.raw();
        let what = format!("the operands of {}", entry.name());
        scoped(self.device, &what, || {
            let uniform = raw.create_buffer(&wgpu::BufferDescriptor {
                label: Some("normkit params"),
                size: params.len() as u64,
                usage: wgpu::BufferUsages::UNIFORM,
                mapped_at_creation: true,
            });
            // A buffer of a lost device cannot be mapped: this is how the loss of a caller's device shows.
            uniform.get_mapped_range_mut(..).map_err(lost)?.copy_from_slice(params);
            uniform.unmap();
            let mut entries =
                vec![wgpu::BindGroupEntry { binding: 0, resource: uniform.as_entire_binding() }];
            let bound = self.operands.iter().zip(bindings).zip(self.hosts());
            let bound = bound.filter(|(_, host)| host.is_none()).map(|(bound, _)| bound);
            for (index, ((operand, _), binding)) in bound.enumerate() {
                entries.push(wgpu::BindGroupEntry {
                    binding: index as u32 + 1,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: operand.range.buffer(),
                        offset: binding.offset,
                        size: std::num::NonZeroU64::new(binding.size),
                    }),
                });
            }
            let descriptor = wgpu::BindGroupDescriptor {
                label: Some(entry.name()),
                layout: &pipeline.layout,
                entries: &entries,
            };
            Ok(raw.create_bind_group(&descriptor))
        })?
    }
}

/// The counter's value, which then goes up.
fn take(counter: &mut u8) -> usize {
    *counter += 1;
    usize::from(*counter - 1)
}

/// The smallest of `sizes` that holds `n`, so that few table lengths are compiled.
fn bucket(n: usize, sizes: &[usize]) -> u32 {
    sizes.iter().copied().find(|&size| n <= size).unwrap_or(n) as u32
}
