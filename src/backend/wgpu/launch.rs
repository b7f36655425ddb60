//! From operands to dispatches: which part of which buffer is bound, what a launch is told, and how a problem that
//! exceeds a binding is cut.

use super::WgpuDevice;
use super::fault::{limit, lost, scoped};
use super::pipeline::Pipeline;
use super::tensor::BufferRange;
use super::variant::{Access, Entry, Flags, Place, Role, Shape, Slot, Variant};
use crate::plan::{Grid, Walk, fold};
use crate::spec::Spec;
use crate::tensor::{DType, Layout, Memory, View};
use crate::{Error, Result};
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
    pub(super) inv_k: f32,
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
    pub(super) unused: [u32; 2],
    pub(super) full_start: [u32; 4],
    pub(super) row_start: [u32; 4],
    pub(super) flat_start: [u32; 4],
}

/// Where an operand's elements are.
pub(super) enum Extent<'a> {
    /// Rows of the input's shape.
    Full(&'a Walk),
    /// One row.
    Row(&'a Walk),
    /// `per_row` float32 numbers for each row of the launch.
    PerRow(usize),
    /// All of it, whatever the launch.
    Whole,
}

/// An operand of a problem.
pub(super) struct Operand<'a> {
    name: &'static str,
    role: Role,
    range: BufferRange,
    dtype: DType,
    extent: Extent<'a>,
}

impl<'a> Operand<'a> {
    /// `None` where there is no view.
    pub(super) fn new(
        name: &'static str,
        role: Role,
        view: Option<&View<'_>>,
        extent: Extent<'a>,
    ) -> Result<Option<Self>> {
        let Some(view) = view else { return Ok(None) };
        let Memory::Wgpu(range) = &view.memory else {
            return Err(Error::argument(name, "memory on the wgpu device", "memory on the host"));
        };
        Ok(Some(Operand { name, role, range: range.clone(), dtype: view.dtype(), extent }))
    }

    fn is_written(&self) -> bool {
        matches!(self.role, Role::Store | Role::Set)
    }

    /// First and last element, from the range's start, that rows and columns of a launch reach; conservative.
    fn span(&self, grid: &Grid, rows: &Range<usize>, cols: &Range<usize>) -> (i128, i128) {
        match self.extent {
            Extent::Full(walk) => {
                let outer = reach(&grid.outer, &walk.outer, rows);
                let inner = reach(&grid.inner, &walk.inner, cols);
                let offset = walk.offset as i128;
                (offset + outer.0 + inner.0, offset + outer.1 + inner.1)
            }
            Extent::Row(walk) => {
                let inner = reach(&grid.inner, &walk.inner, cols);
                (walk.offset as i128 + inner.0, walk.offset as i128 + inner.1)
            }
            Extent::PerRow(n) => ((rows.start * n) as i128, (rows.end * n) as i128 - 1),
            Extent::Whole => (0, (self.range.size() / self.dtype.size() as u64) as i128 - 1),
        }
    }

    /// Whether four columns lie side by side at a multiple of four elements, in every row.
    fn access(&self, grid: &Grid) -> Access {
        let (Extent::Full(walk) | Extent::Row(walk)) = self.extent else { return Access::Element };
        let first = self.range.start() as usize / self.dtype.size() + walk.offset;
        let rows_aligned = walk.outer.iter().all(|stride| stride % 4 == 0);
        let aligned =
            walk.contiguous && grid.cols.is_multiple_of(4) && first.is_multiple_of(4) && rows_aligned;
        if aligned { Access::Vector } else { Access::Element }
    }
}

/// Smallest and largest offset of the indices `range` of a row-major space, from index zero; conservative.
fn reach(sizes: &[usize], strides: &[isize], range: &Range<usize>) -> (i128, i128) {
    let (mut low, mut high) = (0i128, 0i128);
    let (mut first, mut last) = (range.start, range.end.max(range.start + 1) - 1);
    let mut below: usize = sizes.iter().product();
    let mut whole = false;
    for (&size, &stride) in sizes.iter().zip(strides) {
        below /= size.max(1);
        // Once an axis differs between the two ends, the axes after it are walked in full.
        let (from, to) = if whole { (0, size - 1) } else { (first / below, last / below) };
        whole |= from != to;
        first %= below;
        last %= below;
        let (a, b) = (from as i128 * stride as i128, to as i128 * stride as i128);
        low += a.min(b);
        high += a.max(b);
    }
    (low, high)
}

