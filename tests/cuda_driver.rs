//! What the real CUDA driver is asked, seen by a stand-in for it: capture, streams, contexts and pointers of others, and
//! what is given back. It runs where there is no GPU, and computes nothing.
#![cfg(all(feature = "cuda", target_os = "linux"))]

use normkit::backend::cuda::{Cache, CudaDevice, CudaOptions, CudaTensor};
use normkit::prelude::*;
use normkit::tensor::{DType, Layout, View, ViewMut};
use normkit::{Error, Gradients, Result, Stream};
use std::ffi::{c_char, c_long, c_void};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// As in `tests/stub/cuda.cpp`.
const CONTEXT: usize = 0x1000;
const OWN: usize = 0x5000;
const FOREIGN: usize = 0x6000;
const CAPTURING: usize = 0x7000;
const NOWHERE: u64 = 0x10000;
const OTHER: u64 = 0x20000;

/// The stand-in, by one test at a time.
struct Stub {
    number: unsafe extern "C" fn(*const c_char) -> *mut c_long,
    path: PathBuf,
    _one: MutexGuard<'static, ()>,
}

/// Where the stand-in lies, compiled once.
fn library() -> &'static PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let (path, new) = (folder.join("stub.so"), folder.join(format!("stub-{}.so", std::process::id())));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stub/cuda.cpp");
        // Under the name that the driver is first looked for by, so that a driver which is there is not found.
        let flags = ["-std=c++17", "-shared", "-fPIC", "-Wl,-soname,libcuda.so", "-o"];
        let status = std::process::Command::new("c++").args(flags).arg(&new).arg(source).status().unwrap();
        assert!(status.success());
        // Whole at once, in case that another process runs these tests.
        std::fs::rename(new, &path).unwrap();
        path
    })
}

impl Stub {
    fn new() -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let path = library().clone();
        // SAFETY: the library has no initializers, and this function with this type; it is never closed.
        let number = unsafe {
            let library = libloading::Library::new(&path).unwrap();
            let number = *library.get(b"stub_number").unwrap();
            std::mem::forget(library);
            number
        };
        let stub = Stub { number, path, _one: one };
        for (name, value) in [("pools", 1), ("launch", 0), ("version", 12000)] {
            stub.set(name, value);
        }
        stub
    }

    fn get(&self, name: &str) -> i64 {
        let name = std::ffi::CString::new(name).unwrap();
        // SAFETY: the pointer is to a number that stays, and one test at a time uses it.
        unsafe { *(self.number)(name.as_ptr()) }
    }

    fn set(&self, name: &str, value: c_long) {
        let name = std::ffi::CString::new(name).unwrap();
        // SAFETY: as above.
        unsafe { *(self.number)(name.as_ptr()) = value }
    }

    /// How much the numbers change while `work` runs.
    fn changes<const N: usize>(&self, names: [&str; N], work: impl FnOnce()) -> [i64; N] {
        let before = names.map(|name| self.get(name));
        work();
        std::array::from_fn(|i| self.get(names[i]) - before[i])
    }

    fn options(&self) -> CudaOptions {
        let path = Some(self.path.clone());
        CudaOptions { driver: path.clone(), nvrtc: path, cache: Cache::Off, ..CudaOptions::default() }
    }

    fn device(&self) -> CudaDevice {
        CudaDevice::with_options(&self.options()).unwrap()
    }
}

fn pointer(handle: usize) -> *mut c_void {
    std::ptr::without_provenance_mut(handle)
}

fn stream(device: &CudaDevice, handle: usize) -> Stream<'static> {
    // SAFETY: the stand-in takes any handle.
    Stream::Cuda(unsafe { device.on_stream(pointer(handle)) }.unwrap())
}

fn named<T>(result: Result<T>) -> &'static str {
    match result.map(|_| ()) {
        Err(Error::Argument { name, .. }) => name,
        other => panic!("{other:?}"),
    }
}

fn tensors(device: &CudaDevice, shape: &[usize]) -> (CudaTensor, CudaTensor) {
    let tensor = || device.zeros(shape, DType::F32).unwrap();
    (tensor(), tensor())
}

