//! Where a call runs: on the CPU or a GPU where its arrays are, or on a device that they are copied to and back.

use crate::array::{Array, Source};
use crate::devices;
use crate::errors::value_error;
use crate::export::Exporter;
use crate::memory::{Memory, Residence};
use crate::openmp;
use normkit::backend::cpu::Cpu;
use normkit::backend::cuda::CudaDevice;
use normkit::tensor::{DType, HostTensor, Layout, Tensor, View, ViewMut};
use normkit::{Device, DeviceTensor, Stream};
use pyo3::prelude::*;

/// The backends by their names, as `backend=` has them.
pub(crate) const BACKENDS: [&str; 4] = ["cpu", "wgpu", "cuda", "cuda-host"];

/// Where a call runs.
pub(crate) enum Place {
    /// On the CPU, on arrays of the host.
    Cpu(Cpu),
    /// On a device that arrays of the host are copied to, and back.
    Copies(Device),
    /// On arrays of a GPU, on its own stream or, by its address, on that of the arrays' library.
    Cuda(CudaDevice, Option<usize>),
}

/// Whether a call on an array is through, on the thread that makes it, before another could have taken over.
fn is_small(memory: &Memory) -> bool {
    memory.range().1 <= 64 << 10
}

/// An array that a call writes.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    /// All of it, whatever was there.
    New(&'a Memory),
    /// What is there is read first.
    Update(&'a Memory),
}

impl Place {
    /// Where a call with `input` runs: where the array is, unless `backend` names another.
    pub(crate) fn of(input: &Array<'_>, backend: Option<&str>) -> PyResult<Self> {
        match (input.memory.residence, backend) {
            (Residence::Host, None | Some("cpu")) => Ok(Place::Cpu(match input.source {
                Source::Exchange(..) if !is_small(&input.memory) => openmp::cpu(),
                _ => Cpu::default(),
            })),
            (Residence::Host, Some(name)) => devices::named(name).map(Place::Copies),
            (Residence::Cuda(ordinal), None | Some("cuda")) => on_cuda(input, ordinal),
            (residence, Some(name)) => Err(value_error(format!(
                "backend: expected None or 'cuda' for an array on {residence}, found {name:?}"
            ))),
        }
    }

    /// Whether the work is done when a call returns, in memory of the host.
    pub(crate) fn is_cpu(&self) -> bool {
        matches!(self, Place::Cpu(_))
    }

    /// Runs `body` on views of `inputs` and `outputs`, in their order, with other Python threads running where it takes long.
    pub(crate) fn run<const I: usize, const O: usize>(
        &self,
        py: Python<'_>,
        inputs: [Option<&Array<'_>>; I],
        outputs: [Option<Target<'_>>; O],
        body: impl Body<I, O>,
    ) -> PyResult<normkit::Result<()>> {
        let home = inputs.iter().flatten().next().map(|input| (input.name, input.memory.residence));
        for input in inputs.iter().flatten() {
            let moves = matches!(input.source, Source::Number(_));
            if let Some((first, residence)) = home
                && input.memory.residence != residence
                && !moves
            {
                let found = input.memory.residence;
                let name = input.name;
                return Err(value_error(format!(
                    "{name}: expected a device {residence}, where {first} is, found {found}"
                )));
            }
        }
        let inputs = inputs.map(|input| input.map(|input| &input.memory));
        if let Place::Cpu(cpu) = self
            && inputs.iter().flatten().all(|memory| is_small(memory))
        {
            return Ok(in_place(&Stream::Cpu(cpu.clone()), inputs, outputs, body));
        }
        let result = py.detach(|| match self {
            Place::Cpu(cpu) => in_place(&Stream::Cpu(cpu.clone()), inputs, outputs, body),
            Place::Copies(device) => copied(device, inputs, outputs, body),
            Place::Cuda(device, stream) => in_place(&stream_of(device, *stream)?, inputs, outputs, body),
        });
        if let Err(error) = &result {
            devices::forget_lost(error);
        }
        Ok(result)
    }
}

/// What a call does with views of its arrays, in their order.
pub(crate) trait Body<const I: usize, const O: usize>:
    for<'v, 's> FnOnce([Option<View<'v>>; I], [Option<ViewMut<'v>>; O], &Stream<'s>) -> normkit::Result<()> + Send
{
}

impl<const I: usize, const O: usize, F> Body<I, O> for F where
    F: for<'v, 's> FnOnce(
            [Option<View<'v>>; I],
            [Option<ViewMut<'v>>; O],
            &Stream<'s>,
        ) -> normkit::Result<()>
        + Send
{
}

/// On the arrays themselves.
fn in_place<const I: usize, const O: usize>(
    stream: &Stream<'_>,
    inputs: [Option<&Memory>; I],
    outputs: [Option<Target<'_>>; O],
    body: impl Body<I, O>,
) -> normkit::Result<()> {
    let mut views = [const { None }; I];
    for (view, memory) in views.iter_mut().zip(inputs) {
        *view = memory.map(|memory| view_of(stream, memory)).transpose()?;
    }
    let mut targets = [const { None }; O];
    for (target, output) in targets.iter_mut().zip(outputs) {
        let Some(Target::New(memory) | Target::Update(memory)) = output else { continue };
        *target = Some(view_mut_of(stream, memory)?);
    }
    body(views, targets, stream)
}

fn view_of<'v>(stream: &Stream<'_>, memory: &Memory) -> normkit::Result<View<'v>> {
    match (memory.residence, stream) {
        (Residence::Cuda(_), Stream::Cuda(stream)) => {
            let (first, bytes) = memory.range();
            let (address, layout) = (first.addr() as u64, memory.layout.clone());
            // SAFETY: the array lives until the call ends, and its library frees memory in the stream's order.
            unsafe { View::from_cuda(stream.device(), address, bytes as u64, memory.dtype, layout) }
        }
        // SAFETY: the array lives until the call ends; as everywhere in Python, whoever writes it meanwhile in
        // another thread has a race of their own making.
        _ => unsafe { memory.view() },
    }
}

fn view_mut_of<'v>(stream: &Stream<'_>, memory: &Memory) -> normkit::Result<ViewMut<'v>> {
    match (memory.residence, stream) {
        (Residence::Cuda(_), Stream::Cuda(stream)) => {
            let (first, bytes) = memory.range();
            let (address, layout) = (first.addr() as u64, memory.layout.clone());
            // SAFETY: as in `view_of`.
            unsafe { ViewMut::from_cuda(stream.device(), address, bytes as u64, memory.dtype, layout) }
        }
        // SAFETY: as in `view_of`; operands that overlap are refused before anything is written.
        _ => unsafe { memory.view_mut() },
    }
}

/// On copies in the memory of `device`.
fn copied<const I: usize, const O: usize>(
    device: &Device,
    inputs: [Option<&Memory>; I],
    outputs: [Option<Target<'_>>; O],
    body: impl Body<I, O>,
) -> normkit::Result<()> {
    let mut uploaded: [Option<(DeviceTensor, Layout)>; I] = [const { None }; I];
    for (place, memory) in uploaded.iter_mut().zip(inputs) {
        *place = memory.map(|memory| Ok((upload(device, memory)?, memory.layout.clone()))).transpose()?;
    }
    let mut written: [Option<(DeviceTensor, Layout, &Memory)>; O] = [const { None }; O];
    for (place, output) in written.iter_mut().zip(outputs) {
        *place = match output {
            Some(Target::New(memory)) => {
                let shape = memory.shape();
                Some((device.zeros(shape, memory.dtype)?, Layout::contiguous(shape), memory))
            }
            Some(Target::Update(memory)) => Some((upload(device, memory)?, memory.layout.clone(), memory)),
            None => None,
        };
    }
    {
        let mut views = [const { None }; I];
        for (view, uploaded) in views.iter_mut().zip(&uploaded) {
            if let Some((tensor, layout)) = uploaded {
                *view = Some(tensor.view()?.with_layout(layout.clone())?);
            }
        }
        let mut targets = [const { None }; O];
        for (target, written) in targets.iter_mut().zip(&mut written) {
            if let Some((tensor, layout, _)) = written {
                *target = Some(tensor.view_mut()?.with_layout(layout.clone())?);
            }
        }
        body(views, targets, &device.stream())?;
    }
    for (tensor, layout, memory) in written.iter().flatten() {
        download(&tensor.read()?, layout, memory)?;
    }
    Ok(())
}

/// All bytes that an array's elements lie among, in order.
fn upload(device: &Device, memory: &Memory) -> normkit::Result<DeviceTensor> {
    let (first, bytes) = memory.range();
    let mut flat = HostTensor::zeros(&[bytes / memory.dtype.size()], memory.dtype)?;
    // SAFETY: the array describes its own memory, and lives until the call ends.
    unsafe { std::ptr::copy_nonoverlapping(first.cast_const(), flat.bytes_mut().as_mut_ptr(), bytes) };
    device.upload(&flat)
}

/// Writes the elements that `from` has where `layout` says to where they are in an array.
fn download(from: &HostTensor, layout: &Layout, memory: &Memory) -> normkit::Result<()> {
    let (first, bytes) = memory.range();
    let size = memory.dtype.size();
    if from.bytes().len() == bytes && layout == &Layout::contiguous(memory.shape()) {
        // SAFETY: the array has as many bytes, and is its caller's to write.
        unsafe { std::ptr::copy_nonoverlapping(from.bytes().as_ptr(), first, bytes) };
        return Ok(());
    }
    for index in 0..layout.len() {
        let (source, target) = (layout.offset_of(index) * size, memory.layout.offset_of(index) * size);
        let element = &from.bytes()[source..source + size];
        // SAFETY: the layout's elements lie within the array's bytes.
        unsafe { std::ptr::copy_nonoverlapping(element.as_ptr(), first.add(target), size) };
    }
    Ok(())
}

/// On the current stream of the library of `input`, or else the legacy default stream.
fn on_cuda(input: &Array<'_>, ordinal: usize) -> PyResult<Place> {
    let device = devices::cuda(ordinal)?;
    let Source::Exchange(object, exchange) = &input.source else { return Ok(Place::Cuda(device, None)) };
    let stream = exchange.current_stream(object.py(), ordinal)?;
    Ok(Place::Cuda(device, Some(stream.expose_provenance())))
}

fn stream_of(device: &CudaDevice, stream: Option<usize>) -> normkit::Result<Stream<'static>> {
    let Some(address) = stream else { return Ok(Stream::Cuda(device.stream())) };
    // SAFETY: the library's current stream is alive, and it frees memory in the order of its streams.
    unsafe { device.on_stream(std::ptr::with_exposed_provenance_mut(address)) }.map(Stream::Cuda)
}

/// An array of normkit's own on a GPU.
pub(crate) fn new_on_cuda(ordinal: usize, shape: &[usize], dtype: DType) -> PyResult<Exporter> {
    Exporter::cuda(&devices::cuda(ordinal)?, shape, dtype)
}
