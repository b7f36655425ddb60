//! The tables of a rotary embedding.

use super::{check_device, check_narrow, refuse_shape};
use crate::backend::Rotary;
use crate::norm::{Parameters, check_dims};
use crate::spec::{Epilogue, Spec};
use crate::tensor::{DType, Dims, Layout, View};
use crate::{Error, Result, Stream};

/// The tables of the spec's rotary embedding, if it has one, each row of the input with its angles.
pub(super) fn rotary<'v>(
    spec: &Spec,
    parameters: &Parameters<'v>,
    input: &View<'_>,
    stream: &Stream<'_>,
) -> Result<Option<Rotary<'v>>> {
    let Epilogue::Rotary { style, dims } = spec.fusion().epilogue else { return Ok(None) };
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
    if spec.fusion().quantization.is_some() {
        let expected = "none where results become codes";
        return Err(Error::argument("rotary", expected, "one"));
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
    let pairs = dims / 2;
    let Some(positions) = &tables.positions else {
        let seen = |name, table: &View<'v>| {
            let expected =
                || format!("[..., {pairs}], whose first axes are those of {shape:?} from the left, or 1");
            let layout = repeated(table.layout(), &shape[..last], &[pairs])
                .ok_or_else(|| refuse_shape(name, expected(), table))?;
            table.clone().with_layout(layout)
        };
        let (cos, sin) = (seen("cos", &tables.cos)?, seen("sin", &tables.sin)?);
        return Ok(Some(Rotary { style, pairs, cos, sin, positions: None }));
    };
    if tables.cos.shape().len() != 2 || tables.cos.shape()[1] != pairs || tables.cos.shape()[0] == 0 {
        let expected = format!("shape [positions, {pairs}], of at least one position");
        return Err(refuse_shape("cos", expected, &tables.cos));
    }
    check_positions(positions, tables.cos.shape()[0], stream)?;
    let expected = || format!("axes that are the first ones of {shape:?}, or 1, without the columns");
    // One for all columns of a row.
    let layout = repeated(positions.layout(), &shape[..last], &[])
        .ok_or_else(|| refuse_shape("positions", expected(), positions))?;
    let positions = Some(positions.clone().with_layout(layout)?);
    Ok(Some(Rotary { style, pairs, cos: tables.cos.clone(), sin: tables.sin.clone(), positions }))
}

/// Integers, each of which, if the host can see them, names one of `rows` rows.
fn check_positions(positions: &View<'_>, rows: usize, stream: &Stream<'_>) -> Result<()> {
    if !matches!(positions.dtype(), DType::I32 | DType::I64) {
        return Err(Error::argument("positions", "dtype i32 or i64", format!("dtype {}", positions.dtype())));
    }
    check_device("positions", positions, stream)?;
    let seen = (0..positions.layout().len()).map_while(|index| Some((index, positions.host_integer(index)?)));
    for (index, position) in seen {
        if usize::try_from(position).is_ok_and(|position| position < rows) {
            continue;
        }
        let expected = format!("positions of the {rows} that cos and sin have");
        return Err(Error::argument("positions", expected, format!("{position} at {index}")));
    }
    Ok(())
}

/// A tensor whose axes are the first ones of `kept`, or 1, and then those of `own`: repeated along the axes of `kept` that it does
/// not vary in.
fn repeated(layout: &Layout, kept: &[usize], own: &[usize]) -> Option<Layout> {
    let leading = layout.rank().checked_sub(own.len())?;
    let (first, last) = layout.shape().split_at(leading);
    let fits = leading <= kept.len() && first.iter().zip(kept).all(|(&size, &of)| size == of || size == 1);
    if last != own || !fits {
        return None;
    }
    let shape: Dims = kept.iter().chain(own).copied().collect();
    let mut strides: Dims<isize> = Dims::from_elem(0, shape.len());
    for (axis, (&size, &stride)) in first.iter().zip(layout.strides()).enumerate() {
        strides[axis] = if size == 1 { 0 } else { stride };
    }
    strides[kept.len()..].copy_from_slice(&layout.strides()[leading..]);
    Layout::strided(&shape, &strides, layout.offset()).ok()
}