fn forward((x, y): &mut (CudaTensor, CudaTensor), stream: &Stream<'_>) -> Result<()> {
    let cols = *x.shape().last().unwrap();
    LayerNorm::new([cols]).forward_into(&x.view()?, &mut y.view_mut()?, None, stream)
}

#[test]
fn a_launch_goes_to_the_callers_stream_and_waits_for_nothing() {
    let stub = Stub::new();
    let device = stub.device();
    assert_eq!(
        (device.backend(), &device.info().name[..], device.info().capability),
        ("cuda", "Stub 0", (9, 0))
    );
    let mut tensors = tensors(&device, &[64, 768]);
    forward(&mut tensors, &Stream::Cuda(device.preparing())).unwrap();
    for handle in [OWN, 0x4000, 0] {
        let on = if handle == OWN { Stream::Cuda(device.stream()) } else { stream(&device, handle) };
        let changed = stub.changes(["launches", "waits", "memory", "compiled"], || {
            forward(&mut tensors, &on).unwrap();
        });
        assert_eq!(changed, [1, 0, 0, 0]);
        assert_eq!(stub.get("stream"), handle as i64);
        assert!(stub.get("size") % 8 == 0 && stub.get("grid") > 0);
    }
    assert_eq!(stub.get("entered"), 0);
}

#[test]
fn only_what_was_prepared_can_be_captured() {
    let stub = Stub::new();
    let device = stub.device();
    let capturing = stream(&device, CAPTURING);
    // A row of many leaves, which takes several launches and scratch memory.
    let mut tensors = tensors(&device, &[2, 300_000]);
    let changed = stub.changes(["compiled", "launches", "scratch"], || {
        assert_eq!(named(forward(&mut tensors, &capturing)), "stream");
    });
    assert_eq!(changed, [0, 0, 0]);
    let preparing = Stream::Cuda(device.preparing());
    let changed = stub.changes(["compiled", "launches", "scratch", "waits"], || {
        forward(&mut tensors, &preparing).unwrap();
    });
    assert_eq!(changed, [1, 0, 0, 0]);
    let changed = stub.changes(["compiled", "launches", "scratch", "waits", "memory", "unrelaxed"], || {
        forward(&mut tensors, &capturing).unwrap();
    });
    assert_eq!(changed, [0, 3, 0, 0, 0, 0]);
    assert_eq!(stub.get("stream"), CAPTURING as i64);
    // Without memory pools scratch would have to be waited for.
    stub.set("pools", 0);
    let device = stub.device();
    let mut tensors = self::tensors(&device, &[2, 300_000]);
    forward(&mut tensors, &Stream::Cuda(device.preparing())).unwrap();
    let error = forward(&mut tensors, &stream(&device, CAPTURING)).unwrap_err();
    assert!(error.to_string().contains("no memory pools"), "{error}");
    let changed =
        stub.changes(["memory", "launches"], || forward(&mut tensors, &stream(&device, 0)).unwrap());
    assert_eq!(changed, [0, 3]);
}

#[test]
fn a_workspace_does_not_grow_during_a_capture() {
    let stub = Stub::new();
    let device = stub.device();
    let (x, g) = tensors(&device, &[64, 768]);
    let (weight, mut grad_weight) = tensors(&device, &[768]);
    let norm = LayerNorm::new([768]).weight(&weight);
    let rows = norm.statistics_shape(&[64, 768], DType::F32).unwrap().unwrap();
    let statistics = device.zeros(&rows, DType::F32).unwrap();
    let mut backward = |workspace: &mut Workspace, stream: &Stream<'_>| {
        let grads = Gradients { weight: Some(grad_weight.view_mut()?), ..Gradients::default() };
        norm.backward_into(&g.view()?, &x.view()?, Some(&statistics.view()?), grads, workspace, stream)
    };
    let mut workspace = Workspace::new();
    let capturing = stream(&device, CAPTURING);
    backward(&mut Workspace::new(), &Stream::Cuda(device.preparing())).unwrap();
    assert_eq!(named(backward(&mut workspace, &capturing)), "workspace");
    backward(&mut workspace, &Stream::Cuda(device.preparing())).unwrap();
    backward(&mut workspace, &capturing).unwrap();
}

