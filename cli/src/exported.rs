//! The folder of `normkit export`: what another WebGPU implementation needs to run cases, and what it gives back.
//!
//! | file | what |
//! |---|---|
//! | `manifest.json` | the cases: see [`Export::add`] |
//! | `memory/HASH.bin` | the operands of a case, little-endian, as they are before it runs |
//! | `shaders/HASH.wgsl` | a shader |
//! | `results/N.bin` | the operands of case N afterwards, of the same length: written by whoever runs it |
//! | `results/N.error` | in place of that, why case N could not be run |

use crate::failure::{Failure, Result};
use normkit::backend::wgpu::RecordedDispatch;
use normkit::check::{self, Case, Effort, Replay, ReplayBuffer};
use normkit::tensor::DType;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What the manifest calls its own form; another number is another form.
const FORMAT: u64 = 1;

/// Fowler, Noll and Vo's hash (FNV-1a): the same on every machine and in every release, as names are to be.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// A folder that is being written.
pub(crate) struct Export {
    directory: PathBuf,
    quick: bool,
    cases: Vec<Value>,
    stored: HashSet<String>,
    bytes: usize,
}

impl Export {
    /// Begins to write into a folder that is new or empty. `quick` is remembered, since the effort is part of where a
    /// case is listed.
    pub(crate) fn create(directory: &Path, quick: bool) -> Result<Self> {
        for part in ["memory", "shaders", "results"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).map_err(|e| Failure::file(&path, e))?;
        }
        // Results of an earlier export would be taken for this one's.
        let entries = fs::read_dir(directory).map_err(|e| Failure::file(directory, e))?.count();
        let results = directory.join("results");
        let earlier = fs::read_dir(&results).map_err(|e| Failure::file(&results, e))?.count();
        if entries > 3 || earlier > 0 {
            return Err(Failure::file(directory, "the folder must be new or empty"));
        }
        let (cases, stored) = (Vec::new(), HashSet::new());
        Ok(Export { directory: directory.to_owned(), quick, cases, stored, bytes: 0 })
    }

    /// Adds a case. `way` says which of its shaders these are, for people.
    pub(crate) fn add(&mut self, case: &Case, way: &str, replay: &Replay) -> Result<()> {
        let memory = self.store("memory", "bin", &replay.memory)?;
        let dispatches = replay.dispatches.iter().map(|dispatch| self.dispatch(dispatch));
        let dispatches = dispatches.collect::<Result<Vec<Value>>>()?;
        self.cases.push(json!({
            "method": case.method,
            "dtype": case.dtype.name(),
            "case": case.name,
            "way": way,
            "memory": memory,
            "buffers": replay.buffers.iter().map(buffer).collect::<Vec<_>>(),
            "dispatches": dispatches,
        }));
        Ok(())
    }

    /// Adds a case that cannot be launched, and why: it is listed and judged, but there is nothing to run.
    pub(crate) fn add_refused(&mut self, case: &Case, way: &str, reason: &str) {
        self.cases.push(json!({
            "method": case.method,
            "dtype": case.dtype.name(),
            "case": case.name,
            "way": way,
            "refused": reason,
        }));
    }

    fn dispatch(&mut self, dispatch: &RecordedDispatch) -> Result<Value> {
        let bindings = dispatch.storage.iter().map(|binding| {
            json!({
                "buffer": binding.buffer,
                "offset": binding.offset,
                "size": binding.size,
                "writable": binding.writable,
            })
        });
        let (x, y) = dispatch.groups;
        Ok(json!({
            "shader": self.store("shaders", "wgsl", dispatch.source.as_bytes())?,
            "entry": dispatch.entry,
            // Binding 0, as 32-bit words; the storage bindings count from 1.
            "params": dispatch.params,
            "storage": bindings.collect::<Vec<_>>(),
            "groups": [x, y],
        }))
    }

    /// Writes `bytes` into a file that is named for them, once, and returns its path in the folder. Of a few thousand
    /// files, two differing ones share a 64-bit name with a probability of 10^-12.
    fn store(&mut self, part: &str, extension: &str, bytes: &[u8]) -> Result<String> {
        let name = format!("{part}/{:016x}.{extension}", hash(bytes));
        if self.stored.insert(name.clone()) {
            let path = self.directory.join(&name);
            fs::write(&path, bytes).map_err(|e| Failure::file(&path, e))?;
            self.bytes += bytes.len();
        }
        Ok(name)
    }

    /// Writes the manifest and returns how many cases, files and bytes there are.
    pub(crate) fn finish(self) -> Result<(usize, usize, usize)> {
        let count = self.cases.len();
        let manifest = json!({ "format": FORMAT, "quick": self.quick, "cases": self.cases });
        let text = manifest.to_string();
        let path = self.directory.join("manifest.json");
        fs::write(&path, &text).map_err(|e| Failure::file(&path, e))?;
        Ok((count, self.stored.len() + 1, self.bytes + text.len()))
    }
}

fn buffer(buffer: &ReplayBuffer) -> Value {
    let memory = buffer.memory.as_ref().map(|range| json!([range.start, range.end]));
    json!({ "size": buffer.size, "memory": memory })
}

/// A case whose results are to be judged.
pub(crate) struct Exported {
    pub(crate) case: Case,
    pub(crate) way: String,
    refused: Option<String>,
    index: usize,
    directory: PathBuf,
}

impl Exported {
    /// The cases of a folder, in the manifest's order.
    pub(crate) fn read(directory: &Path) -> Result<Vec<Exported>> {
        let path = directory.join("manifest.json");
        let text = fs::read_to_string(&path).map_err(|e| Failure::file(&path, e))?;
        let manifest: Value = serde_json::from_str(&text).map_err(|e| Failure::file(&path, e))?;
        if manifest["format"] != FORMAT {
            let problem = format!("not a manifest of format {FORMAT}, but of {}", manifest["format"]);
            return Err(Failure::file(&path, problem));
        }
        let effort = if manifest["quick"] == true { Effort::Quick } else { Effort::Full };
        let entries = manifest["cases"].as_array().map(Vec::as_slice).unwrap_or_default();
        (entries.iter().enumerate())
            .map(|(index, entry)| {
                let word = |key: &str| entry[key].as_str().unwrap_or_default();
                let known = |dtype: DType| check::cases(word("method"), dtype, effort);
                let listed = word("dtype").parse().map(known).unwrap_or_default();
                let case = listed.into_iter().find(|case| case.name == word("case")).ok_or_else(|| {
                    Failure::file(&path, format!("case {index} is none that this command knows"))
                })?;
                let (way, directory) = (word("way").to_owned(), directory.to_owned());
                let refused = entry["refused"].as_str().map(str::to_owned);
                Ok(Exported { case, way, refused, index, directory })
            })
            .collect()
    }

    /// The operands after the case has run, or why there are none.
    pub(crate) fn result(&self) -> Result<Vec<u8>> {
        if let Some(reason) = &self.refused {
            return Err(Failure::new(reason));
        }
        let file = |extension: &str| self.directory.join(format!("results/{}.{extension}", self.index));
        match fs::read_to_string(file("error")) {
            Ok(message) => Err(Failure::new(message)),
            Err(_) => fs::read(file("bin")).map_err(|e| Failure::new(format!("no result: {e}"))),
        }
    }
}
