//! NVRTC, the compiler for GPUs: found at run time, called directly. cudarc's own loader knows names only, and a
//! library among Python's packages has to be opened by its path.

use super::super::fault::{CUDA, no_device, refused};
use super::find::{self, Opened, Place, Search, Surroundings};
use crate::Result;
use std::ffi::{CStr, CString, c_char, c_int};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A program of NVRTC's, by its handle.
type Program = *mut std::ffi::c_void;

/// What NVRTC says when all went well.
const SUCCESS: c_int = 0;

/// The functions that are called. They stay, as the library is never closed.
#[derive(Clone, Copy)]
struct Functions {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int,
    count_archs: unsafe extern "C" fn(*mut c_int) -> c_int,
    archs: unsafe extern "C" fn(*mut c_int) -> c_int,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    error: unsafe extern "C" fn(c_int) -> *const c_char,
}

/// A library of NVRTC.
pub(in crate::backend::cuda) struct Nvrtc {
    functions: Functions,
    version: (u32, u32),
    archs: Vec<u32>,
}

/// The oldest version that was seen to compile in several threads at a time; of older ones there is no knowing.
const THREADS_SINCE: (u32, u32) = (13, 2);

/// The thread that compiles with a version that is older.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

impl Nvrtc {
    /// The first library among the places to look in that compiles for compute capability `arch` (10 times the major
    /// number and the minor one) and whose code a driver of CUDA `driver_major` loads.
    pub(super) fn find(
        explicit: Option<&Path>,
        around: &Surroundings<'_>,
        driver_major: u32,
        arch: u32,
    ) -> Result<Self> {
        let mut tried = Vec::new();
        let mut take = |search: Search| {
            tried.extend(search.empty.iter().map(|folder| format!("{}: no NVRTC in it", folder.display())));
            search.places.iter().find_map(|place| {
                let opened = Nvrtc::open(place).and_then(|nvrtc| nvrtc.fits(driver_major, arch));
                opened.map_err(|reason| tried.push(format!("{place}: {reason}"))).ok()
            })
        };
        let found = match find::given(explicit, around) {
            Some(search) => take(search),
            None => take(find::usual(around)).or_else(|| take(find::of_python(around))),
        };
        if let Some(nvrtc) = found {
            tracing::debug!(version = ?nvrtc.version, "NVRTC");
            return Ok(nvrtc);
        }
        Err(no_device(
            CUDA,
            format!(
                "NVRTC, the compiler, is missing; `pip install nvidia-cuda-nvrtc` brings it, and NORMKIT_NVRTC says \
                 where it is. Tried {}",
                tried.join("; ")
            ),
        ))
    }

    /// The library at a place.
    pub(super) fn open(place: &Place) -> std::result::Result<Self, String> {
        let library = match place {
            Place::Named(name) => Opened::named(name),
            Place::File(path) => {
                for builtins in find::builtins(path) {
                    // Where this fails, NVRTC says at the first compilation what it misses.
                    if let Ok(library) = Opened::file(&builtins, true) {
                        library.keep();
                    }
                }
                Opened::file(path, false)
            }
        };
        let library = library?;
        let functions = functions(&library)?;
        library.keep();
        let (version, archs) = about(&functions)?;
        Ok(Nvrtc { functions, version, archs })
    }

    /// Itself, if a driver of CUDA `driver_major` and a GPU of this capability can use what it makes.
    fn fits(self, driver_major: u32, arch: u32) -> std::result::Result<Self, String> {
        let (major, minor) = self.version;
        if major > driver_major {
            return Err(format!(
                "version {major}.{minor} is newer than the driver's CUDA {driver_major}; take an NVRTC \
                 {driver_major}, or a newer driver"
            ));
        }
        if !self.archs.contains(&arch) {
            return Err(format!(
                "version {major}.{minor} does not compile for compute capability {}.{}, only for {:?}",
                arch / 10,
                arch % 10,
                self.archs
            ));
        }
        Ok(self)
    }

    /// Major and minor number.
    pub(super) fn version(&self) -> (u32, u32) {
        self.version
    }

