//! Where libraries may lie, and how they are opened.

use libloading::Library;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is looked at of the process's surroundings; given, so that tests can give others.
pub(super) struct Surroundings<'a> {
    /// An environment variable.
    pub(super) variable: &'a dyn Fn(&str) -> Option<String>,
    /// What the Python in PATH imports from.
    pub(super) python: &'a dyn Fn() -> Vec<PathBuf>,
}

/// Those of this process.
pub(super) const PROCESS: Surroundings<'static> = Surroundings {
    variable: &|name| std::env::var(name).ok().filter(|v| !v.is_empty()),
    python: &python_folders,
};

/// How NVRTC's file begins.
const NVRTC: &str = if cfg!(windows) { "nvrtc64_" } else { "libnvrtc.so" };

/// How the file of its built-ins begins.
const BUILTINS: &str = if cfg!(windows) { "nvrtc-builtins64_" } else { "libnvrtc-builtins.so" };

/// The names that a loader path may know NVRTC by, newest first.
#[cfg(unix)]
const NVRTC_NAMES: &[&str] = &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];
#[cfg(windows)]
const NVRTC_NAMES: &[&str] = &["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"];

/// A place where NVRTC may be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Place {
    /// This file.
    File(PathBuf),
    /// What the loader finds under this name.
    Named(&'static str),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::File(path) => path.display().fmt(f),
            Place::Named(name) => name.fmt(f),
        }
    }
}

/// Places to look in, in their order, and folders that held none.
#[derive(Default)]
pub(super) struct Search {
    pub(super) places: Vec<Place>,
    pub(super) empty: Vec<PathBuf>,
}

impl Search {
    /// Adds what NVRTC a folder holds.
    fn look(&mut self, folder: PathBuf) {
        let found = matching(&folder, NVRTC);
        if found.is_empty() {
            self.empty.push(folder);
        }
        self.places.extend(found.into_iter().map(Place::File));
    }

    /// Adds what Python packages have brought to a folder of packages.
    fn look_in_packages(&mut self, site: &Path) {
        let brought = site.join("nvidia");
        for package in ["cu13", "cuda_nvrtc"] {
            let folder = brought.join(package).join(if cfg!(windows) { "bin" } else { "lib" });
            if folder.is_dir() {
                self.look(folder);
            }
        }
        if !brought.is_dir() {
            self.empty.push(brought);
        }
    }
}

/// Where somebody said that NVRTC is. That is then the only place: a slip in it shall not go unseen.
pub(super) fn given(explicit: Option<&Path>, around: &Surroundings<'_>) -> Option<Search> {
    let path =
        explicit.map(Path::to_owned).or_else(|| (around.variable)("NORMKIT_NVRTC").map(PathBuf::from))?;
    let mut search = Search::default();
    if path.is_dir() {
        search.look(path);
    } else {
        search.places.push(Place::File(path));
    }
    Some(search)
}

/// Toolkits, the loader's path, and the Python environments that are active.
pub(super) fn usual(around: &Surroundings<'_>) -> Search {
    let mut search = Search::default();
    for root in ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(around.variable) {
        for part in if cfg!(windows) { &["bin"][..] } else { &["lib64", "lib"][..] } {
            search.look(Path::new(&root).join(part));
        }
    }
    search.places.extend(NVRTC_NAMES.iter().copied().map(Place::Named));
    for prefix in ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(around.variable) {
        site_packages(Path::new(&prefix)).iter().for_each(|site| search.look_in_packages(site));
    }
    search
}

/// The packages of the Python in PATH. Last, since it takes a process to ask.
pub(super) fn of_python(around: &Surroundings<'_>) -> Search {
    let mut search = Search::default();
    (around.python)().iter().for_each(|site| search.look_in_packages(site));
    search
}

