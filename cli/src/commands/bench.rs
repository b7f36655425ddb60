//! `normkit bench`

use super::progress;
use crate::arguments::BenchArguments;
use crate::device::Place;
use crate::failure::{Failure, Result};
use crate::plot::{Bar, bars};
use crate::report::{Report, table};
use crate::speed::{Direction, Speed, measure};
use crate::tasks::{Task, tasks};
use crate::workload::{AroundOperands, Operands, Workload};
use normkit::tensor::{DType, HostTensor};
use serde_json::{Value, json};

/// A method and dtype on a device, measured in both directions.
struct Measured {
    backend: &'static str,
    task: Task,
    dtype: DType,
    speeds: [Speed; 2],
}

pub(super) fn bench(arguments: &BenchArguments) -> Result<Report> {
    let (places, missing) = Place::find(arguments.backend, &arguments.overrides)?;
    let dtypes = arguments.dtype.map_or(vec![DType::F32, DType::BF16, DType::F16], |dtype| vec![dtype]);
    let mut plan = Vec::new();
    for place in &places {
        for &dtype in dtypes.iter().filter(|&&dtype| place.has(dtype)) {
            plan.extend(tasks(arguments, dtype)?.into_iter().map(|task| (place, dtype, task)));
        }
    }
    let bar = progress(plan.len());
    let mut results = Vec::new();
    for (place, dtype, task) in plan {
        bar.set_message(format!("{} {} {} {dtype}", place.backend(), task.method.name(), task.label()));
        results.push(measured(place, task, dtype, arguments.rounds)?);
        bar.inc(1);
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

fn measured(place: &Place, task: Task, dtype: DType, rounds: usize) -> Result<Measured> {
    let parameter_shape = task.method.parameter_shape(&task.shape, &task.settings);
    let parameter = |seed| parameter_shape.as_ref().map(|shape| noise(shape, dtype, seed)).transpose();
    let fusion = task.surroundings.fusion();
    let other = |name: Option<&str>, seed| name.map(|_| noise(&task.shape, dtype, seed)).transpose();
    let operands = Operands {
        input: noise(&task.shape, dtype, 1)?,
        grad_output: noise(&task.shape, dtype, 2)?,
        weight: parameter(3)?,
        bias: if task.method.has_bias() { parameter(4)? } else { None },
        alpha: (task.settings.alpha.or(task.method.first_alpha()))
            .map(|alpha| HostTensor::from_f64(&[alpha], &[1], dtype))
            .transpose()?,
        around: AroundOperands {
            fusion,
            before: other(fusion.prologue.operand(), 5)?,
            after: other(fusion.epilogue.operand(), 6)?,
            grad_hidden: other(fusion.prologue.operand().filter(|&name| name == "residual"), 7)?,
        },
    };
    let layout = task.layout()?;
    let mut workload = Workload::new(place, task.method, task.settings.clone(), layout, operands)?;
    let [forward, backward] = Direction::BOTH.map(|direction| {
        measure(place, &mut workload, direction, task.copy_shape(), task.surroundings, rounds)
    });
    Ok(Measured { backend: place.backend(), task, dtype, speeds: [forward?, backward?] })
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
            "method": measured.task.method.name(),
            "dtype": measured.dtype.name(),
            "direction": direction.name(),
            "shape": measured.task.shape,
            "channels_last": measured.task.channels_last,
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
                m.task.method.name().into(),
                m.dtype.to_string(),
                direction.name().into(),
                m.task.label(),
                format!("{:.2}", speed.milliseconds()),
                format!("{:.2}", speed.gigabytes_per_second()),
                format!("{:.0} %", 100.0 * speed.share()),
            ]
        })
    });
    let header = ["backend", "method", "dtype", "pass", "input", "ms", "GB/s", "of copy"];
    table(&header, &rows.collect::<Vec<_>>(), 4)
}

fn goal_table(results: &[Measured]) -> String {
    let mut text = String::from("Time as a multiple of the time of a copy that moves the same bytes.\n\n");
    text += "| backend | method | dtype | input | forward | goal | backward | goal |\n";
    text += "|---|---|---|---|--:|--:|--:|--:|\n";
    for m in results {
        text += &format!("| {} | {} | {} | {} ", m.backend, m.task.method.name(), m.dtype, m.task.label());
        for (direction, speed) in Direction::BOTH.iter().zip(&m.speeds) {
            let ratio = 1.0 / speed.share();
            text += &match m.task.goal(m.backend, m.dtype, *direction) {
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
            (0, true) => format!("{} {} {}, {}", m.backend, m.task.method.name(), m.dtype, m.task.label()),
            (0, false) => format!("{} {}, {}", m.task.method.name(), m.dtype, m.task.label()),
            _ => String::new(),
        },
        length: m.speeds[series].share(),
        note: format!("{:.1} GB/s", m.speeds[series].gigabytes_per_second()),
        series,
    };
    let all: Vec<Bar> = results.iter().flat_map(|m| [bar(m, 0), bar(m, 1)]).collect();
    let backends = if several { "all backends".into() } else { format!("{} backend", results[0].backend) };
    let title = format!("normkit: speed of normalization layers, {backends}");
    bars(&title, "percent of the bandwidth of a copy in the same run", ["forward", "backward"], &all)
}
