//! Texts of kernels. A build that was told a folder in `NORMKIT_SOURCES` reads them from there when it runs, so that mutation tests
//! break a kernel without building anew; every other build has them in it.

use std::path::Path;

/// What the file at `path`, which begins at the repository's root, says: `embedded`, or what it says now.
pub(crate) fn text(path: &str, embedded: &'static str) -> &'static str {
    let Some(folder) = option_env!("NORMKIT_SOURCES") else { return embedded };
    std::fs::read_to_string(Path::new(folder).join(path)).map_or(embedded, |text| text.leak())
}
