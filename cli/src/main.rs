//! The `normkit` command: what devices there are, whether the promises hold on them, and how fast they run; and the
//! methods applied to files.
//!
//! Exit codes: 0 if all is well, 1 if a promise is broken, 2 if the command could not be carried out.

mod arguments;
mod commands;
mod copy;
mod device;
mod errors;
#[cfg(feature = "wgpu")]
mod exported;
mod failure;
mod files;
mod listed;
mod method;
mod plot;
mod report;
mod speed;
mod surroundings;
mod tasks;
mod timing;
mod verbose;
mod workload;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    if arguments.verbose {
        verbose::subscribe();
    }
    match commands::execute(&arguments.command) {
        Ok(report) => {
            report.print(arguments.json);
            if report.kept { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(failure) => {
            failure.print(arguments.json);
            ExitCode::from(2)
        }
    }
}
