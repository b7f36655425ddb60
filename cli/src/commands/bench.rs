//! `normkit bench`

use super::progress;
use crate::arguments::BenchArguments;
use crate::device::Place;
use crate::failure::{Failure, Result};
use crate::method::{MethodName, Settings};
use crate::plot::{Bar, bars};
use crate::report::{Report, table};
use crate::speed::{Direction, Speed, measure};
use crate::workload::{Operands, Workload};
use normkit::tensor::{DType, HostTensor};
use serde_json::{Value, json};

/// Bytes of the input where `--rows` does not say otherwise: more than the caches hold.
const INPUT_BYTES: usize = 64 << 20;

/// A method and dtype on a device, measured in both directions.
struct Measured {
    backend: &'static str,
    method: MethodName,
    dtype: DType,
    shape: [usize; 2],
    speeds: [Speed; 2],
}

pub(super) fn bench(arguments: &BenchArguments) -> Result<Report> {
    if arguments.cols == 0 || arguments.rows == Some(0) {
        return Err(Failure::new("--rows and --cols: expected at least 1, found 0"));
    }
    let (places, missing) = Place::find(arguments.backend, &arguments.overrides)?;
    let methods = arguments.method.map_or(MethodName::ALL.to_vec(), |method| vec![method]);
    let dtypes = arguments.dtype.map_or(vec![DType::F32, DType::BF16, DType::F16], |dtype| vec![dtype]);
    let bar = progress(places.len() * methods.len() * dtypes.len());
    let mut results = Vec::new();
    for place in &places {
        for &dtype in dtypes.iter().filter(|&&dtype| place.has(dtype)) {
            for &method in &methods {
                bar.set_message(format!("{} {} {dtype}", place.backend(), method.name()));
                results.push(measured(place, method, dtype, arguments)?);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    if results.is_empty() {
        return Err(Failure::new("nothing to measure: no chosen backend has arithmetic for this dtype"));
    }
    if let Some(path) = &arguments.plot {
        std::fs::write(path, plot(&results)).map_err(|e| Failure::file(path, e))?;
    }
    let mut text = if arguments.table { goal_table(&results) } else { speed_table(&results) };
    missing.iter().for_each(|reason| text += &format!("\nNot measured: {reason}\n"));
    if let Some(path) = &arguments.plot {
        text += &format!("\nDrawn in {}\n", path.display());
    }
    let rows: Vec<Value> = results.iter().flat_map(to_json).collect();
    Ok(Report::new(text, json!({ "results": rows, "not_measured": missing })))
}

fn measured(place: &Place, method: MethodName, dtype: DType, arguments: &BenchArguments) -> Result<Measured> {
    let cols = arguments.cols;
    let rows = arguments.rows.unwrap_or((INPUT_BYTES / dtype.size() / cols).max(1));
    let shape = [rows, cols];
    let parameter = |seed| noise(&[cols], dtype, seed);
    let operands = Operands {
        input: noise(&shape, dtype, 1)?,
        grad_output: noise(&shape, dtype, 2)?,
        weight: parameter(3)?,
        bias: if method == MethodName::RmsNorm { None } else { Some(parameter(4)?) },
        alpha: match method {
            MethodName::Dyt => Some(HostTensor::from_f64(&[0.5], &[1], dtype)?),
            _ => None,
        },
    };
    let mut workload = Workload::new(place, method, Settings::default(), operands)?;
    let [forward, backward] = Direction::BOTH
        .map(|direction| measure(place, &mut workload, direction, shape, dtype, arguments.rounds));
    Ok(Measured { backend: place.backend(), method, dtype, shape, speeds: [forward?, backward?] })
}

/// Numbers between -2 and 2 that repeat after 64 Ki elements.
fn noise(shape: &[usize], dtype: DType, seed: u64) -> Result<HostTensor> {
    let mut state = seed;
    let mut next = || {
        // Knuth's linear congruential generator; its high bits are random enough for a workload.
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as f64 / (1u64 << 29) as f64 - 2.0
    };
    let mut tensor = HostTensor::zeros(shape, dtype)?;
    let block = tensor.bytes().len().div_ceil(dtype.size()).min(64 << 10);
    let values: Vec<f64> = (0..block).map(|_| next()).collect();
    let block = HostTensor::from_f64(&values, &[block], dtype)?;
    for part in tensor.bytes_mut().chunks_mut(block.bytes().len().max(1)) {
        part.copy_from_slice(&block.bytes()[..part.len()]);
    }
    Ok(tensor)
}

fn to_json(measured: &Measured) -> Vec<Value> {
    let rows = Direction::BOTH.iter().zip(&measured.speeds).map(|(direction, speed)| {
        let mut row = json!({
            "backend": measured.backend,
            "method": measured.method.name(),
            "dtype": measured.dtype.name(),
            "direction": direction.name(),
            "rows": measured.shape[0],
            "cols": measured.shape[1],
        });
        if let (Value::Object(row), Value::Object(speed)) = (&mut row, speed.to_json()) {
            row.extend(speed);
        }
        row
    });
    rows.collect()
}

fn speed_table(results: &[Measured]) -> String {
    let rows = results.iter().flat_map(|m| {
        Direction::BOTH.iter().zip(&m.speeds).map(|(direction, speed)| {
            vec![
                m.backend.into(),
                m.method.name().into(),
                m.dtype.to_string(),
                direction.name().into(),
                format!("{} x {}", m.shape[0], m.shape[1]),
                format!("{:.2}", speed.milliseconds()),
                format!("{:.2}", speed.gigabytes_per_second()),
                format!("{:.0} %", 100.0 * speed.share()),
            ]
        })
    });
    let header = ["backend", "method", "dtype", "pass", "rows x cols", "ms", "GB/s", "of copy"];
    table(&header, &rows.collect::<Vec<_>>(), 4)
}

/// The most that a pass may take, in units of the copy's time.
fn goal(backend: &str, dtype: DType, direction: Direction) -> Option<f64> {
    match (backend, dtype, direction) {
        ("cpu", DType::F32, Direction::Forward) => Some(1.25),
        ("cpu", DType::F16 | DType::BF16, Direction::Forward) => Some(1.6),
        ("cpu", DType::F32 | DType::F16 | DType::BF16, Direction::Backward) => Some(1.7),
        ("wgpu", _, Direction::Forward) => Some(1.3),
        ("wgpu", _, Direction::Backward) => Some(2.0),
        _ => None,
    }
}

fn goal_table(results: &[Measured]) -> String {
    let mut text = String::from("Time as a multiple of the time of a copy that moves the same bytes.\n\n");
    text += "| backend | method | dtype | rows x cols | forward | goal | backward | goal |\n";
    text += "|---|---|---|---|--:|--:|--:|--:|\n";
    for m in results {
        text += &format!(
            "| {} | {} | {} | {} x {} ",
            m.backend,
            m.method.name(),
            m.dtype,
            m.shape[0],
            m.shape[1]
        );
        for (direction, speed) in Direction::BOTH.iter().zip(&m.speeds) {
            let ratio = 1.0 / speed.share();
            text += &match goal(m.backend, m.dtype, *direction) {
                Some(goal) if ratio > goal => format!("| {ratio:.2} (missed) | {goal} "),
                Some(goal) => format!("| {ratio:.2} | {goal} "),
                None => format!("| {ratio:.2} | - "),
            };
        }
        text += "|\n";
    }
    text
}

fn plot(results: &[Measured]) -> String {
    let several = results.iter().any(|m| m.backend != results[0].backend);
    let bar = |m: &Measured, series: usize| Bar {
        label: match (series, several) {
            (0, true) => format!("{} {} {}", m.backend, m.method.name(), m.dtype),
            (0, false) => format!("{} {}", m.method.name(), m.dtype),
            _ => String::new(),
        },
        length: m.speeds[series].share(),
        note: format!("{:.1} GB/s", m.speeds[series].gigabytes_per_second()),
        series,
    };
    let all: Vec<Bar> = results.iter().flat_map(|m| [bar(m, 0), bar(m, 1)]).collect();
    let backends = if several { "all backends".into() } else { format!("{} backend", results[0].backend) };
    let cols = results[0].shape[1];
    let title = format!("normkit: speed of normalization layers, {backends}, {cols} columns");
    bars(&title, "percent of the bandwidth of a copy in the same run", ["forward", "backward"], &all)
}
