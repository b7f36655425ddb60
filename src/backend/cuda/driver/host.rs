//! The host driver: kernels compiled by the system's C++ compiler, run on the CPU when they are launched.

use super::super::device::{CudaInfo, Limits};
use super::super::fault::{HOST, limit, no_device, out_of_memory, refused};
use super::cache::{Cache, Disk, Key, Temporary, write_new};
use super::find::Opened;
use super::{Entry, Function, Launch, Queue};
use crate::{Error, Result};
use std::alloc::Layout;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What memory is aligned to, as on a GPU.
const ALIGNMENT: usize = 256;

/// In what order the host driver runs the threads of a block. Kernels whose results depend on it are wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Schedule {
    /// From the first thread to the last, each until it has to wait.
    #[default]
    Ascending = 0,
    /// From the last thread to the first.
    Descending = 1,
    /// In an order drawn from the seed, also within a warp, with switches at every access to shared memory.
    Random = 2,
}

/// How the host driver compiles and runs kernels.
#[derive(Debug, Clone, PartialEq)]
pub struct HostOptions {
    /// The C++ compiler; without it `$CXX`, `c++`, `g++` or `clang++`, whichever is found first.
    pub compiler: Option<PathBuf>,
    /// The order in which threads run.
    pub schedule: Schedule,
    /// What [`Schedule::Random`] draws from.
    pub seed: u32,
    /// Threads of the CPU that share the blocks of a launch.
    pub workers: u32,
    /// The compute capability of the GPU whose geometry is taken.
    pub capability: (u32, u32),
    /// Compile with AddressSanitizer; the process must have its library loaded.
    pub sanitize: bool,
    /// Where compiled kernels are kept between runs.
    pub cache: Cache,
}

impl Default for HostOptions {
    fn default() -> Self {
        HostOptions {
            compiler: None,
            schedule: Schedule::default(),
            seed: 0,
            workers: 1,
            capability: (9, 0),
            sanitize: false,
            cache: Cache::default(),
        }
    }
}

/// What a kernel is told of the run; as `Run` in `kernels/host_machine.cuh`.
#[repr(C)]
struct HostRun {
    schedule: u32,
    seed: u32,
    workers: u32,
    message: *mut c_char,
    capacity: u64,
}

/// A kernel's entry: parameters, blocks, threads of a block, bytes of shared memory, blocks of a cluster, the run.
type EntryPoint = unsafe extern "C" fn(*const c_void, u64, u32, u32, u32, *const HostRun) -> c_int;

/// A compiled kernel. Its library is never closed.
#[derive(Clone, Copy)]
pub(super) struct Kernel(EntryPoint);

/// The CPU as a device.
pub(in crate::backend::cuda) struct Host {
    compiler: Compiler,
    flags: Vec<&'static str>,
    schedule: Schedule,
    seed: u32,
    workers: u32,
}

/// A compiler as it is called, and what it says of itself.
struct Compiler {
    command: Vec<String>,
    version: String,
}