/// The files of `folder` whose names begin so, the newest version first.
fn matching(folder: &Path, start: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(Vec<u32>, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let rest = name.strip_prefix(start)?;
            // Not the static libraries and stubs that lie beside them under longer names.
            (!rest.contains("static") && !rest.contains("alt")).then(|| (numbers(rest), entry.path()))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

/// The numbers in the rest of a file's name.
fn numbers(rest: &str) -> Vec<u32> {
    rest.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// The libraries of built-ins beside `nvrtc`, which it does not find itself where it was opened by its path.
pub(super) fn builtins(nvrtc: &Path) -> Vec<PathBuf> {
    nvrtc.parent().map(|folder| matching(folder, BUILTINS)).unwrap_or_default()
}

/// The folders of Python packages under a prefix.
fn site_packages(prefix: &Path) -> Vec<PathBuf> {
    if cfg!(windows) {
        return vec![prefix.join("Lib").join("site-packages")];
    }
    let libraries = std::fs::read_dir(prefix.join("lib")).into_iter().flatten().flatten();
    let pythons = libraries.filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"));
    let mut folders: Vec<PathBuf> = pythons.map(|entry| entry.path().join("site-packages")).collect();
    folders.sort();
    folders
}

/// What the Python in PATH imports from. It is asked, since a launcher script, a user's own packages and a
/// distribution's folders cannot be told from where the program lies.
fn python_folders() -> Vec<PathBuf> {
    let program = "import sys; print('\\n'.join(p for p in sys.path if p.endswith('-packages')))";
    for python in ["python3", "python"] {
        let mut command = Command::new(python);
        command.args(["-c", program]).stdin(Stdio::null()).stderr(Stdio::null());
        if let Ok(output) = command.output()
            && output.status.success()
        {
            return String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect();
        }
    }
    Vec::new()
}

/// An open library.
pub(super) struct Opened(Library);

impl Opened {
    /// The library in this file; `global` lets libraries that are opened later use its symbols.
    pub(super) fn file(path: &Path, global: bool) -> Result<Self, String> {
        open(path.as_os_str(), global).map(Opened).map_err(explain)
    }

    /// The library that the loader knows under this name.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        open(name.as_ref(), false).map(Opened).map_err(explain)
    }

    /// Whether it has this symbol.
    pub(super) fn has(&self, name: &str) -> bool {
        // SAFETY: the symbol is only looked up, never used as the type that stands here.
        unsafe { self.0.get::<*const ()>(name) }.is_ok()
    }

    /// The function of this name.
    ///
    /// # Safety
    /// `F` is a function pointer of the type that the library has under this name. It is valid while the
    /// library is open, so the library must be [kept](Opened::keep).
    pub(super) unsafe fn function<F: Copy>(&self, name: &str) -> Result<F, String> {
        // SAFETY: the caller says what type the function has.
        unsafe { self.0.get::<F>(name) }.map(|symbol| *symbol).map_err(explain)
    }

    /// Leaves it open for the rest of the process. Compiled kernels, and libraries with threads of their own, are not
    /// safe to close.
    pub(super) fn keep(self) {
        std::mem::forget(self.0);
    }
}

/// What the loader said, which names the file or the symbol; the error itself only says which call failed.
fn explain(error: libloading::Error) -> String {
    std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Opens a library, all of whose symbols are bound at once, so that what is missing is an error here and not a crash.
fn open(name: &std::ffi::OsStr, global: bool) -> Result<Library, libloading::Error> {
    #[cfg(unix)]
    {
        use libloading::os::unix;
        let flags = unix::RTLD_NOW | if global { unix::RTLD_GLOBAL } else { unix::RTLD_LOCAL };
        // SAFETY: opening runs a library's initializers. Those opened here are NVIDIA's own, which expect it, and what
        // this crate has compiled, which has none that could fail.
        unsafe { unix::Library::open(Some(name), flags) }.map(Library::from)
    }
    #[cfg(windows)]
    {
        // Windows shares what is loaded under its file name with whoever asks for it.
        let _ = global;
        // SAFETY: as above.
        unsafe { Library::new(name) }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::cache::Temporary;
    use super::*;

    /// A folder with empty files.
    fn with(root: &Path, files: &[&str]) {
        for file in files.iter().map(|file| root.join(file)) {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        }
    }

    fn files(places: &[Place], root: &Path) -> Vec<String> {
        let relative = |place: &Place| match place {
            Place::File(path) => path.strip_prefix(root).unwrap().display().to_string(),
            Place::Named(name) => (*name).to_owned(),
        };
        places.iter().map(relative).collect()
    }

    #[test]
    fn a_given_place_is_the_only_one() {
        let folder = Temporary::new().unwrap();
        let root = folder.path();
        with(
            root,
            &[
                "libnvrtc.so.12",
                "libnvrtc.so.13.0.48",
                "libnvrtc.so.9.2",
                "libnvrtc-builtins.so.13.0",
                "other",
            ],
        );
        let nothing = Surroundings { variable: &|_| None, python: &|| panic!("not needed") };
        assert!(given(None, &nothing).is_none());
        let search = given(Some(root), &nothing).unwrap();
        assert_eq!(files(&search.places, root), ["libnvrtc.so.13.0.48", "libnvrtc.so.12", "libnvrtc.so.9.2"]);
        assert!(search.empty.is_empty());
        let path = root.join("libnvrtc.so.12");
        assert_eq!(builtins(&path), [root.join("libnvrtc-builtins.so.13.0")]);
        let variable = |name: &str| (name == "NORMKIT_NVRTC").then(|| path.display().to_string());
        let around = Surroundings { variable: &variable, ..nothing };
        assert_eq!(files(&given(None, &around).unwrap().places, root), ["libnvrtc.so.12"]);
        // A file that is not there is an error when it is opened, a folder that holds none at once.
        let missing = given(Some(&root.join("missing")), &around).unwrap();
        assert_eq!(files(&missing.places, root), ["missing"]);
        std::fs::create_dir(root.join("empty")).unwrap();
        let nothing = given(Some(&root.join("empty")), &around).unwrap();
        assert!(nothing.places.is_empty() && nothing.empty == [root.join("empty")]);
    }

    #[test]
    fn toolkits_come_first_then_the_loader_then_python() {
        let folder = Temporary::new().unwrap();
        let root = folder.path();
        with(
            root,
            &[
                "toolkit/lib64/libnvrtc.so.12",
                "venv/lib/python3.11/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
                "user/site-packages/nvidia/cu13/lib/libnvrtc.so.13",
            ],
        );
        let variable = |name: &str| {
            let place = match name {
                "CUDA_HOME" => "toolkit",
                "CUDA_PATH" => "gone",
                "VIRTUAL_ENV" => "venv",
                _ => return None,
            };
            Some(root.join(place).display().to_string())
        };
        let around = Surroundings {
            variable: &variable,
            python: &|| ["none", "user/site-packages"].map(|site| root.join(site)).into(),
        };
        let search = usual(&around);
        let expected = [
            &["toolkit/lib64/libnvrtc.so.12"][..],
            NVRTC_NAMES,
            &["venv/lib/python3.11/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12"],
        ];
        assert_eq!(files(&search.places, root), expected.concat());
        assert_eq!(search.empty, ["toolkit/lib", "gone/lib64", "gone/lib"].map(|folder| root.join(folder)));
        let search = of_python(&around);
        assert_eq!(files(&search.places, root), ["user/site-packages/nvidia/cu13/lib/libnvrtc.so.13"]);
        assert_eq!(search.empty, [root.join("none/nvidia")]);
    }

    #[test]
    fn what_is_missing_is_an_error() {
        let name = "libnothing-of-this-name.so";
        assert!(Opened::named(name).map(|_| ()).unwrap_err().contains(name));
        let path = "/nothing/of/this/name.so";
        assert!(Opened::file(Path::new(path), true).map(|_| ()).unwrap_err().contains(path));
    }
}
