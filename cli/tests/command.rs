//! The command as its users meet it: exit codes, messages and files.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// An empty directory and the command run in it.
struct Bench {
    directory: TempDir,
}

impl Bench {
    fn new() -> Self {
        Bench { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_normkit"));
        command.current_dir(self.directory.path()).args(arguments).output().unwrap()
    }

    /// Runs what must fail, and returns its message.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!message.contains("panicked"), "{message}");
        message
    }

    /// Runs what must succeed with `--json`, and returns what it prints.
    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// A `.npy` file of float32 numbers whose header claims `shape`.
fn write_npy(path: &Path, shape: &str, values: &[f32]) {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    values.iter().for_each(|x| bytes.extend(x.to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}

/// A safetensors file with this header and `data` bytes of zeros.
fn write_safetensors(path: &Path, header: &str, data: usize) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    std::fs::write(path, bytes).unwrap();
}

/// The numbers of a `.npy` file that the command wrote.
fn read_npy(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!(start % 64, 0, "the data must begin at a multiple of 64 bytes");
    bytes[start..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn run_normalizes_a_file() {
    let bench = Bench::new();
    write_npy(&bench.path("x.npy"), "2, 2", &[1.0, 2.0, 3.0, 6.0]);
    write_npy(&bench.path("w.npy"), "2,", &[2.0, 4.0]);
    let arguments = ["run", "layer_norm", "--input", "x.npy", "--weight", "w.npy", "--eps", "0"];
    let report = bench.json(&[&arguments[..], &["--output", "y.npy"]].concat());
    assert_eq!(read_npy(&bench.path("y.npy")), [-2.0, 4.0, -2.0, 4.0]);
    assert_eq!((&report["shape"], &report["dtype"]), (&serde_json::json!([2, 2]), &"f32".into()));
    assert_eq!((report["min"].as_f64(), report["max"].as_f64()), (Some(-2.0), Some(4.0)));
    assert_eq!(report["output"], "y.npy");
}

#[test]
fn run_knows_the_norms_of_channels() {
    let bench = Bench::new();
    write_npy(&bench.path("x.npy"), "1, 4, 1", &[1.0, 3.0, 5.0, 9.0]);
    write_npy(&bench.path("mean.npy"), "4,", &[1.0, 1.0, 1.0, 1.0]);
    write_npy(&bench.path("var.npy"), "4,", &[4.0, 4.0, 4.0, 16.0]);
    let run = |arguments: &[&str]| {
        bench.json(&[&["run"], arguments, &["--input", "x.npy", "--output", "y.npy"]].concat());
        read_npy(&bench.path("y.npy"))
    };
    assert_eq!(run(&["group_norm", "--groups", "2", "--eps", "0"]), [-1.0, 1.0, -1.0, 1.0]);
    let running = ["--running-mean", "mean.npy", "--running-var", "var.npy"];
    assert_eq!(run(&[&["batch_norm", "--eps", "0"], &running[..]].concat()), [0.0, 1.0, 2.0, 2.0]);
    assert_eq!(run(&["normalize", "--p", "inf"]), [1.0 / 9.0, 3.0 / 9.0, 5.0 / 9.0, 1.0]);
    assert_eq!(run(&["weight_norm", "--dim", "1"]), [1.0; 4]);
    assert_eq!(run(&["qk_norm", "--kind", "l2"]), [1.0; 4]);
}

#[test]
fn run_takes_what_it_wrote() {
    let bench = Bench::new();
    write_npy(&bench.path("x.npy"), "1, 4", &[3.0, -3.0, 3.0, 3.0]);
    let first = ["run", "rms_norm", "--input", "x.npy", "--dtype", "bf16", "--output", "y.safetensors"];
    assert_eq!(bench.json(&first)["dtype"], "bf16");
    let second = ["run", "dyt", "--input", "y.safetensors:output", "--alpha", "1e4", "--dtype", "f32"];
    bench.json(&[&second[..], &["--output", "z.npy"]].concat());
    assert_eq!(read_npy(&bench.path("z.npy")), [1.0, -1.0, 1.0, 1.0]);
}

#[test]
fn options_of_other_methods_are_refused() {
    let bench = Bench::new();
    write_npy(&bench.path("x.npy"), "4,", &[0.0; 4]);
    let message = bench.refused(&["run", "layer_norm", "--input", "x.npy", "--partial", "0.5"]);
    assert!(message.contains("--partial is an option of rms_norm, not of layer_norm"), "{message}");
}

#[test]
fn wrong_arguments_are_refused_in_words() {
    let bench = Bench::new();
    write_npy(&bench.path("x.npy"), "4,", &[0.0; 4]);
    write_npy(&bench.path("w.npy"), "3,", &[0.0; 3]);
    for (arguments, expected) in [
        (&["run", "switch_norm", "--input", "x.npy"][..], "layer_norm"),
        (&["run", "batch_norm", "--input", "x.npy"], "[N, C, ...]"),
        (&["run", "normalize", "--input", "x.npy", "--p", "0.5"], "p: expected"),
        (&["run", "normalize", "--input", "x.npy"], "dim"),
        (&["run", "weight_norm", "--input", "x.npy", "--dim", "two"], "an axis or none"),
        (&["run", "dyt", "--input", "x.npy", "--running-mean", "w.npy"], "batch_norm"),
        (&["run", "dyt"], "--input"),
        (&["run", "dyt", "--input", "nothing.npy"], "nothing.npy"),
        (&["run", "dyt", "--input", "x.txt"], "FILE.npy"),
        (&["run", "dyt", "--input", "."], "FILE.npy"),
        (&["run", "dyt", "--input", "x.npy", "--dtype", "int8"], "f16, bf16, f32, f64"),
        (&["run", "dyt", "--input", "x.npy", "--output", "y.txt"], ".npy"),
        (&["run", "dyt", "--input", "x.npy", "--dtype", "bf16", "--output", "y.npy"], "bf16"),
        (&["run", "dyt", "--input", "x.npy", "--axes", "2"], "--axes"),
        (&["run", "dyt", "--input", "x.npy", "--threads", "0"], "threads"),
        (&["run", "dyt", "--input", "x.npy", "--isa", "mmx"], "mmx"),
        (&["run", "layer_norm", "--input", "x.npy", "--weight", "w.npy"], "[3]"),
        (&["run", "layer_norm", "--input", "x.npy", "--eps", "-1"], "eps"),
        (&["run", "rms_norm", "--input", "x.npy", "--partial", "1.5"], "partial"),
        (&["bench", "--elements", "0"], "--elements"),
        (&["bench", "--shape", "3,4"], "--method"),
        (&["demo", "--data", "x.npy"], "x.npy"),
        (&["fly"], "fly"),
    ] {
        let message = bench.refused(arguments);
        assert!(message.contains(expected), "{arguments:?}: {message}");
    }
}

#[test]
fn errors_are_json_where_json_was_asked_for() {
    let bench = Bench::new();
    let output = bench.run(&["run", "dyt", "--input", "nothing.npy", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["error"].as_str().unwrap().contains("nothing.npy"));
}

#[test]
fn npy_files_that_lie_are_refused() {
    let bench = Bench::new();
    let path = bench.path("x.npy");
    for shape in
        ["5,", "3,", "1000000000000,", "4294967296, 4294967296", "4611686018427387905,", "-4,", "4, x"]
    {
        write_npy(&path, shape, &[0.0; 4]);
        let message = bench.refused(&["run", "dyt", "--input", "x.npy"]);
        assert!(message.contains("x.npy"), "{shape}: {message}");
    }
}

#[test]
fn npy_files_cut_anywhere_are_refused() {
    let bench = Bench::new();
    let path = bench.path("x.npy");
    write_npy(&path, "2, 2", &[1.0; 4]);
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 5, 6, 9, 10, 11, 40, whole.len() - 17, whole.len() - 16, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        bench.refused(&["run", "dyt", "--input", "x.npy"]);
    }
    // A header longer than the file, in version 2, whose lengths reach 4 GiB.
    std::fs::write(&path, b"\x93NUMPY\x02\x00\xff\xff\xff\xff{'descr': '<f4'").unwrap();
    assert!(bench.refused(&["run", "dyt", "--input", "x.npy"]).contains("4294967295 bytes"));
}

#[test]
fn safetensors_files_that_lie_are_refused() {
    let bench = Bench::new();
    let path = bench.path("x.safetensors");
    let header = |shape: &str, end: &str| {
        format!("{{\"t\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[0,{end}]}}}}")
    };
    let good = header("[2,2]", "16");
    for (header, data) in [
        (good.clone(), 15),
        (good.clone(), 17),
        (good.clone(), 0),
        (header("[1000000000000]", "4000000000000"), 16),
        (header("[4294967296,4294967296]", "0"), 0),
        (header("[2,2]", "8"), 8),
        (header("[-2]", "16"), 16),
        (good.replace("[0,", "[8,"), 24),
        (good.replace("F32", "I32"), 16),
        ("{".into(), 0),
        ("[".repeat(100_000), 0),
    ] {
        write_safetensors(&path, &header, data);
        bench.refused(&["run", "dyt", "--input", "x.safetensors:t"]);
    }
    std::fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
    bench.refused(&["run", "dyt", "--input", "x.safetensors:t"]);
    write_safetensors(&path, &good, 16);
    bench.json(&["run", "dyt", "--input", "x.safetensors:t"]);
    assert!(bench.refused(&["run", "dyt", "--input", "x.safetensors:u"]).contains("it has t"));
    assert!(bench.refused(&["run", "dyt", "--input", "x.safetensors"]).contains("x.safetensors:t"));
}

#[test]
fn devices_always_have_the_cpu() {
    let report = Bench::new().json(&["devices"]);
    assert_eq!(report["cpu"]["usable"], true);
    assert!(!report["cpu"]["instruction_sets"].as_array().unwrap().is_empty());
    for backend in ["wgpu", "cuda"] {
        assert_eq!(report[backend]["reason"].is_string(), report[backend]["usable"] == false, "{backend}");
    }
}

#[test]
fn bench_measures_and_draws() {
    let bench = Bench::new();
    let small = ["--backend", "cpu", "--elements", "4096", "--rounds", "3"];
    let report = bench.json(&[&["bench", "--plot", "b.svg"][..], &small].concat());
    let results = report["results"].as_array().unwrap();
    // Fifteen inputs, three dtypes, both passes.
    assert_eq!(results.len(), 15 * 3 * 2);
    assert!(results.iter().all(|row| row["seconds"].as_f64().unwrap() > 0.0));
    assert!(std::fs::read_to_string(bench.path("b.svg")).unwrap().ends_with("</svg>\n"));
    let table = bench.run(&[&["bench", "--table", "--method", "dyt"][..], &small].concat());
    assert!(String::from_utf8(table.stdout).unwrap().contains("| cpu | dyt | f32 | 4 x 1024 |"));
}

#[test]
fn demo_gives_the_models_own_outputs() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/minilm_layernorm.safetensors");
    let report = Bench::new().json(&["demo", "--data", data]);
    let errors = report["errors"].as_array().unwrap();
    let on = |backend| errors.iter().filter(move |row| row["backend"] == backend);
    assert_eq!(on("cpu").count(), 4 * 8);
    for row in errors {
        // In units of the results. In a backward pass these may be far smaller than the terms that they are the sum
        // of, whose units the promise is made in.
        for (key, most) in [("model_ulp", 4.0), ("forward_ulp", 4.0), ("backward_ulp", 64.0)] {
            assert!(row[key].as_f64().is_none_or(|ulp| ulp <= most), "{row}");
        }
    }
    assert_eq!(errors.iter().filter(|row| row["model_ulp"].is_f64()).count(), errors.len() / 8);
}

#[test]
fn check_keeps_the_promise() {
    // A method, and what is none but a spec.
    for method in ["rms_norm", "hypersphere_step"] {
        let report = Bench::new().json(&[
            "check",
            "--quick",
            "--backend",
            "cpu",
            "--method",
            method,
            "--dtype",
            "f32",
        ]);
        assert_eq!(report["kept"], true);
        let results = report["results"].as_array().unwrap();
        assert_eq!(results.len(), 1);
        assert_eq!(results[0]["method"], method);
        assert!(results[0]["cases"].as_u64().unwrap() > 0 && results[0]["worst"].as_f64().unwrap() <= 1.0);
    }
}