/// The options that decide about numbers: no contraction of products and sums, no reassociation.
const FLAGS: [&str; 7] =
    ["-std=c++17", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-fast-math"];

impl Host {
    pub(super) fn open(options: &HostOptions) -> Result<(Self, CudaInfo, Limits)> {
        let compiler = Compiler::find(options.compiler.as_deref())?;
        let mut flags = FLAGS.to_vec();
        if options.sanitize {
            flags.extend(["-fsanitize=address", "-fno-omit-frame-pointer", "-g"]);
        }
        let info = CudaInfo {
            name: "the host driver".into(),
            ordinal: 0,
            // What the kernels' host side offers: everything, clusters too.
            capability: options.capability,
            memory: 0,
            driver: None,
            compiler: compiler.version.clone(),
            is_host: true,
            unusable: None,
        };
        // Geometry as on a large GPU, so that what is tested here is what runs there.
        let limits = Limits {
            multiprocessors: 132,
            l2_bytes: 50 << 20,
            shared_bytes: 227 << 10,
            capability: info.capability,
            is_host: true,
        };
        let (schedule, seed, workers) = (options.schedule, options.seed, options.workers.max(1));
        Ok((Host { compiler, flags, schedule, seed, workers }, info, limits))
    }

    pub(super) fn queue(&self) -> Queue {
        Queue(0)
    }

    /// # Safety
    /// None is needed: there is one stream.
    pub(super) unsafe fn check_queue(&self, queue: Queue) -> Result<()> {
        if queue == self.queue() {
            return Ok(());
        }
        Err(Error::argument("stream", "a null stream, the host driver's only one", format!("{:#x}", queue.0)))
    }

    pub(super) fn is_capturing(&self, _: Queue) -> Result<bool> {
        Ok(false)
    }

    pub(super) fn wait(&self) -> Result<()> {
        Ok(())
    }

    pub(super) fn allocate(&self, bytes: usize) -> Result<u64> {
        let what = || out_of_memory(format!("{bytes} bytes of the host driver's memory"));
        let layout = layout(bytes).ok_or_else(what)?;
        // SAFETY: the layout has at least one byte.
        let block = unsafe { std::alloc::alloc_zeroed(layout) };
        if block.is_null() { Err(what()) } else { Ok(block.expose_provenance() as u64) }
    }

    /// # Safety
    /// As [`super::Driver::release`].
    pub(super) unsafe fn release(&self, address: u64, bytes: usize) {
        if let Some(layout) = layout(bytes) {
            // SAFETY: `allocate` made the block with this layout.
            unsafe { std::alloc::dealloc(at(address), layout) };
        }
    }

    pub(super) fn allocate_on(&self, _: Queue, bytes: usize) -> Result<u64> {
        self.allocate(bytes)
    }

    /// # Safety
    /// As [`super::Driver::release_on`].
    pub(super) unsafe fn release_on(&self, _: Queue, address: u64, bytes: usize) {
        // SAFETY: launches have finished when they return; the rest is the caller's promise.
        unsafe { self.release(address, bytes) };
    }

    /// # Safety
    /// As [`super::Driver::clear`].
    pub(super) unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller says that the bytes are this device's, and nobody else uses them.
        unsafe { std::ptr::write_bytes(at(address), 0, bytes) };
        Ok(())
    }

    /// # Safety
    /// As [`super::Driver::copy`].
    pub(super) unsafe fn copy(&self, _: Queue, to: u64, from: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller says that the bytes are this device's and apart.
        unsafe { std::ptr::copy_nonoverlapping(at(from).cast_const(), at(to), bytes) };
        Ok(())
    }

    /// # Safety
    /// As [`super::Driver::upload`].
    pub(super) unsafe fn upload(&self, address: u64, bytes: &[u8]) -> Result<()> {
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at(address), bytes.len()) };
        Ok(())
    }

    /// # Safety
    /// As [`super::Driver::download`].
    pub(super) unsafe fn download(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(at(address).cast_const(), bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    pub(super) fn check_address(&self, _: u64) -> Result<()> {
        Ok(())
    }

    pub(super) fn run(&self, _: Queue, what: &str, launches: &[Launch]) -> Result<()> {
        launches.iter().try_for_each(|launch| self.launch(what, launch))
    }

    fn launch(&self, what: &str, launch: &Launch) -> Result<()> {
        let Entry::Host(kernel) = &launch.function.0 else {
            return Err(refused(HOST, what, "a kernel that was compiled for a GPU"));
        };
        if launch.grid > super::real::MOST_BLOCKS {
            return Err(limit("grid", format!("{} blocks", super::real::MOST_BLOCKS), launch.grid));
        }
        // A struct of eight-byte numbers, which a vector of bytes need not be aligned for.
        let mut params = vec![0u64; launch.params.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut params)[..launch.params.len()].copy_from_slice(&launch.params);
        let mut message = [0u8; 4096];
        let run = HostRun {
            schedule: self.schedule as u32,
            seed: self.seed,
            workers: self.workers,
            message: message.as_mut_ptr().cast(),
            capacity: message.len() as u64,
        };
        // SAFETY: the entry has this type, its parameters are those of its variant, and they name memory that the views
        // they were made from have checked; the message has room for what the run says.
        let code = unsafe {
            (kernel.0)(
                params.as_ptr().cast(),
                launch.grid,
                launch.block,
                launch.shared,
                launch.cluster,
                &raw const run,
            )
        };
        if code == 0 {
            return Ok(());
        }
        let text = CStr::from_bytes_until_nul(&message).map(|text| text.to_string_lossy().into_owned());
        Err(refused(HOST, what, text.unwrap_or_else(|_| format!("error {code}"))))
    }

    /// Everything but the source that a compiled kernel depends on.
    pub(super) fn identity(&self) -> Vec<String> {
        let flags = self.flags.iter().map(|&flag| flag.to_owned());
        let platform = [std::env::consts::OS, std::env::consts::ARCH].map(str::to_owned);
        let compiler = self.compiler.command.iter().cloned().chain([self.compiler.version.clone()]);
        flags.chain(platform).chain(compiler).collect()
    }

    pub(super) fn compile(
        &self,
        disk: &Disk,
        key: &Key,
        source: &str,
        names: &[String],
    ) -> Result<Vec<Function>> {
        if let Some((path, _)) = disk.get(key, "so")
            && let Ok(functions) = load(&path, names)
        {
            return Ok(functions);
        }
        let cannot = |reason: std::io::Error| refused(HOST, "a kernel", reason);
        // Gone when this returns; what was loaded from it stays.
        let folder = Temporary::new().map_err(cannot)?;
        let object = folder.path().join("normkit.so");
        self.build(&folder.path().join("normkit.cpp"), &object, source)?;
        let kept = std::fs::read(&object).ok().and_then(|content| disk.put(key, "so", &content));
        load(&kept.unwrap_or(object), names).map_err(|reason| refused(HOST, "a kernel", reason))
    }

    /// Compiles `source`, which is put into `file`, to the shared object `object`.
    fn build(&self, file: &Path, object: &Path, source: &str) -> Result<()> {
        let cannot = |reason: std::io::Error| refused(HOST, "a kernel", reason);
        write_new(file, &[source.as_bytes()]).map_err(cannot)?;
        let mut command = self.compiler.command();
        command.args(&self.flags).arg("-o").arg(object).arg(file).arg("-lpthread");
        let output = command.output().map_err(cannot)?;
        if output.status.success() {
            return Ok(());
        }
        let log = String::from_utf8_lossy(&output.stderr);
        let begin: String = log.chars().take(6000).collect();
        Err(refused(HOST, "a kernel", format!("{}: {begin}", self.compiler.command.join(" "))))
    }
}

/// A block's layout; a block of no bytes has one, so that it has an address of its own.
fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.max(1), ALIGNMENT).ok()
}

