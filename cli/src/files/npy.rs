//! NumPy's `.npy` files: a magic, a version, a Python dictionary of three keys, and the elements.
//!
//! Read here and not by a crate because the crates multiply the header's sizes unchecked or allocate them before
//! they look at the file's length.

use super::{open, read_exact, size_of, swap_bytes, swap_on_big_endian};
use crate::failure::{Failure, Result};
use normkit::tensor::{DType, HostTensor};
use std::fs::File;
use std::io::Write;
use std::path::Path;

const MAGIC: &[u8] = b"\x93NUMPY";
/// NumPy writes 128 bytes; a longer header than this describes no tensor of ours.
const MAX_HEADER: u64 = 64 << 10;

/// What a header says.
#[derive(Debug, PartialEq)]
struct Header {
    dtype: DType,
    big_endian: bool,
    fortran_order: bool,
    shape: Vec<usize>,
}

pub(super) fn read(path: &Path) -> Result<HostTensor> {
    let (mut file, length) = open(path)?;
    let (header, data_start) = read_header(path, &mut file, length)?;
    let Header { dtype, shape, .. } = &header;
    let held = length - data_start;
    if size_of(shape, *dtype) != Some(held) {
        let wanted =
            size_of(shape, *dtype).map_or("more bytes than memory has".into(), |n| format!("{n} bytes"));
        let message = format!("its header promises {dtype} {shape:?}, {wanted} of data; the file has {held}");
        return Err(Failure::file(path, message));
    }
    // NumPy writes a Fortran-ordered array as its transpose in C order.
    let stored: Vec<usize> =
        if header.fortran_order { shape.iter().rev().copied().collect() } else { shape.clone() };
    let mut tensor = HostTensor::zeros(&stored, *dtype)?;
    read_exact(path, &mut file, tensor.bytes_mut())?;
    if header.big_endian != cfg!(target_endian = "big") {
        swap_bytes(&mut tensor);
    }
    if header.fortran_order { transposed(&tensor) } else { Ok(tensor) }
}

/// The tensor with its axes in reverse order, row-major.
fn transposed(tensor: &HostTensor) -> Result<HostTensor> {
    let shape: Vec<usize> = tensor.shape().iter().rev().copied().collect();
    let mut result = HostTensor::zeros(&shape, tensor.dtype())?;
    let size = tensor.dtype().size();
    let mut index = vec![0; shape.len()];
    for to in result.bytes_mut().chunks_exact_mut(size) {
        let from = index.iter().zip(&shape).rev().fold(0, |at, (i, n)| at * n + i) * size;
        to.copy_from_slice(&tensor.bytes()[from..from + size]);
        for (i, &n) in index.iter_mut().zip(&shape).rev() {
            *i += 1;
            if *i < n {
                break;
            }
            *i = 0;
        }
    }
    Ok(result)
}

/// The header, and where the data begins.
fn read_header(path: &Path, file: &mut File, length: u64) -> Result<(Header, u64)> {
    let short = || Failure::file(path, format!("not an npy file, or cut off in its header ({length} bytes)"));
    let mut start = [0; 10];
    if length < 10 {
        return Err(short());
    }
    read_exact(path, file, &mut start)?;
    if !start.starts_with(MAGIC) {
        return Err(Failure::file(path, "not an npy file: it does not begin with \\x93NUMPY"));
    }
    let (header_length, header_start) = match start[6] {
        1 => (u64::from(u16::from_le_bytes([start[8], start[9]])), 10),
        2 | 3 if length >= 12 => {
            let mut rest = [0; 2];
            read_exact(path, file, &mut rest)?;
            (u64::from(u32::from_le_bytes([start[8], start[9], rest[0], rest[1]])), 12)
        }
        2 | 3 => return Err(short()),
        version => return Err(Failure::file(path, format!("npy version {version} is none of 1, 2, 3"))),
    };
    let data_start = header_start + header_length;
    if header_length > MAX_HEADER || data_start > length {
        let message = format!("its header claims {header_length} bytes; the file has {length}");
        return Err(Failure::file(path, message));
    }
    let mut text = vec![0; header_length as usize];
    read_exact(path, file, &mut text)?;
    let text = String::from_utf8_lossy(&text);
    let header = parse(&text).map_err(|problem| Failure::file(path, format!("bad npy header: {problem}")))?;
    Ok((header, data_start))
}

/// Reads the dictionary, as in `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`.
fn parse(text: &str) -> std::result::Result<Header, String> {
    let mut rest = text.trim().strip_prefix('{').ok_or("no dictionary")?.trim_start();
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    while !rest.starts_with('}') {
        let (key, after) = quoted(rest)?;
        let value = after.trim_start().strip_prefix(':').ok_or("a key without a value")?.trim_start();
        rest = match key {
            "descr" => {
                let (name, after) = quoted(value)?;
                descr = Some(name);
                after
            }
            "fortran_order" => {
                let (truth, word) = if value.starts_with("True") { (true, "True") } else { (false, "False") };
                fortran_order = Some(truth);
                value.strip_prefix(word).ok_or("fortran_order is neither True nor False")?
            }
            "shape" => {
                let (inside, after) =
                    value.strip_prefix('(').and_then(|v| v.split_once(')')).ok_or("shape is no tuple")?;
                shape = Some(sizes(inside)?);
                after
            }
            other => return Err(format!("unknown key {other:?}")),
        };
        rest = rest.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if rest.starts_with('}') => rest,
            None => return Err("no comma between its entries".into()),
        };
    }
    let (dtype, big_endian) = element(descr.ok_or("no descr")?)?;
    let fortran_order = fortran_order.ok_or("no fortran_order")?;
    Ok(Header { dtype, big_endian, fortran_order, shape: shape.ok_or("no shape")? })
}

