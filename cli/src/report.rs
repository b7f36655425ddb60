//! What a command has to say, for people and for programs.

use serde_json::Value;
use std::io::Write;

/// The result of a command.
pub(crate) struct Report {
    pub(crate) text: String,
    pub(crate) json: Value,
    /// Whether every promise that the command looked at was kept.
    pub(crate) kept: bool,
}

impl Report {
    pub(crate) fn new(text: String, json: Value) -> Self {
        Report { text, json, kept: true }
    }

    pub(crate) fn print(&self, json: bool) {
        match json {
            true => print(&format!("{:#}", self.json)),
            false => print(&self.text),
        }
    }
}

/// Writes a line to stdout. A reader that has gone away, as `head` does, is no error of ours.
pub(crate) fn print(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{}", text.trim_end());
}

/// A table whose first columns are names and whose others, from `numbers` on, are right-aligned.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>], numbers: usize) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column < numbers { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut text = line(header.to_vec());
    text += &format!("{}\n", widths.iter().map(|&w| "-".repeat(w)).collect::<Vec<_>>().join("  "));
    rows.iter().for_each(|row| text += &line(row.iter().map(String::as_str).collect()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_names_left_and_numbers_right() {
        let rows = [vec!["cpu".into(), "1.5".into()], vec!["wgpu".into(), "10.25".into()]];
        let expected = "on       ms\n----  -----\ncpu     1.5\nwgpu  10.25\n";
        assert_eq!(table(&["on", "ms"], &rows, 1), expected);
    }
}
