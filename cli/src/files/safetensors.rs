//! Safetensors files. The header is parsed and validated by the `safetensors` crate, compared with the file's length,
//! and then only the tensor that was asked for is read.

use super::{open, read_exact, swap_on_big_endian};
use crate::failure::{Failure, Result};
use normkit::tensor::{DType, HostTensor};
use safetensors::tensor::{Dtype, Metadata, TensorView};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A safetensors file whose header was read and found true.
pub(crate) struct Safetensors {
    path: PathBuf,
    file: File,
    header: Metadata,
    data_start: u64,
}

impl Safetensors {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let (mut file, length) = open(path)?;
        let mut header_length = [0; 8];
        if length < 8 {
            return Err(Failure::file(path, format!("cut off in its header ({length} bytes)")));
        }
        read_exact(path, &mut file, &mut header_length)?;
        let header_length = u64::from_le_bytes(header_length);
        if header_length > length - 8 {
            let message = format!("its header claims {header_length} bytes; the file has {length}");
            return Err(Failure::file(path, message));
        }
        let mut text = vec![0; header_length as usize];
        read_exact(path, &mut file, &mut text)?;
        let header: Metadata = serde_json::from_slice(&text)
            .map_err(|e| Failure::file(path, format!("bad safetensors header: {e}")))?;
        let (promised, held) = (header.data_len() as u64, length - 8 - header_length);
        if promised != held {
            let message = format!("its header promises {promised} bytes of data; the file has {held}");
            return Err(Failure::file(path, message));
        }
        Ok(Safetensors { path: path.to_owned(), file, header, data_start: 8 + header_length })
    }

    /// The tensors' names, in the file's order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// An entry of the file's own notes.
    pub(crate) fn note(&self, key: &str) -> Option<&str> {
        self.header.metadata().as_ref()?.get(key).map(String::as_str)
    }

    pub(crate) fn read(&mut self, name: &str) -> Result<HostTensor> {
        let Some(info) = self.header.info(name) else {
            let names = self.names().join(", ");
            return Err(Failure::file(&self.path, format!("no tensor {name:?}; it has {names}")));
        };
        let dtype = match info.dtype {
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            other => {
                let message = format!("{name} has dtype {other:?}; expected F16, BF16, F32 or F64");
                return Err(Failure::file(&self.path, message));
            }
        };
        // The header's validation has tied the offsets to the shape, and `open` the offsets to the file.
        let mut tensor = HostTensor::zeros(&info.shape, dtype)?;
        let start = self.data_start + info.data_offsets.0 as u64;
        self.file.seek(SeekFrom::Start(start)).map_err(|e| Failure::file(&self.path, e))?;
        read_exact(&self.path, &mut self.file, tensor.bytes_mut())?;
        swap_on_big_endian(&mut tensor);
        Ok(tensor)
    }
}

/// Writes a file with one tensor, named `output`.
pub(super) fn write(path: &Path, tensor: &HostTensor) -> Result<()> {
    let dtype = match tensor.dtype() {
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
        DType::I8 => Dtype::I8,
        DType::F8E4M3 => Dtype::F8_E4M3,
        DType::F8E5M2 => Dtype::F8_E5M2,
        DType::I32 => Dtype::I32,
        DType::I64 => Dtype::I64,
    };
    let mut data = tensor.clone();
    swap_on_big_endian(&mut data);
    let view =
        TensorView::new(dtype, data.shape().to_vec(), data.bytes()).map_err(|e| Failure::file(path, e))?;
    safetensors::serialize_to_file(HashMap::from([("output", view)]), None, path)
        .map_err(|e| Failure::file(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_files_are_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.safetensors");
        for dtype in DType::FLOATS {
            let tensor = HostTensor::from_f64(&[1.0, -2.0, 0.5], &[3, 1], dtype).unwrap();
            write(&path, &tensor).unwrap();
            let mut file = Safetensors::open(&path).unwrap();
            assert_eq!(file.names(), ["output"]);
            assert_eq!(file.read("output").unwrap(), tensor);
            assert!(file.read("weight").is_err());
        }
    }
}
