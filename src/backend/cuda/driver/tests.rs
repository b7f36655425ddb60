//! The host driver from compiling to launching, with kernels of a few lines, and what every device promises.

use super::super::{Cache, CudaDevice, CudaOptions, CudaTensor, HostOptions, devices};
use super::cache::Temporary;
use super::{Function, Launch};
use crate::tensor::{DType, HostTensor, Layout, Tensor, View, ViewMut};
use crate::{Device, Error, Workspace};

/// Entries as `kernels/device_host.cuh` makes them: the first adds up what it is told of the launch, the second fails.
const SOURCE: &str = r#"
#include <stdint.h>
#include <string.h>
struct Run { uint32_t schedule, seed, workers; char* message; uint64_t capacity; };
#define ENTRY(name) extern "C" __attribute__((visibility("default"))) int name(const void* params, uint64_t grid, \
    uint32_t block, uint32_t shared, uint32_t cluster, const Run* run)
struct Params { uint64_t at; double value; };
ENTRY(adds) {
    const Params* p = static_cast<const Params*>(params);
    double* to = reinterpret_cast<double*>(p->at);
    *to = p->value + double(grid + block + shared + cluster + run->schedule + run->seed + run->workers);
    return 0;
}
ENTRY(fails) {
    strncpy(run->message, "thread 3 of block 1 went astray", run->capacity);
    return 1;
}
"#;

fn host(cache: Cache) -> CudaDevice {
    CudaDevice::host_with(&HostOptions { cache, seed: 7, ..HostOptions::default() }).unwrap()
}

fn compile(device: &CudaDevice, source: &str) -> crate::Result<Vec<Function>> {
    device.compile(source, &["adds".to_owned(), "fails".to_owned()])
}

fn launch(function: &Function, tensor: &CudaTensor, grid: u64) -> Launch {
    let mut params = tensor.address().to_ne_bytes().to_vec();
    params.extend(0.5f64.to_ne_bytes());
    Launch { function: function.clone(), grid, block: 64, shared: 16, cluster: 1, params }
}

#[test]
fn the_host_driver_compiles_and_runs() {
    let device = host(Cache::Off);
    let functions = compile(&device, SOURCE).unwrap();
    let tensor = device.zeros(&[1], DType::F64).unwrap();
    let run = |index: usize, grid| device.stream().run("a test", &[launch(&functions[index], &tensor, grid)]);
    run(0, 1000).unwrap();
    let sum = 0.5 + (1000 + 64 + 16 + 1 + 7 + 1) as f64;
    assert_eq!(tensor.read().unwrap().to_f64(), [sum]);
    let Err(Error::Backend { backend: "cuda-host", what, reason }) = run(1, 1) else { panic!("no error") };
    assert_eq!((&what[..], &reason[..]), ("a test", "thread 3 of block 1 went astray"));
    assert!(matches!(run(0, 1 << 31), Err(Error::Limit { name: "grid", .. })));
    // The next good call works.
    run(0, 1001).unwrap();
    assert_eq!(tensor.read().unwrap().to_f64(), [sum + 1.0]);
    // Nothing runs while preparing.
    device.preparing().run("a test", &[launch(&functions[0], &tensor, 1)]).unwrap();
    assert_eq!(tensor.read().unwrap().to_f64(), [sum + 1.0]);
}

#[test]
fn what_does_not_compile_is_an_error_with_the_log() {
    let device = host(Cache::Off);
    let Err(Error::Backend { backend: "cuda-host", reason, .. }) =
        compile(&device, "int unheard_of = nothing;")
    else {
        panic!("no error")
    };
    assert!(reason.contains("nothing"), "{reason}");
    let missing = device.compile(SOURCE, &["absent".to_owned()]).map(|_| ()).unwrap_err();
    assert!(missing.to_string().contains("absent"), "{missing}");
}

