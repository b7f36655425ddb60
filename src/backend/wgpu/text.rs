//! Shaders' texts, and how some of them are multiplied.

use std::collections::HashSet;
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

/// What stands in these files for the norm of a residual's branch, besides what they declare themselves.
const NAMES_OF_INNER: [(&str, &str); 11] = [
    ("MOMENTS", "MOMENTS_OF_INNER"),
    ("PREFIX", "PREFIX_OF_INNER"),
    ("OUTSIDE", "OUTSIDE_OF_INNER"),
    ("OFFSET", "OFFSET_OF_INNER"),
    ("ROUND", "ROUND_OF_INNER"),
    ("HAS_WEIGHT", "HAS_WEIGHT_OF_INNER"),
    ("HAS_BIAS", "HAS_BIAS_OF_INNER"),
    // A sum is added to its result.
    ("HAS_EPILOGUE", "true"),
    ("weight_at", "inner_weight_at"),
    ("bias_at", "inner_bias_at"),
    ("x_at", "input_at"),
];

/// What a launch is told of either norm.
const OWN_NUMBERS: [&str; 5] = ["prefix", "eps", "eps_exponent", "eps_rstd", "weight_offset"];

/// `files` once more, for the norm of a residual's branch: what they declare, and what they know of a norm, is called otherwise. Their
/// structs are those that are there.
pub(super) fn of_inner(files: &[&str]) -> String {
    let lines = || files.iter().flat_map(|file| file.lines());
    let declared: HashSet<&str> = lines().filter_map(declared).collect();
    let mut text = String::new();
    let mut is_struct = false;
    for line in lines() {
        is_struct |= line.starts_with("struct ");
        if !is_struct && !line.trim_start().starts_with("//") {
            renamed(line, &mut text, |before, word| name_of_inner(before, word, &declared));
        }
        is_struct &= line != "}";
    }
    text
}

/// The function, variable or constant of a module that the line declares.
fn declared(line: &str) -> Option<&str> {
    let rest = ["fn ", "var<private> ", "const "].iter().find_map(|start| line.strip_prefix(start))?;
    rest.split(|c| !is_of_word(c)).next()
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Appends the line with what `name` says instead of each word, given all that stands before it.
fn renamed(line: &str, text: &mut String, name: impl Fn(&str, &str) -> String) {
    let mut rest = line;
    while let Some(start) = rest.find(is_of_word) {
        let (before, word) = rest.split_at(start);
        let (word, after) = word.split_at(word.find(|c| !is_of_word(c)).unwrap_or(word.len()));
        text.push_str(before);
        let name = name(text, word);
        text.push_str(&name);
        rest = after;
    }
    text.push_str(rest);
    text.push('\n');
}

/// The name of a word in the text for the branch's norm. What follows a point is a member.
fn name_of_inner(before: &str, word: &str, declared: &HashSet<&str>) -> String {
    let other = NAMES_OF_INNER.iter().find(|(name, _)| *name == word);
    if before.ends_with("params.") {
        return format!("{}{word}", if OWN_NUMBERS.contains(&word) { "inner_" } else { "" });
    }
    match other {
        _ if before.ends_with('.') => word.to_owned(),
        Some((_, other)) => (*other).to_owned(),
        None => format!("{word}{}", if declared.contains(word) { "_of_inner" } else { "" }),
    }
}

/// What stands for the norm of a residual in the text for that of its branch, where that does not say `inner`.
const NAMES_OF_MIX: [(&str, &str); 3] =
    [("input_at", "before_at"), ("held", "held_residual"), ("HAS_INNER_STATISTICS", "HAS_MIX_STATISTICS")];

/// The texts for the norm of a residual's branch once more, for the same norm of the residual. Neither has a bias.
pub(super) fn of_mix<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let mut text = String::new();
    let lines = texts.into_iter().flat_map(str::lines);
    for line in lines.filter(|line| !line.trim_start().starts_with("//")) {
        renamed(line, &mut text, |before, word| {
            let other = NAMES_OF_MIX.iter().find(|(name, _)| *name == word);
            match other {
                Some((_, other)) => (*other).to_owned(),
                None if before.ends_with('.') || word == "inner_bias_at" => word.to_owned(),
                None => word.replace("inner", "mix"),
            }
        });
    }
    text
}
