//! The commands, one file each. A command returns what it has to say; it prints nothing itself but progress.

mod bench;
mod check;
mod demo;
mod devices;
#[cfg(feature = "wgpu")]
mod export;
#[cfg(feature = "wgpu")]
mod judge;
mod run;

use crate::arguments::Command;
use crate::failure::Result;
use crate::report::Report;
use indicatif::{ProgressBar, ProgressStyle};

pub(crate) fn execute(command: &Command) -> Result<Report> {
    match command {
        Command::Devices => devices::devices(),
        Command::Check(arguments) => check::check(arguments),
        #[cfg(feature = "wgpu")]
        Command::Export(arguments) => export::export(arguments),
        #[cfg(feature = "wgpu")]
        Command::Judge(arguments) => judge::judge(arguments),
        Command::Run(arguments) => run::run(arguments),
        Command::Bench(arguments) => bench::bench(arguments),
        Command::Demo(arguments) => demo::demo(arguments),
    }
}

/// A progress bar on stderr; invisible where that is no terminal.
fn progress(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}");
    let bar = ProgressBar::new(steps as u64);
    style.map(|style| bar.clone().with_style(style)).unwrap_or(bar)
}
