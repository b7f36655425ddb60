//! `-v`: what the library chose (instruction set, shader variant, geometry), on stderr.

use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

/// Prints the library's events from here on.
pub(crate) fn subscribe() {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).without_time().with_ansi(false);
    let ours = Targets::new().with_target("normkit", tracing::Level::TRACE);
    tracing_subscriber::registry().with(lines.with_filter(ours)).init();
}
