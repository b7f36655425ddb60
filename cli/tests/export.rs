//! `normkit export` and `normkit judge`: the form of the folder between them, and that a missing or a wrong result is
//! noticed.
#![cfg(feature = "wgpu")]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn normkit(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_normkit")).args(arguments).output().unwrap()
}

/// A small export, its folder and its manifest.
fn exported(options: &[&str]) -> (tempfile::TempDir, Value) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let output =
        normkit(&[&["export", path, "--quick", "--method", "dyt", "--dtype", "bf16"], options].concat());
    assert!(output.status.success(), "{output:?}");
    let manifest = std::fs::read_to_string(folder.path().join("manifest.json")).unwrap();
    (folder, serde_json::from_str(&manifest).unwrap())
}

fn judge(folder: &Path) -> (Option<i32>, Value) {
    let output = normkit(&["judge", folder.to_str().unwrap(), "--json"]);
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

/// The cases that can be run, and where they are listed.
fn runnable(manifest: &Value) -> Vec<(usize, &Value)> {
    let cases = manifest["cases"].as_array().unwrap().iter().enumerate();
    cases.filter(|(_, case)| case["refused"].is_null()).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_manifest_has_all_that_a_case_needs() {
    let (folder, manifest) = exported(&["--subgroup-size", "8"]);
    assert_eq!(manifest["format"], 1);
    let cases = runnable(&manifest);
    for way in ["subgroups of 8", "without subgroups"] {
        assert!(cases.iter().any(|(_, case)| case["way"] == way), "{way}");
    }
    let (mut with, mut dispatches) = (0, 0);
    for (_, case) in cases {
        let memory = std::fs::read(folder.path().join(case["memory"].as_str().unwrap())).unwrap();
        let buffers = case["buffers"].as_array().unwrap();
        for buffer in buffers {
            assert_eq!(number(&buffer["size"]) % 4, 0);
            if let [start, end] = buffer["memory"].as_array().map(Vec::as_slice).unwrap_or_default() {
                assert!(number(end) <= memory.len() as u64);
                assert!(number(end) - number(start) <= number(&buffer["size"]));
            }
        }
        for dispatch in case["dispatches"].as_array().unwrap() {
            let shader = folder.path().join(dispatch["shader"].as_str().unwrap());
            let text = std::fs::read_to_string(shader).unwrap();
            assert!(text.contains(&format!("fn {}(", dispatch["entry"].as_str().unwrap())));
            let enabled = text.contains("enable subgroups;");
            assert!(!enabled || case["way"] == "subgroups of 8", "{case}");
            with += usize::from(enabled);
            dispatches += 1;
            assert!(!dispatch["params"].as_array().unwrap().is_empty());
            assert!(dispatch["groups"].as_array().unwrap().iter().all(|n| number(n) <= 65_535));
            for binding in dispatch["storage"].as_array().unwrap() {
                let buffer = &buffers[number(&binding["buffer"]) as usize];
                assert_eq!(number(&binding["offset"]) % 256, 0);
                assert!(number(&binding["offset"]) + number(&binding["size"]) <= number(&buffer["size"]));
            }
        }
    }
    assert!(0 < with && with < dispatches, "{with} of {dispatches} dispatches use subgroups");
}

#[test]
fn a_sample_has_fewer_cases() {
    let count = |options: &[&str]| exported(options).1["cases"].as_array().unwrap().len();
    let (all, sample) = (count(&[]), count(&["--shaders", "1"]));
    assert!(0 < sample && sample < all, "{sample} of {all}");
}

#[test]
fn results_that_are_missing_or_wrong_break_the_promise() {
    let (folder, manifest) = exported(&["--shaders", "1"]);
    let results = folder.path().join("results");
    // What was there before is no result.
    for (n, (index, case)) in runnable(&manifest).into_iter().enumerate() {
        let memory = folder.path().join(case["memory"].as_str().unwrap());
        match n {
            0 => {}
            1 => std::fs::write(results.join(format!("{index}.error")), "the shader was refused").unwrap(),
            _ => drop(std::fs::copy(memory, results.join(format!("{index}.bin"))).unwrap()),
        }
    }
    let (code, report) = judge(folder.path());
    assert_eq!((code, &report["kept"]), (Some(1), &Value::Bool(false)));
    let broken = report["results"][0]["broken"].to_string();
    for reason in ["no result", "the shader was refused", "error inf"] {
        assert!(broken.contains(reason), "{reason}: {broken}");
    }
}

#[test]
fn folders_that_cannot_be_are_refused_in_words() {
    let (folder, _) = exported(&["--shaders", "1"]);
    let path = folder.path().to_str().unwrap();
    for (arguments, expected) in [
        (&["export", path, "--quick"][..], "new or empty"),
        (&["export", path, "--dtype", "f64"], "f64"),
        (&["export", path, "--subgroup-size", "3"], "power of two"),
        (&["judge", "no such folder"], "no such folder"),
    ] {
        let output = normkit(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains(expected) && !message.contains("panicked"), "{arguments:?}: {message}");
    }
    std::fs::write(folder.path().join("manifest.json"), "{\"format\": 2}").unwrap();
    assert_eq!(normkit(&["judge", path]).status.code(), Some(2));
}