    /// The machine code of `source`.
    pub(super) fn compile(&self, source: &str, options: &[String]) -> Result<Vec<u8>> {
        self.compile_and_log(source, options).map(|(code, _)| code)
    }

    /// The machine code of `source`, and what the compiler had to say.
    fn compile_and_log(&self, source: &str, options: &[String]) -> Result<(Vec<u8>, String)> {
        let lock = || ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let _one = (self.version < THREADS_SINCE).then(lock);
        compile(&self.functions, source, options).map_err(|reason| refused(CUDA, "a kernel", reason))
    }

    /// The library that the search for one ends at, for a GPU of any driver.
    pub(in crate::backend::cuda) fn for_any_driver(explicit: Option<&Path>, arch: u32) -> Result<Self> {
        Nvrtc::find(explicit, &find::PROCESS, u32::MAX, arch)
    }

    /// The machine code for `arch`, with a log that names the resources it takes.
    pub(in crate::backend::cuda) fn compile_for(&self, source: &str, arch: u32) -> Result<(Vec<u8>, String)> {
        let mut options = flags(arch);
        options.push("--ptxas-options=-v".into());
        self.compile_and_log(source, &options)
    }
}

/// The options for compute capability `arch`.
pub(super) fn flags(arch: u32) -> Vec<String> {
    // Products and sums round apart, and nothing else of fast math is on by default.
    let architecture = format!("--gpu-architecture=sm_{arch}");
    [&architecture[..], "-fmad=false", "-std=c++17", "-default-device"].map(str::to_owned).into()
}

fn functions(library: &Opened) -> std::result::Result<Functions, String> {
    // SAFETY: the types are those of nvrtc.h, and the caller keeps the library open.
    unsafe {
        Ok(Functions {
            version: library.function("nvrtcVersion")?,
            count_archs: library.function("nvrtcGetNumSupportedArchs")?,
            archs: library.function("nvrtcGetSupportedArchs")?,
            create: library.function("nvrtcCreateProgram")?,
            compile: library.function("nvrtcCompileProgram")?,
            log_size: library.function("nvrtcGetProgramLogSize")?,
            log: library.function("nvrtcGetProgramLog")?,
            cubin_size: library.function("nvrtcGetCUBINSize")?,
            cubin: library.function("nvrtcGetCUBIN")?,
            destroy: library.function("nvrtcDestroyProgram")?,
            error: library.function("nvrtcGetErrorString")?,
        })
    }
}

/// What a code of NVRTC's means.
fn check(functions: &Functions, code: c_int) -> std::result::Result<(), String> {
    if code == SUCCESS {
        return Ok(());
    }
    // SAFETY: for any code the function returns a text that ends in zero and stays.
    let text = unsafe {
        let text = (functions.error)(code);
        if text.is_null() { None } else { Some(CStr::from_ptr(text)) }
    };
    Err(text.map_or_else(|| format!("error {code}"), |text| text.to_string_lossy().into_owned()))
}

/// Version and compute capabilities.
fn about(functions: &Functions) -> std::result::Result<((u32, u32), Vec<u32>), String> {
    let (mut major, mut minor, mut count) = (0, 0, 0);
    // SAFETY: each pointer names a number to be written.
    unsafe {
        check(functions, (functions.version)(&mut major, &mut minor))?;
        check(functions, (functions.count_archs)(&mut count))?;
    }
    let mut archs: Vec<c_int> = vec![0; count.max(0) as usize];
    // SAFETY: there is room for as many numbers as the library has just counted.
    unsafe { check(functions, (functions.archs)(archs.as_mut_ptr()))? };
    Ok(((major as u32, minor as u32), archs.into_iter().map(|arch| arch as u32).collect()))
}

/// A program that is destroyed at the end.
struct Owned<'a>(&'a Functions, Program);

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle came from the library's `create` and is not used again.
        unsafe { (self.0.destroy)(&mut self.1) };
    }
}

