//! The tables of a rotary embedding.

use super::{check_narrow, refuse_shape};
use crate::backend::Rotary;
use crate::norm::{Parameters, check_dims};
use crate::spec::{Epilogue, Spec};
use crate::tensor::{Dims, Layout, View};
use crate::{Error, Result, Stream};

/// The backends that have it.
const WITH_ROTARY: &[&str] = &["cpu"];

/// The tables of the spec's rotary embedding, if it has one, each row of the input with its angles.
pub(super) fn rotary<'v>(
    spec: &Spec,
    parameters: &Parameters<'v>,
    input: &View<'_>,
    stream: &Stream<'_>,
) -> Result<Option<Rotary<'v>>> {
    let Epilogue::Rotary { style, dims } = spec.fusion().epilogue else { return Ok(None) };
    let backend = stream.device().backend();
    if !WITH_ROTARY.contains(&backend) {
        let expected =
            format!("none on {backend}: rotary embeddings are there on {}", WITH_ROTARY.join(", "));
        return Err(Error::argument("rotary", expected, "one"));
    }
    check_dims(dims)?;
    let shape = input.shape();
    let last = shape.len().saturating_sub(1);
    if shape.is_empty() || spec.row_axes() != [last] || spec.shape() != shape {
        return Err(Error::argument(
            "rotary",
            "a norm whose rows are the last axis of the input, and nothing else",
            format!("rows of the axes {:?} of {:?}", spec.row_axes(), spec.shape()),
        ));
    }
    if dims > shape[last] {
        let expected = format!("at most the {} columns of a row", shape[last]);
        return Err(Error::argument("dims", expected, dims));
    }
    let Some(tables) = &parameters.tables else {
        return Err(Error::argument("cos", "a table of cosines", "none"));
    };
    for (name, table) in [("cos", &tables.cos), ("sin", &tables.sin)] {
        check_narrow(name, table, input.dtype(), stream)?;
    }
    if tables.sin.shape() != tables.cos.shape() {
        return Err(refuse_shape("sin", format!("shape {:?}, as cos has", tables.cos.shape()), &tables.sin));
    }
    let seen = |name, table: &View<'v>| {
        let expected =
            || format!("[..., {}], whose first axes are those of {shape:?} from the left, or 1", dims / 2);
        let layout = of_rows(table.layout(), &shape[..last], dims / 2)
            .ok_or_else(|| refuse_shape(name, expected(), table))?;
        table.clone().with_layout(layout)
    };
    let (cos, sin) = (seen("cos", &tables.cos)?, seen("sin", &tables.sin)?);
    Ok(Some(Rotary { style, pairs: dims / 2, cos, sin }))
}

/// A table whose axes but the last are the first ones of `kept`, or 1, and whose last has `pairs` elements: repeated along the axes
/// that it does not vary in.
fn of_rows(table: &Layout, kept: &[usize], pairs: usize) -> Option<Layout> {
    let (&own_pairs, own) = table.shape().split_last()?;
    let fits = own.len() <= kept.len() && own.iter().zip(kept).all(|(&own, &size)| own == size || own == 1);
    if own_pairs != pairs || !fits {
        return None;
    }
    let mut shape = Dims::from_slice(kept);
    shape.push(pairs);
    let mut strides: Dims<isize> = Dims::from_elem(0, shape.len());
    for (axis, (&size, &stride)) in own.iter().zip(table.strides()).enumerate() {
        strides[axis] = if size == 1 { 0 } else { stride };
    }
    strides[kept.len()] = table.strides()[own.len()];
    Layout::strided(&shape, &strides, table.offset()).ok()
}