/// A string in quotes, and what follows it.
fn quoted(text: &str) -> std::result::Result<(&str, &str), String> {
    let quote =
        text.chars().next().filter(|c| matches!(c, '\'' | '"')).ok_or("expected a string in quotes")?;
    text[1..].split_once(quote).ok_or("a string without an end".into())
}

/// The numbers of a tuple.
fn sizes(text: &str) -> std::result::Result<Vec<usize>, String> {
    let text = text.trim();
    let text = text.strip_suffix(',').unwrap_or(text);
    let numbers = text.split(',').map(str::trim).filter(|_| !text.is_empty());
    numbers.map(|n| n.parse().map_err(|_| format!("shape has the entry {n:?}"))).collect()
}

/// The dtype behind a NumPy type string, and whether its bytes are reversed.
fn element(descr: &str) -> std::result::Result<(DType, bool), String> {
    let dtype = match descr.get(1..) {
        Some("f2") => DType::F16,
        Some("f4") => DType::F32,
        Some("f8") => DType::F64,
        _ => return Err(format!("dtype {descr:?}; expected '<f2', '<f4' or '<f8'")),
    };
    match &descr[..1] {
        "<" => Ok((dtype, false)),
        ">" => Ok((dtype, true)),
        _ => Err(format!("byte order of dtype {descr:?}; expected < or >")),
    }
}

pub(super) fn write(path: &Path, tensor: &HostTensor) -> Result<()> {
    let shape: String = tensor.shape().iter().map(|n| format!("{n}, ")).collect();
    let shape = if tensor.shape().len() == 1 { shape.trim_end() } else { shape.trim_end_matches(", ") };
    let size = tensor.dtype().size();
    let mut text = format!("{{'descr': '<f{size}', 'fortran_order': False, 'shape': ({shape}), }}");
    // Magic, version and length take 10 bytes; the data that follows starts at a multiple of 64.
    text += &" ".repeat((10 + text.len() + 1).next_multiple_of(64) - (10 + text.len() + 1));
    text.push('\n');
    let length =
        u16::try_from(text.len()).map_err(|_| Failure::file(path, "too many axes for an npy header"))?;
    let mut data = tensor.clone();
    swap_on_big_endian(&mut data);
    let start = [MAGIC, &[1, 0], &length.to_le_bytes(), text.as_bytes()].concat();
    let written = File::create(path)
        .and_then(|mut file| file.write_all(&start).and_then(|()| file.write_all(data.bytes())));
    written.map_err(|e| Failure::file(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_numpy_writes_them() {
        let text = "{'descr': '<f2', 'fortran_order': False, 'shape': (3,), }   \n";
        let expected = Header { dtype: DType::F16, big_endian: false, fortran_order: false, shape: vec![3] };
        assert_eq!(parse(text), Ok(expected));
        let text = "{\"shape\":(),\"fortran_order\":True,\"descr\":\">f8\"}";
        let expected = Header { dtype: DType::F64, big_endian: true, fortran_order: true, shape: vec![] };
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn bad_headers_are_errors() {
        for text in [
            "",
            "{",
            "{'descr'",
            "{'descr': '<f4'}",
            "{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }",
            "{'descr': 'é4', 'fortran_order': False, 'shape': (3,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-3,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3,,), }",
            "{'descr': '<f4', 'fortran_order': None, 'shape': (3,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }",
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn written_files_are_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.npy");
        for dtype in [DType::F16, DType::F32, DType::F64] {
            for shape in [vec![], vec![3], vec![2, 0], vec![2, 3]] {
                let values: Vec<f64> = (0..shape.iter().product::<usize>()).map(|i| i as f64 - 1.5).collect();
                let tensor = HostTensor::from_f64(&values, &shape, dtype).unwrap();
                write(&path, &tensor).unwrap();
                assert_eq!(read(&path).unwrap(), tensor);
            }
        }
    }

    #[test]
    fn fortran_order_and_big_endian_come_out_row_major() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.npy");
        let text = "{'descr': '>f4', 'fortran_order': True, 'shape': (2, 3), }\n";
        let mut bytes = [MAGIC, &[1, 0], &(text.len() as u16).to_le_bytes(), text.as_bytes()].concat();
        [0f32, 3.0, 1.0, 4.0, 2.0, 5.0].iter().for_each(|x| bytes.extend(x.to_be_bytes()));
        std::fs::write(&path, bytes).unwrap();
        let tensor = read(&path).unwrap();
        assert_eq!((tensor.shape(), tensor.to_f64()), (&[2, 3][..], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
    }
}
