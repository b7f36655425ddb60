//! The shared library's name for the loader.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Changes when a program that was linked before would not work any more: with the first number of the version, until
    // that is 1 with the second.
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{}", soname());
    }
}

fn soname() -> String {
    let part = |name| std::env::var(name).unwrap_or_default();
    match (part("CARGO_PKG_VERSION_MAJOR"), part("CARGO_PKG_VERSION_MINOR")) {
        (major, minor) if major == "0" => format!("libnormkit.so.0.{minor}"),
        (major, _) => format!("libnormkit.so.{major}"),
    }
}
