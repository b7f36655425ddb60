//! Shaders' texts, and how some of them are multiplied.

macro_rules! shader {
    ($name:literal) => {
        include_str!(concat!("../../../shaders/", $name, ".wgsl"))
    };
}

/// The text for rows that threads share, or for those that a thread has to itself.
macro_rules! styled {
    ($style:expr, $name:literal) => {
        match $style {
            Style::Row => include_str!(concat!("../../../shaders/", $name, "_row.wgsl")),
            Style::Column => include_str!(concat!("../../../shaders/", $name, "_column.wgsl")),
        }
    };
}

/// What the parts of an axis are called.
pub(super) const PARTS: [&str; 4] = ["a", "b", "c", "d"];

/// `source` with every line that says `// each part` repeated for each of so many parts.
pub(super) fn each_part(source: &str, parts: usize) -> String {
    let mut text = String::with_capacity(source.len());
    for line in source.lines() {
        match line.strip_suffix(" // each part") {
            Some(line) => PARTS[..parts].iter().for_each(|part| text += &(line.replace("PART", part) + "\n")),
            None => text += &format!("{line}\n"),
        }
    }
    text
}
