//! Queries, keys and values that share one tensor.

use crate::tensor::Layout;
use crate::{Error, Result};

/// Queries, keys and values of a packed tensor, as layouts over its memory: of `[B, S, 3, heads, head_dim]`, or of
/// `[B, S, heads + 2 * key_heads, head_dim]`, queries first and values last.
///
/// ```
/// use normkit::norm::split_packed;
/// use normkit::tensor::Layout;
/// let [q, k, v] = split_packed(&Layout::contiguous(&[2, 5, 8, 64]), 4, 2)?;
/// assert_eq!((q.shape(), k.shape(), v.offset()), (&[2, 5, 4, 64][..], &[2, 5, 2, 64][..], 6 * 64));
/// # Ok::<(), normkit::Error>(())
/// ```
pub fn split_packed(packed: &Layout, heads: usize, key_heads: usize) -> Result<[Layout; 3]> {
    let shape = packed.shape();
    let wrong = |expected: String| Error::argument("packed", expected, format!("shape {shape:?}"));
    let rank = shape.len();
    if rank >= 4 && shape[rank - 3] == 3 && shape[rank - 2] == heads && heads == key_heads {
        let part = |index: usize| {
            let part = packed.clone().sliced(rank - 3, index..index + 1, 1)?;
            let (mut shape, mut strides) = (part.shape().to_vec(), part.strides().to_vec());
            shape.remove(rank - 3);
            strides.remove(rank - 3);
            Layout::strided(&shape, &strides, part.offset())
        };
        return Ok([part(0)?, part(1)?, part(2)?]);
    }
    let total = key_heads.checked_mul(2).and_then(|n| n.checked_add(heads));
    if rank < 2 || total != Some(shape[rank - 2]) || key_heads == 0 || !heads.is_multiple_of(key_heads) {
        return Err(wrong(format!(
            "[..., 3, {heads}, head_dim] or [..., {heads} + 2 * {key_heads}, head_dim], with key heads that divide the heads"
        )));
    }
    let part = |from: usize, to: usize| packed.clone().sliced(rank - 2, from..to, 1);
    Ok([part(0, heads)?, part(heads, heads + key_heads)?, part(heads + key_heads, shape[rank - 2])?])
}
