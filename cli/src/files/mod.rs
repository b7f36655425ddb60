//! Tensors from and to files. A file is believed only as far as its length bears it out: no size is allocated before
//! it was compared with what the file really holds.

mod npy;
mod safetensors;

pub(crate) use safetensors::Safetensors;

use crate::failure::{Failure, Result};
use normkit::tensor::{DType, HostTensor};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Reads `x.npy`, or `model.safetensors:tensor`.
pub(crate) fn read(spec: &str) -> Result<HostTensor> {
    match spec.rsplit_once(".safetensors:") {
        Some((stem, tensor)) => Safetensors::open(format!("{stem}.safetensors").as_ref())?.read(tensor),
        None if spec.ends_with(".safetensors") => {
            let names = Safetensors::open(spec.as_ref())?.names();
            let names = names.iter().map(|name| format!("  {spec}:{name}")).collect::<Vec<_>>().join("\n");
            Err(Failure::new(format!("{spec}: which tensor? one of\n{names}")))
        }
        None if spec.ends_with(".npy") => npy::read(spec.as_ref()),
        None => Err(Failure::new(format!("{spec}: expected FILE.npy or FILE.safetensors:TENSOR"))),
    }
}

/// Refuses a file that [`write()`] could not write, before anything is computed.
pub(crate) fn check_output(path: &Path, dtype: DType) -> Result<()> {
    match (path.extension().and_then(|e| e.to_str()), dtype) {
        (Some("npy"), DType::BF16) => Err(Failure::file(
            path,
            "NumPy has no bf16; write a .safetensors file, or choose another --dtype",
        )),
        (Some("npy" | "safetensors"), _) => Ok(()),
        _ => Err(Failure::file(path, "expected a name that ends with .npy or .safetensors")),
    }
}

/// Writes `x.npy`, or a safetensors file with one tensor named `output`.
pub(crate) fn write(path: &Path, tensor: &HostTensor) -> Result<()> {
    check_output(path, tensor.dtype())?;
    match path.extension().and_then(|e| e.to_str()) {
        Some("npy") => npy::write(path, tensor),
        _ => safetensors::write(path, tensor),
    }
}

/// The file and its length.
fn open(path: &Path) -> Result<(File, u64)> {
    let file = File::open(path).map_err(|e| Failure::file(path, e))?;
    let metadata = file.metadata().map_err(|e| Failure::file(path, e))?;
    match metadata.is_file() {
        true => Ok((file, metadata.len())),
        false => Err(Failure::file(path, "not a regular file")),
    }
}

/// Fills `bytes`; the caller has compared their number with the file's length.
fn read_exact(path: &Path, file: &mut File, bytes: &mut [u8]) -> Result<()> {
    file.read_exact(bytes).map_err(|e| Failure::file(path, format!("cannot read {} bytes: {e}", bytes.len())))
}

/// Bytes of a tensor, where that is a number that memory could hold.
fn size_of(shape: &[usize], dtype: DType) -> Option<u64> {
    let bytes = shape.iter().try_fold(dtype.size() as u64, |bytes, &size| bytes.checked_mul(size as u64))?;
    (bytes <= isize::MAX as u64).then_some(bytes)
}

/// Turns little-endian elements into the machine's, or back.
fn swap_on_big_endian(tensor: &mut HostTensor) {
    if cfg!(target_endian = "big") {
        swap_bytes(tensor);
    }
}

/// Reverses the bytes of each element.
fn swap_bytes(tensor: &mut HostTensor) {
    let size = tensor.dtype().size();
    tensor.bytes_mut().chunks_exact_mut(size).for_each(<[u8]>::reverse);
}
