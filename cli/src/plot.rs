//! A bar chart as SVG.

/// A bar: what it is, its length (1 reaches the reference line), what to print beside it, and which colour it has.
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) length: f64,
    pub(crate) note: String,
    pub(crate) series: usize,
}

const COLOURS: [&str; 2] = ["#3b6ea8", "#d08a3c"];
const WIDTH: f64 = 1040.0;
const LEFT: f64 = 370.0;
const RIGHT: f64 = 120.0;
const TOP: f64 = 84.0;
const BAR: f64 = 18.0;
const STEP: f64 = 20.0;
/// Space before a bar that begins a group; a bar without a label belongs to the one above it.
const GAP: f64 = 9.0;

/// The chart. `series` names the colours, `unit` the axis, whose grid is in percent of the reference.
pub(crate) fn bars(title: &str, unit: &str, series: [&str; 2], bars: &[Bar]) -> String {
    let longest = bars.iter().map(|bar| bar.length).fold(1.0, f64::max);
    // Grid lines at each fifth, up to the first beyond the longest bar.
    let lines = (longest * 5.0).ceil() as usize;
    let x = |length: f64| LEFT + length * 5.0 / lines as f64 * (WIDTH - LEFT - RIGHT);
    let tops: Vec<f64> = bars
        .iter()
        .scan(TOP - STEP, |top, bar| {
            *top += if bar.label.is_empty() { STEP } else { STEP + GAP };
            Some(*top)
        })
        .collect();
    let bottom = tops.last().map_or(TOP, |top| top + STEP + GAP);
    let height = bottom + 52.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"16\" y=\"28\" font-size=\"17\" font-weight=\"600\">{}</text>\n",
        escape(title)
    );
    for (index, name) in series.iter().enumerate() {
        let at = 16.0 + 110.0 * index as f64;
        svg += &format!(
            "<rect x=\"{at}\" y=\"44\" width=\"13\" height=\"13\" rx=\"2\" fill=\"{}\"/>\
             <text x=\"{}\" y=\"55\">{}</text>\n",
            COLOURS[index],
            at + 19.0,
            escape(name)
        );
    }
    for line in 0..=lines {
        let (at, reference) = (x(line as f64 / 5.0), line == 5);
        let (colour, width) = if reference { ("#222", 1.5) } else { ("#ddd", 1.0) };
        svg += &format!(
            "<line x1=\"{at:.1}\" y1=\"{}\" x2=\"{at:.1}\" y2=\"{bottom}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{} %</text>\n",
            TOP - 6.0,
            bottom + 18.0,
            line * 20
        );
    }
    for (bar, top) in bars.iter().zip(&tops) {
        let (end, base) = (x(bar.length), top + BAR - 4.5);
        svg += &format!(
            "<text x=\"{}\" y=\"{base}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{top}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{base}\" stroke=\"#fff\" stroke-width=\"4\" paint-order=\"stroke\">{}</text>\n",
            LEFT - 10.0,
            escape(&bar.label),
            end - LEFT,
            COLOURS[bar.series % COLOURS.len()],
            end + 7.0,
            escape(&bar.note)
        );
    }
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    svg += &format!(
        "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n</svg>\n",
        bottom + 40.0,
        escape(unit)
    );
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_to_scale_and_text_is_escaped() {
        let bar = |length| Bar { label: "a<b".into(), length, note: "1 GB/s".into(), series: 1 };
        let svg = bars("t", "u", ["f", "b"], &[bar(0.5), bar(1.0)]);
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
        let full = WIDTH - LEFT - RIGHT;
        assert!(svg.contains(&format!("width=\"{:.1}\"", full / 2.0)));
        assert!(svg.contains(&format!("width=\"{full:.1}\"")));
    }
}
