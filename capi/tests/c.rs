//! The library as C sees it: installed, found by pkg-config, linked to programs in C and C++ that are compiled without a warning
//! and run, once more under memcheck.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The compilers' strictest; a comment of the README says the same.
const WARNINGS: [&str; 5] = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-g"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where cargo has put the libraries: beside this test.
fn built() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// What a command prints; a failure of the test where it fails.
fn output(command: &mut Command) -> String {
    let result = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&result.stdout), String::from_utf8_lossy(&result.stderr));
    assert!(result.status.success(), "{command:?}: {}\n{out}{err}", result.status);
    out.into_owned()
}

fn make_install(prefix: &str, destdir: &str) {
    let make = ["install", &format!("BUILT={}", built().display())].map(str::to_owned);
    let places = [format!("PREFIX={prefix}"), format!("DESTDIR={destdir}")];
    let mut command = Command::new("make");
    // This `make` is nobody's part.
    command.env_remove("MAKEFLAGS").env_remove("MFLAGS").env_remove("MAKELEVEL");
    output(command.arg("-C").arg(root().join("..")).args(make).args(places));
}

/// Where the library is installed for these tests.
fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let folder = empty_folder("capi");
        make_install(folder.to_str().unwrap(), "");
        folder
    })
}

/// A folder in cargo's own for tests.
fn empty_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn pkg_config(arguments: &[&str]) -> Vec<String> {
    let path = prefix().join("lib/pkgconfig");
    let flags =
        output(Command::new("pkg-config").env("PKG_CONFIG_PATH", path).args(arguments).arg("normkit"));
    flags.split_whitespace().map(str::to_owned).collect()
}

/// How a program finds the library.
#[derive(Clone, Copy)]
enum Link {
    Shared,
    Static,
}

/// Compiles a program in C or C++, as its users would.
fn compile(source: &Path, link: Link) -> PathBuf {
    let is_cpp = source.extension().is_some_and(|extension| extension == "cpp");
    let (variable, default, standard) =
        if is_cpp { ("CXX", "c++", "-std=c++17") } else { ("CC", "cc", "-std=c11") };
    let compiler = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    let name = source.file_stem().unwrap().to_str().unwrap();
    let folder = prefix().join("programs");
    std::fs::create_dir_all(&folder).unwrap();
    let program =
        folder.join(format!("{name}-{}", if matches!(link, Link::Static) { "static" } else { "shared" }));
    let mut command = Command::new(compiler);
    command.arg(standard).args(WARNINGS).args(pkg_config(&["--cflags"])).arg(source).arg("-o").arg(&program);
    match link {
        Link::Shared => {
            command.args(pkg_config(&["--libs"]));
        }
        Link::Static => {
            let private =
                pkg_config(&["--static", "--libs-only-l"]).into_iter().filter(|flag| flag != "-lnormkit");
            command.arg(prefix().join("lib/libnormkit.a")).args(private);
        }
    }
    output(command.args(["-lm", "-lpthread"]));
    program
}

/// A command that finds the shared library.
fn with_library(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", prefix().join("lib")).env("RUST_BACKTRACE", "0");
    command
}

/// Compiles a program, runs it, and runs it under memcheck, which emulates a CPU with AVX2.
fn check(source: &str) -> String {
    let program = compile(&root().join(source), Link::Shared);
    let mut memcheck = with_library("valgrind");
    memcheck.args(["-q", "--error-exitcode=1", "--leak-check=full", "--show-leak-kinds=definite"]);
    memcheck.arg("--errors-for-leak-kinds=definite");
    memcheck.arg(format!("--suppressions={}", root().join("tests/memcheck.supp").display()));
    let printed = output(&mut with_library(&program));
    output(memcheck.arg(&program));
    printed
}

#[test]
fn values_are_those_of_plain_computations() {
    assert!(check("tests/values.c").contains("weight_norm of the whole"));
}

#[test]
fn calls_do_what_the_header_says() {
    check("tests/calls.c");
}

#[test]
fn threads_share_norms_and_contexts() {
    check("tests/threads.c");
}

/// Needs the function that panics.
#[cfg(feature = "provoke")]
#[test]
fn bad_input_is_refused_by_name() {
    check("tests/errors.c");
}

/// Not under memcheck: the host driver's threads are fibers, whose stacks it does not know.
#[cfg(feature = "cuda")]
#[test]
fn the_host_driver_has_the_bits_of_the_cpu() {
    output(&mut with_library(compile(&root().join("tests/cuda_host.c"), Link::Shared)));
}

#[test]
fn the_example_in_cpp_learns() {
    let printed = check("examples/descent.cpp");
    assert!(printed.starts_with("step  0: loss 22.41"), "{printed}");
    assert!(
        printed.ends_with("statistics: expected those that the forward pass saved, found none\n"),
        "{printed}"
    );
}

#[test]
fn the_static_library_works() {
    output(&mut Command::new(compile(&root().join("tests/calls.c"), Link::Static)));
}

#[test]
fn the_header_is_cpp_too() {
    let source = prefix().join("header.cpp");
    std::fs::write(
        &source,
        "#include <normkit.h>\nint main() { return normkit_abi_version() != NORMKIT_ABI_VERSION; }\n",
    )
    .unwrap();
    output(&mut with_library(compile(&source, Link::Shared)));
}

/// The README's program is its first block of C, what it prints the block after it.
#[test]
fn the_readme_prints_what_it_says() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let block = |language: &str| {
        let start = readme.find(&format!("```{language}\n")).unwrap() + language.len() + 4;
        &readme[start..start + readme[start..].find("```").unwrap()]
    };
    let source = prefix().join("readme.c");
    std::fs::write(&source, block("c")).unwrap();
    assert_eq!(output(&mut with_library(compile(&source, Link::Shared))), block("text"));
}

/// What `DESTDIR` stages is what `PREFIX` will have.
#[test]
fn installing_stages() {
    let stage = empty_folder("capi-stage");
    make_install("/opt/norms", stage.to_str().unwrap());
    let installed = stage.join("opt/norms");
    for file in ["include/normkit.h", "lib/libnormkit.a", "lib/libnormkit.so", "lib/pkgconfig/normkit.pc"] {
        assert!(installed.join(file).is_file(), "{file}");
    }
    let version = env!("CARGO_PKG_VERSION");
    assert!(installed.join(format!("lib/libnormkit.so.{version}")).is_file());
    let pc = std::fs::read_to_string(installed.join("lib/pkgconfig/normkit.pc")).unwrap();
    assert!(pc.starts_with("prefix=/opt/norms\n") && pc.contains(&format!("Version: {version}\n")), "{pc}");
    assert!(!pc.contains('@'), "{pc}");
    assert_eq!(pkg_config(&["--modversion"]), [version]);
}

/// Nothing but this interface is exported.
#[test]
fn no_other_symbol_comes_out() {
    let library = prefix().join("lib/libnormkit.so");
    let symbols =
        output(Command::new("nm").args(["-D", "--defined-only", "--format=just-symbols"]).arg(library));
    let names: Vec<_> = symbols.lines().filter(|name| !name.is_empty()).collect();
    assert!(names.contains(&"normkit_forward"));
    let header = std::fs::read_to_string(root().join("include/normkit.h")).unwrap();
    for name in names.iter().filter(|name| **name != "normkit_provoke_panic") {
        assert!(header.contains(&format!("{name}(")), "{name} is not in the header");
    }
}