fn compile(
    functions: &Functions,
    source: &str,
    options: &[String],
) -> std::result::Result<(Vec<u8>, String), String> {
    let text = |s: &str| CString::new(s).map_err(|_| "a text with a zero in it".to_owned());
    let (source, name) = (text(source)?, text("normkit.cu")?);
    let options: Vec<CString> = options.iter().map(|o| text(o)).collect::<std::result::Result<_, _>>()?;
    let pointers: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
    let mut program: Program = std::ptr::null_mut();
    let none = std::ptr::null();
    // SAFETY: both texts end in zero and are read during the call; there are no headers to name.
    let code = unsafe { (functions.create)(&mut program, source.as_ptr(), name.as_ptr(), 0, none, none) };
    check(functions, code)?;
    let program = Owned(functions, program);
    // SAFETY: as many options as said, each a text that ends in zero.
    let code = unsafe { (functions.compile)(program.1, pointers.len() as c_int, pointers.as_ptr()) };
    // SAFETY: the two functions belong together, and the program is alive.
    let log = unsafe { bytes(functions, program.1, functions.log_size, functions.log) }?;
    let log = String::from_utf8_lossy(&log).trim_end_matches('\0').trim_end().to_owned();
    check(functions, code).map_err(|error| format!("{error}\n{log}"))?;
    // SAFETY: as above.
    let code = unsafe { bytes(functions, program.1, functions.cubin_size, functions.cubin) }?;
    Ok((code, log))
}

/// What a program has of some kind: its log or its code.
///
/// # Safety
/// `get` writes as many bytes as `size` says, and `program` is alive.
unsafe fn bytes(
    functions: &Functions,
    program: Program,
    size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    get: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
) -> std::result::Result<Vec<u8>, String> {
    let mut len = 0;
    // SAFETY: a number to be written.
    check(functions, unsafe { size(program, &mut len) })?;
    let mut result = vec![0u8; len];
    // SAFETY: there is room for as many bytes as the library has said.
    check(functions, unsafe { get(program, result.as_mut_ptr().cast()) })?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::super::cache::Temporary;
    use super::*;
    use crate::Error;

    const KERNEL: &str = "extern \"C\" __global__ void k(float* at) { at[threadIdx.x] += 1.0f; }";

    fn reason(result: Result<Nvrtc>) -> String {
        match result.map(|nvrtc| nvrtc.version()) {
            Err(Error::NoDevice { backend: CUDA, reason }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_library_is_named() {
        let folder = Temporary::new().unwrap();
        let file = folder.path().join("libnvrtc.so.13");
        std::fs::write(&file, "no library").unwrap();
        let found = reason(Nvrtc::find(Some(&file), &find::PROCESS, 13, 90));
        assert!(found.contains(&file.display().to_string()) && found.contains("NORMKIT_NVRTC"), "{found}");
        // A library, but another one.
        let other = if cfg!(target_os = "linux") { "libc.so.6" } else { "libSystem.B.dylib" };
        let found = Nvrtc::open(&Place::File(other.into())).map(|nvrtc| nvrtc.version()).unwrap_err();
        assert!(found.contains("nvrtcVersion"), "{found}");
    }

    /// Where NVRTC is installed this compiles with it; elsewhere the error has to say where it was looked for.
    #[test]
    fn compiles_or_says_what_was_tried() {
        let nvrtc = match Nvrtc::find(None, &find::PROCESS, u32::MAX, 90) {
            Ok(nvrtc) => nvrtc,
            Err(error) => return assert!(error.to_string().contains("libnvrtc.so"), "{error}"),
        };
        let code = nvrtc.compile(KERNEL, &flags(90)).unwrap();
        assert_eq!(&code[1..4], b"ELF");
        let Error::Backend { backend: CUDA, reason: log, .. } =
            nvrtc.compile("__global__ void k() { unheard_of(); }", &flags(90)).unwrap_err()
        else {
            panic!("another error")
        };
        assert!(log.contains("unheard_of") && !log.contains('\0'), "{log}");
        assert!(nvrtc.compile("a zero \0 within", &flags(90)).is_err());
        let too_old = reason(Nvrtc::find(None, &find::PROCESS, u32::MAX, 20));
        assert!(too_old.contains("does not compile for compute capability 2.0"), "{too_old}");
        let too_new = reason(Nvrtc::find(None, &find::PROCESS, 5, 90));
        assert!(too_new.contains("newer than the driver's CUDA 5"), "{too_new}");
    }
}
