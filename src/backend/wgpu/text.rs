//! Shaders' texts, and how some of them are multiplied.

use std::fmt::Write;

macro_rules! shader {
    ($name:expr) => {
        crate::backend::sources::text(
            concat!("shaders/", $name, ".wgsl"),
            include_str!(concat!("../../../shaders/", $name, ".wgsl")),
        )
    };
}

/// The text for rows that threads share, or for those that a thread has to itself.
macro_rules! styled {
    ($style:expr, $name:literal) => {
        match $style {
            Style::Row => shader!(concat!($name, "_row")),
            Style::Column => shader!(concat!($name, "_column")),
        }
    };
}

/// What the parts of an axis are called.
pub(super) const PARTS: [&str; 5] = ["a", "b", "c", "d", "e"];

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

/// Statements that halve the sums `a` and `b` of a thread's quads.
pub(super) fn halvings(quads: u32) -> String {
    let mut text = String::new();
    let mut half = quads / 2;
    while half > 0 {
        for (name, quad) in ["a", "b"].iter().flat_map(|name| (0..half).map(move |quad| (name, quad))) {
            let other = quad + half;
            writeln!(text, "    {name}[{quad}u] += {name}[{other}u];").expect("a String takes any text");
        }
        half /= 2;
    }
    text
}