/// A problem's index space and how its tensors are walked.
pub(super) struct Folded {
    pub(super) grid: Grid,
    pub(super) full: SmallVec<[Walk; 4]>,
    /// The tensors of a row's shape, those that are absent too.
    pub(super) row: [RowWalk; 3],
}

/// How a tensor of a row's shape is walked; nothing where it is absent.
pub(super) struct RowWalk(Option<Walk>);

impl RowWalk {
    pub(super) fn extent(&self) -> Extent<'_> {
        self.0.as_ref().map_or(Extent::Whole, Extent::Row)
    }
}

impl Folded {
    /// Folds tensors of the input and up to three parameters.
    pub(super) fn new(spec: &Spec, full: &[&Layout], row: [Option<&View<'_>>; 3]) -> Self {
        let tensors = full.iter().copied().chain(row.iter().flatten().map(|view| view.layout()));
        let tensors: SmallVec<[&Layout; 8]> = tensors.collect();
        let (grid, walks) = fold(spec.shape(), spec.row_axes(), &tensors);
        let mut walks = walks.into_iter();
        let full = walks.by_ref().take(full.len()).collect();
        let row = row.map(|view| RowWalk(view.and_then(|_| walks.next())));
        Folded { grid, full, row }
    }
}

/// Operands over one index space.
pub(super) struct Problem<'a> {
    pub(super) device: &'a WgpuDevice,
    pub(super) grid: &'a Grid,
    pub(super) operands: Vec<Operand<'a>>,
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

/// The part of a buffer that an operand is bound to, and where its index zero lies in it, in elements.
struct Binding {
    offset: u64,
    size: u64,
    start: u32,
}

impl<'a> Problem<'a> {
    pub(super) fn new(
        device: &'a WgpuDevice,
        grid: &'a Grid,
        operands: impl IntoIterator<Item = Option<Operand<'a>>>,
    ) -> Result<Self> {
        if grid.cols > i32::MAX as usize {
            return Err(limit("columns", i32::MAX, grid.cols));
        }
        if grid.rows > u32::MAX as usize {
            return Err(limit("rows", u32::MAX, grid.rows));
        }
        Ok(Problem { device, grid, operands: operands.into_iter().flatten().collect() })
    }

    /// Whether every tensor's columns can be reached four at a time.
    pub(super) fn is_vector(&self) -> bool {
        let rows = |op: &&Operand<'_>| matches!(op.extent, Extent::Full(_) | Extent::Row(_));
        self.operands.iter().filter(rows).all(|op| op.access(self.grid) == Access::Vector)
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
        let too_large = self.operands.iter().find_map(|op| self.bind(op, &rows, cols).err());
        let Some(error) = too_large else { return Ok(vec![rows]) };
        let middle = rows.start + (rows.len() / 2).max(1).div_ceil(granule) * granule;
        if middle >= rows.end {
            return Err(error);
        }
        let mut parts = self.split(rows.start..middle, cols, granule)?;
        parts.extend(self.split(middle..rows.end, cols, granule)?);
        Ok(parts)
    }

    fn bind(&self, operand: &Operand<'_>, rows: &Range<usize>, cols: &Range<usize>) -> Result<Binding> {
        let limits = self.device.limits();
        let (low, high) = operand.span(self.grid, rows, cols);
        let (size, base) = (operand.dtype.size() as i128, i128::from(operand.range.start()));
        let align = i128::from(limits.min_storage_buffer_offset_alignment.max(16));
        let offset = (base + low * size) / align * align;
        // Bindings are whole words; the last may hold a neighbour's element, which is never changed.
        let end = (base + (high + 1) * size + 3) / 4 * 4;
        let bytes = end - offset;
        // Offsets are counted in 32 bits.
        let most = i128::from(limits.max_storage_buffer_binding_size).min(i128::from(i32::MAX) * size);
        if bytes > most {
            let found = format!("{bytes} bytes in one piece");
            return Err(limit(operand.name, format!("{most} bytes a binding"), found));
        }
        if end > i128::from(operand.range.buffer().size()) {
            let expected = "a buffer of whole 4-byte words";
            return Err(Error::argument(
                operand.name,
                expected,
                format!("{} bytes", operand.range.buffer().size()),
            ));
        }
        let first = match operand.extent {
            Extent::Full(walk) | Extent::Row(walk) => walk.offset as i128,
            Extent::PerRow(_) => low,
            Extent::Whole => 0,
        };
        let start = (base + first * size - offset) / size;
        Ok(Binding { offset: offset as u64, size: bytes as u64, start: start as u32 })
    }