#[test]
fn a_second_device_finds_what_the_first_has_compiled() {
    let folder = Temporary::new().unwrap();
    let path = folder.path().join("kernels");
    let works = |device: &CudaDevice| {
        let functions = compile(device, SOURCE).unwrap();
        let tensor = device.zeros(&[1], DType::F64).unwrap();
        device.stream().run("a test", &[launch(&functions[0], &tensor, 5)]).unwrap();
        assert_eq!(tensor.read().unwrap().to_f64(), [0.5 + (5 + 64 + 16 + 1 + 7 + 1) as f64]);
    };
    let file = || {
        let files: Vec<_> = std::fs::read_dir(&path).unwrap().map(|file| file.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    };
    let written = || std::fs::metadata(file()).unwrap().modified().unwrap();
    works(&host(Cache::Folder(path.clone())));
    let (whole, first) = (std::fs::read(file()).unwrap(), written());
    works(&host(Cache::Folder(path.clone())));
    assert_eq!(written(), first);
    // What is not whole is compiled again, and then is.
    let half = path.join("half");
    std::fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    let name = std::fs::read_dir(&path).unwrap().map(|f| f.unwrap().path()).find(|f| *f != half).unwrap();
    std::fs::rename(half, &name).unwrap();
    works(&host(Cache::Folder(path.clone())));
    assert!(std::fs::read(file()).unwrap().len() > whole.len() / 2);
    // The compiler's options are part of the question.
    let options =
        HostOptions { cache: Cache::Folder(path.clone()), sanitize: true, ..HostOptions::default() };
    let sanitized = CudaDevice::host_with(&options).unwrap();
    assert_ne!(sanitized.driver().identity(), host(Cache::Off).driver().identity());
}

#[test]
fn without_a_compiler_the_error_says_what_was_tried() {
    let options = HostOptions { compiler: Some("/nowhere/c++".into()), ..HostOptions::default() };
    let Err(Error::NoDevice { backend: "cuda-host", reason }) = CudaDevice::host_with(&options) else {
        panic!("no error")
    };
    assert!(reason.contains("/nowhere/c++"), "{reason}");
}

/// Where there is no driver, nothing panics, and the error says where it was looked for.
#[test]
fn a_gpu_or_what_was_tried() {
    let check = |error: Error| match error {
        Error::NoDevice { backend: "cuda", reason } => assert!(reason.len() > 40, "{reason}"),
        other => panic!("{other}"),
    };
    match CudaDevice::new() {
        Ok(device) => assert!(!device.info().is_host && device.backend() == "cuda"),
        Err(error) => check(error),
    }
    if let Err(error) = devices() {
        check(error);
    }
    let missing = CudaOptions {
        driver: Some("/nowhere/libcuda.so.1".into()),
        ordinal: 1 << 20,
        ..CudaOptions::default()
    };
    check(CudaDevice::with_options(&missing).map(|_| ()).unwrap_err());
    // SAFETY: a null context is allowed.
    let null = unsafe { CudaDevice::from_context(std::ptr::null_mut(), &CudaOptions::default()) };
    assert!(matches!(null, Err(Error::Argument { name: "context", .. })));
}

#[test]
fn addresses_are_checked() {
    let device = host(Cache::Off);
    let tensor = device.zeros(&[4], DType::F32).unwrap();
    let view = |address: u64, bytes: u64, len: usize| {
        // SAFETY: what is not the tensor's is refused, and nothing is read.
        unsafe { View::from_cuda(&device, address, bytes, DType::F32, Layout::contiguous(&[len])) }
            .map(|_| ())
    };
    let named = |result: crate::Result<()>| match result {
        Err(Error::Argument { name, .. }) => name,
        other => panic!("{other:?}"),
    };
    let at = tensor.address();
    assert!(at.is_multiple_of(256));
    view(at, 16, 4).unwrap();
    view(at + 4, 12, 3).unwrap();
    view(0, 0, 0).unwrap();
    assert_eq!(named(view(0, 16, 4)), "address");
    assert_eq!(named(view(at + 2, 8, 2)), "address");
    assert_eq!(named(view(u64::MAX - 3, 16, 4)), "bytes");
    assert_eq!(named(view(at, 16, 5)), "memory");
    // SAFETY: a stream that is not the null one is refused before anything uses it.
    let stream = unsafe { device.on_stream(std::ptr::without_provenance_mut(8)) };
    assert_eq!(named(stream.map(|_| ())), "stream");
    // SAFETY: the null stream is there.
    assert!(unsafe { device.on_stream(std::ptr::null_mut()) }.is_ok());
}

#[test]
fn tensors_hold_what_was_put_in() {
    let device = host(Cache::Off);
    for dtype in DType::FLOATS {
        let host = HostTensor::from_f64(&[1.0, -2.0, 0.5], &[3], dtype).unwrap();
        let mut tensor = device.upload(&host).unwrap();
        assert_eq!(tensor.read().unwrap(), host);
        assert_eq!(tensor.view().unwrap().device(), Device::Cuda(device.clone()));
        let clone = tensor.clone();
        let shared = tensor.view_mut().map(|_| ()).unwrap_err();
        assert!(matches!(shared, Error::Argument { name: "tensor", .. }));
        drop(clone);
        assert!(tensor.view_mut().is_ok());
        assert_eq!(tensor.empty(&[0, 7], dtype).unwrap().read().unwrap().shape(), [0, 7]);
    }
    assert!(matches!(device.zeros(&[1 << 44], DType::F64), Err(Error::OutOfMemory { .. })));
    assert!(device.zeros(&[usize::MAX, 2], DType::F64).is_err());
}

fn address(view: &View<'_>) -> u64 {
    match &view.memory {
        crate::tensor::Memory::Cuda(range) => range.address(),
        _ => panic!("memory of another device"),
    }
}

#[test]
fn a_workspace_grows_and_stays() {
    let device = host(Cache::Off);
    let mut workspace = Workspace::with_capacity(&Device::Cuda(device.clone()), 100).unwrap();
    let stream = device.stream();
    let place = |workspace: &mut Workspace, bytes| address(&stream.workspace(workspace, bytes).unwrap());
    let first = place(&mut workspace, 100);
    assert_eq!(place(&mut workspace, 8), first);
    assert!(device.has_room(&workspace, 104) && !device.has_room(&workspace, 112));
    place(&mut workspace, 1000);
    assert!(device.has_room(&workspace, 1000));
    // Another device's is replaced.
    assert!(!host(Cache::Off).has_room(&workspace, 8));
}

#[test]
fn overlaps_are_seen_by_address() {
    use crate::tensor::{Overlap, overlap};
    let device = host(Cache::Off);
    let mut tensor = device.zeros(&[8], DType::F32).unwrap();
    let (at, layout) = (tensor.address(), Layout::contiguous(&[4]));
    let whole = tensor.view_mut().unwrap();
    // SAFETY: four numbers of the tensor each; nothing is read or written.
    let part =
        |first: u64| unsafe { ViewMut::from_cuda(&device, at + 4 * first, 16, DType::F32, layout.clone()) };
    let (low, middle, high) = (part(0).unwrap(), part(2).unwrap(), part(4).unwrap());
    assert_eq!(overlap(&low.as_view(), &high.as_view()), Overlap::None);
    assert_eq!(overlap(&low.as_view(), &middle.as_view()), Overlap::Some);
    assert_eq!(overlap(&low.as_view(), &low.as_view()), Overlap::Same);
    assert_eq!(overlap(&whole.as_view(), &high.as_view()), Overlap::Some);
}

#[test]
fn one_device_serves_several_threads() {
    let device = host(Cache::Off);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let device = &device;
            scope.spawn(move || {
                let functions = compile(device, SOURCE).unwrap();
                let tensor = device.zeros(&[1], DType::F64).unwrap();
                for grid in 0..50 {
                    let launch = launch(&functions[0], &tensor, 100 * thread + grid);
                    device.stream().run("a test", &[launch]).unwrap();
                    let sum = 0.5 + (100 * thread + grid + 64 + 16 + 1 + 7 + 1) as f64;
                    assert_eq!(tensor.read().unwrap().to_f64(), [sum]);
                }
            });
        }
    });
}
