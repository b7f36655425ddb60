//! What the training examples share: the images, in an order of their own, and the picture of the losses.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

/// Pixels of an image.
pub(crate) const PIXELS: usize = 64;
/// What an image may be of.
pub(crate) const CLASSES: usize = 10;

/// Images, with pixels from 0 to 1, and what they are of.
#[derive(Clone, Default)]
pub(crate) struct Digits {
    pub(crate) images: Vec<f32>,
    pub(crate) labels: Vec<u32>,
}

/// Those to learn from, and those to be tested on, every sixth.
pub(crate) fn load() -> Result<[Digits; 2], Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/digits.bin");
    let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if bytes.is_empty() || bytes.len() % (PIXELS + 1) != 0 {
        return Err(format!("{}: not whole records of {} bytes", path.display(), PIXELS + 1).into());
    }
    let mut parts = [Digits::default(), Digits::default()];
    for (index, record) in bytes.chunks_exact(PIXELS + 1).enumerate() {
        let part = &mut parts[usize::from(index % 6 == 5)];
        part.images.extend(record[..PIXELS].iter().map(|&pixel| f32::from(pixel) / 16.0));
        part.labels.push(record[PIXELS].into());
    }
    Ok(parts)
}

impl Digits {
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// The batches of an epoch, in an order that only the epoch's number decides.
    pub(crate) fn batches(&self, epoch: u64, size: usize) -> Vec<Digits> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        let mut state = (epoch + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for last in (1..order.len()).rev() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            order.swap(last, (state % (last as u64 + 1)) as usize);
        }
        let batch = |chosen: &[usize]| Digits {
            images: chosen.iter().flat_map(|&at| &self.images[at * PIXELS..][..PIXELS]).copied().collect(),
            labels: chosen.iter().map(|&at| self.labels[at]).collect(),
        };
        order.chunks_exact(size).map(batch).collect()
    }
}

/// A training's losses, one for each batch.
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) losses: Vec<f64>,
}

/// Draws the losses, each the mean of some neighbours, on a logarithmic axis.
pub(crate) fn plot(path: &Path, title: &str, curves: &[Curve]) -> Result<(), Box<dyn Error>> {
    const SIZE: [f64; 2] = [760.0, 420.0];
    const LEFT: f64 = 64.0;
    const TOP: f64 = 44.0;
    const RIGHT: f64 = 16.0;
    const BOTTOM: f64 = 48.0;
    const COLORS: [&str; 4] = ["#1b6ca8", "#d1495b", "#2e8b57", "#8a5a9e"];
    let smooth = |losses: &[f64]| -> Vec<f64> {
        (0..losses.len())
            .map(|at| {
                let near = &losses[at.saturating_sub(5)..losses.len().min(at + 6)];
                near.iter().sum::<f64>() / near.len() as f64
            })
            .collect()
    };
    let lines: Vec<Vec<f64>> = curves.iter().map(|curve| smooth(&curve.losses)).collect();
    let all = || lines.iter().flatten().filter(|loss| loss.is_finite() && **loss > 0.0);
    let decade = |loss: f64| loss.log10();
    let low = all().copied().map(decade).fold(f64::INFINITY, f64::min).floor();
    let high = all().copied().map(decade).fold(f64::NEG_INFINITY, f64::max).ceil().max(low + 1.0);
    let steps = lines.iter().map(Vec::len).max().unwrap_or(0).max(2);
    let x = |step: f64| LEFT + step / (steps - 1) as f64 * (SIZE[0] - LEFT - RIGHT);
    let y = |decade: f64| TOP + (high - decade) / (high - low) * (SIZE[1] - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"16\">{title}</text>\n",
        SIZE[0], SIZE[1]
    );
    for power in low as i32..=high as i32 {
        let at = y(power.into());
        writeln!(svg, "<path d=\"M{LEFT} {at:.1}H{}\" stroke=\"#ddd\"/>", SIZE[0] - RIGHT)?;
        let label = 10f64.powi(power);
        writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 8.0, at + 4.0)?;
    }
    for step in (0..steps).step_by((steps / 4).next_multiple_of(50)) {
        let (at, bottom) = (x(step as f64), SIZE[1] - BOTTOM + 18.0);
        writeln!(svg, "<text x=\"{at:.1}\" y=\"{bottom}\" text-anchor=\"middle\">{step}</text>")?;
    }
    let middle = (LEFT + SIZE[0] - RIGHT) / 2.0;
    writeln!(svg, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">batch</text>", SIZE[1] - 10.0)?;
    let center = (TOP + SIZE[1] - BOTTOM) / 2.0;
    writeln!(
        svg,
        "<text transform=\"translate(16 {center}) rotate(-90)\" text-anchor=\"middle\">cross-entropy</text>"
    )?;
    for (index, (curve, line)) in curves.iter().zip(&lines).enumerate() {
        let color = COLORS[index % COLORS.len()];
        let points = line.iter().enumerate().filter(|(_, loss)| loss.is_finite() && **loss > 0.0);
        let points: Vec<String> =
            points.map(|(step, loss)| format!("{:.1},{:.1}", x(step as f64), y(decade(*loss)))).collect();
        // The first is drawn wide, so that one that is the same is seen upon it.
        let width = if index == 0 { 5.0 } else { 1.8 };
        let opacity = if index == 0 { 0.45 } else { 1.0 };
        writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\" stroke-opacity=\"{opacity}\" \
             points=\"{}\"/>",
            points.join(" ")
        )?;
        let at = TOP + 16.0 + 20.0 * index as f64;
        let start = SIZE[0] - RIGHT - 230.0;
        writeln!(
            svg,
            "<path d=\"M{start} {at}h28\" stroke=\"{color}\" stroke-width=\"{width}\" stroke-opacity=\"{opacity}\"/>\
             <text x=\"{}\" y=\"{}\">{}</text>",
            start + 36.0,
            at + 4.0,
            curve.name
        )?;
    }
    svg.push_str("</svg>\n");
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, svg)?;
    Ok(())
}

/// The largest difference between two curves, as a share of the loss.
pub(crate) fn difference(one: &Curve, other: &Curve) -> f64 {
    let pairs = one.losses.iter().zip(&other.losses);
    pairs.map(|(a, b)| (a - b).abs() / a.abs()).fold(0.0, f64::max)
}
