//! Loops written out. An array stays in registers only if each of its indices is a constant, and drivers unroll small
//! loops only; so the renderer does it for the loops that say `// unrolled`.

/// `source` with every loop of the form `for (var i = 0u; i < BOUND; i++) { // unrolled` written out, `BOUND` being one
/// of `bounds`. The loop ends at the first line that closes at the loop's own indentation.
pub(super) fn unroll(source: &str, bounds: &[(&str, u32)]) -> String {
    let mut text = String::with_capacity(source.len());
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let Some((name, bound)) = header(line, bounds) else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        let indent = &line[..line.len() - line.trim_start().len()];
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != format!("{indent}}}")).collect();
        // Inner loops first, once for all copies.
        let body = unroll(&(body.join("\n") + "\n"), bounds);
        for i in 0..bound {
            text.push_str(&format!(
                "{indent}{{\n{}{indent}}}\n",
                replace_word(&body, name, &format!("{i}u"))
            ));
        }
    }
    text
}

/// The variable and the number of rounds of a loop that is to be written out.
fn header<'a>(line: &'a str, bounds: &[(&str, u32)]) -> Option<(&'a str, u32)> {
    let (head, _) = line.trim_start().strip_prefix("for (var ")?.split_once("++) { // unrolled")?;
    let (name, rest) = head.split_once(" = 0u; ")?;
    let (_, bound) = rest.split_once(" < ")?;
    let (bound, _) = bound.split_once(';')?;
    bounds.iter().find(|(name, _)| *name == bound).map(|&(_, n)| (name, n))
}

/// `text` with each whole word `from` replaced.
fn replace_word(text: &str, from: &str, to: &str) -> String {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        let before = rest[..at].chars().next_back().or(result.chars().next_back()).is_some_and(is_word);
        let after = rest[at + from.len()..].chars().next().is_some_and(is_word);
        result.push_str(&rest[..at]);
        result.push_str(if before || after { from } else { to });
        rest = &rest[at + from.len()..];
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_are_written_out_and_words_kept_whole() {
        let source = "a\nfor (var i = 0u; i < N; i++) { // unrolled\n    x[i] = index + i;\n}\nb\n";
        let wanted = "a\n{\n    x[0u] = index + 0u;\n}\n{\n    x[1u] = index + 1u;\n}\nb\n";
        assert_eq!(unroll(source, &[("N", 2)]), wanted);
        assert_eq!(unroll(source, &[("N", 0)]), "a\nb\n");
        let plain = "for (var i = 0u; i < n; i++) {\n    x[i] = 0;\n}\n";
        assert_eq!(unroll(plain, &[("n", 2)]), plain);
    }
}