#[test]
fn streams_contexts_and_pointers_of_others_are_told_apart() {
    let stub = Stub::new();
    let device = stub.device();
    // SAFETY: the stand-in takes any handle.
    assert_eq!(named(unsafe { device.on_stream(pointer(FOREIGN)) }), "stream");
    let view = |address: u64| {
        // SAFETY: nothing is read.
        unsafe { View::from_cuda(&device, address, 16, DType::F32, Layout::contiguous(&[4])) }.map(|_| ())
    };
    view(0x30000).unwrap();
    view(0x30004).unwrap();
    for address in [NOWHERE, OTHER, 0x30002, 0] {
        assert_eq!(named(view(address)), "address", "{address:#x}");
    }
    // SAFETY: nothing is written.
    let other = unsafe { ViewMut::from_cuda(&device, OTHER, 16, DType::F32, Layout::contiguous(&[4])) };
    assert_eq!(named(other), "address");
    // SAFETY: the stand-in takes any handle.
    let of_context = |context: usize| unsafe { CudaDevice::from_context(pointer(context), &stub.options()) };
    assert!(of_context(CONTEXT).unwrap() == device);
    assert_eq!(named(of_context(0x1234)), "context");
    assert_eq!(named(of_context(0)), "context");
}

#[test]
fn everything_taken_is_given_back_and_nothing_else() {
    let stub = Stub::new();
    let names = ["contexts", "memory", "scratch", "streams", "entered", "unrelaxed"];
    let changed = stub.changes(names, || {
        let device = stub.device();
        let mut tensors = tensors(&device, &[2, 300_000]);
        forward(&mut tensors, &Stream::Cuda(device.stream())).unwrap();
        forward(&mut tensors, &stream(&device, 0x4000)).unwrap();
        // A context of the caller's stays as it was.
        // SAFETY: the stand-in takes any handle.
        drop(unsafe { CudaDevice::from_context(pointer(CONTEXT), &stub.options()) }.unwrap());
        assert_eq!(stub.get("contexts"), 1);
        assert_eq!(tensors.1.read().unwrap().shape(), [2, 300_000]);
    });
    assert_eq!(changed, [0; 6]);
}

#[test]
fn failures_are_errors_and_the_next_good_call_works() {
    let stub = Stub::new();
    let device = stub.device();
    let mut tensors = tensors(&device, &[8, 64]);
    let on = Stream::Cuda(device.stream());
    for (code, expected) in
        [(700, "lost"), (2, "out of memory"), (719, "lost"), (701, "cuda refused norm forward")]
    {
        stub.set("launch", code);
        let error = forward(&mut tensors, &on).unwrap_err();
        assert!(error.to_string().contains(expected), "{code}: {error}");
        stub.set("launch", 0);
        forward(&mut tensors, &on).unwrap();
    }
    assert!(matches!(device.zeros(&[1 << 39], DType::F64), Err(Error::OutOfMemory { .. })));
    assert_eq!(stub.get("entered"), 0);
}

#[test]
fn a_gpu_that_cannot_be_used_says_why() {
    let stub = Stub::new();
    let reason = |options: &CudaOptions| match CudaDevice::with_options(options).map(|_| ()) {
        Err(Error::NoDevice { backend: "cuda", reason }) => reason,
        other => panic!("{other:?}"),
    };
    let with = |ordinal| CudaOptions { ordinal, ..stub.options() };
    assert!(reason(&with(1)).contains("compute capability 6.0; 7.5 is needed"));
    let too_old = reason(&with(2));
    assert!(too_old.contains("does not compile for compute capability 12.0, only for [75, 90]"), "{too_old}");
    assert!(reason(&with(3)).contains("GPU 3 is not there"));
    let missing = CudaOptions { nvrtc: Some("/nowhere/libnvrtc.so".into()), ..stub.options() };
    assert!(reason(&missing).contains("/nowhere/libnvrtc.so"));
    stub.set("version", 11080);
    let too_new = reason(&stub.options());
    assert!(too_new.contains("newer than the driver's CUDA 11"), "{too_new}");
}
