//! Why a command could not be carried out, in a line for people.

use std::path::Path;

/// A message that names what was wrong and, where that helps, what would be right.
#[derive(Debug, PartialEq)]
pub(crate) struct Failure(pub(crate) String);

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Failure(message.into())
    }

    /// What went wrong with a file.
    pub(crate) fn file(path: &Path, problem: impl std::fmt::Display) -> Self {
        Failure(format!("{}: {problem}", path.display()))
    }

    pub(crate) fn print(&self, json: bool) {
        if json {
            crate::report::print(&serde_json::json!({ "error": self.0 }).to_string());
        }
        eprintln!("normkit: {}", self.0);
    }
}

impl From<normkit::Error> for Failure {
    fn from(error: normkit::Error) -> Self {
        Failure(error.to_string())
    }
}