/// Where an address is.
fn at(address: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

/// The entries of a shared object.
fn load(path: &Path, names: &[String]) -> std::result::Result<Vec<Function>, String> {
    let library = Opened::file(path, false)?;
    let functions = names.iter().map(|name| {
        // SAFETY: what this crate compiles has entries of this type only, and the library is kept open below.
        let entry: EntryPoint = unsafe { library.function(name) }?;
        Ok(Function(Entry::Host(Kernel(entry))))
    });
    let functions = functions.collect::<std::result::Result<_, String>>()?;
    library.keep();
    Ok(functions)
}

impl Compiler {
    /// The first that can be called.
    fn find(explicit: Option<&Path>) -> Result<Self> {
        let candidates: Vec<Vec<String>> = match explicit {
            Some(path) => vec![vec![path.to_string_lossy().into_owned()]],
            None => {
                // CXX may have options behind the compiler's name, or a wrapper before it.
                let variable = std::env::var("CXX").unwrap_or_default();
                let given: Vec<String> = variable.split_whitespace().map(str::to_owned).collect();
                let usual = ["c++", "g++", "clang++"].map(|name| vec![name.to_owned()]);
                std::iter::once(given).filter(|given| !given.is_empty()).chain(usual).collect()
            }
        };
        let mut tried = Vec::new();
        for command in candidates {
            let mut compiler = Compiler { command, version: String::new() };
            let result = compiler.command().arg("--version").output();
            match result {
                Ok(output) if output.status.success() => {
                    let text = String::from_utf8_lossy(&output.stdout);
                    compiler.version = text.lines().next().unwrap_or_default().to_owned();
                    return Ok(compiler);
                }
                Ok(output) => tried.push(format!("{}: {}", compiler.command.join(" "), output.status)),
                Err(error) => tried.push(format!("{}: {error}", compiler.command.join(" "))),
            }
        }
        Err(no_device(HOST, format!("no C++ compiler that can be called; tried {}", tried.join("; "))))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.command[0]);
        // A sanitizer that this process was started with is not meant for the compiler, which would be slow and leak.
        command.args(&self.command[1..]).stdin(Stdio::null()).env_remove("LD_PRELOAD");
        command
    }
}