    /// The launch with its pipeline compiled and its operands bound.
    pub(super) fn prepare(&self, launch: Launch) -> Result<Dispatch> {
        let Launch { entry, shape, flags, rows, cols, mut scalars, groups } = launch;
        let written = |op: &Operand<'_>| {
            self.operands.iter().any(|o| o.is_written() && o.range.buffer() == op.range.buffer())
        };
        let shared = self.operands.iter().any(|op| !op.is_written() && written(op));
        scalars.first_row = rows.start as u32;
        scalars.rows = rows.len() as u32;
        scalars.cols = self.grid.cols as u32;
        let axes =
            (bucket(self.grid.outer.len(), &[1, 2, 4, 8]), bucket(self.grid.inner.len(), &[1, 2, 4, 8]));
        let mut outer = vec![[1u32, 0, 0, 0]; axes.0 as usize];
        let mut inner = vec![[[1u32, 0, 0, 0], [0; 4]]; axes.1 as usize];
        // Axes are slowest first and the table's last is the fastest.
        let (outer_at, inner_at) = (outer.len() - self.grid.outer.len(), inner.len() - self.grid.inner.len());
        outer[outer_at..].iter_mut().zip(&self.grid.outer).for_each(|(axis, &size)| axis[0] = size as u32);
        inner[inner_at..].iter_mut().zip(&self.grid.inner).for_each(|(axis, &size)| axis[0][0] = size as u32);
        let mut slots = SmallVec::new();
        let mut bindings = Vec::with_capacity(self.operands.len());
        let (mut full, mut row, mut flat) = (0u8, 0u8, 0u8);
        for operand in &self.operands {
            let binding = self.bind(operand, &rows, &cols)?;
            let place = match operand.extent {
                Extent::Full(walk) => {
                    let n = take(&mut full);
                    scalars.full_start[n] = binding.start;
                    outer[outer_at..]
                        .iter_mut()
                        .zip(&walk.outer)
                        .for_each(|(axis, &s)| axis[n + 1] = s as u32);
                    inner[inner_at..]
                        .iter_mut()
                        .zip(&walk.inner)
                        .for_each(|(axis, &s)| axis[0][n + 1] = s as u32);
                    Place::Full(n as u8)
                }
                Extent::Row(walk) => {
                    let n = take(&mut row);
                    scalars.row_start[n] = binding.start;
                    inner[inner_at..]
                        .iter_mut()
                        .zip(&walk.inner)
                        .for_each(|(axis, &s)| axis[1][n] = s as u32);
                    Place::Row(n as u8)
                }
                Extent::PerRow(_) | Extent::Whole => {
                    let n = take(&mut flat);
                    scalars.flat_start[n] = binding.start;
                    Place::Flat(n as u8)
                }
            };
            let (name, role, dtype) = (operand.name, operand.role, operand.dtype);
            slots.push(Slot { name, role, place, access: operand.access(self.grid), dtype });
            bindings.push(binding);
        }
        let variant = Variant { entry, slots, axes, shape, flags, shared };
        let pipeline = self.device.pipelines().get(self.device, &variant)?;
        let mut bytes = bytemuck::bytes_of(&scalars).to_vec();
        bytes.extend_from_slice(bytemuck::cast_slice(&outer));
        bytes.extend_from_slice(bytemuck::cast_slice(&inner));
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
                bound.map(|(op, b)| (op.range.buffer(), b.offset, b.size)),
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
            for (index, (operand, binding)) in self.operands.iter().zip(bindings).enumerate() {
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
