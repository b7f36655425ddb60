//! The geometries at typical sizes.

use super::super::device::Limits;
use super::norm::{HELD_REGISTERS, MOST_LEAVES, held_registers, most_of_block};
use super::*;
use crate::plan::tree;
use crate::tensor::Layout;

const LIMITS: Limits = Limits {
    multiprocessors: 132,
    l2_bytes: 50 << 20,
    shared_bytes: 227 << 10,
    capability: (9, 0),
    is_host: false,
};

fn rows(dtype: DType, read: &[DType], cols: usize) -> Rows<'_> {
    let most = most_width(&Overrides::default(), dtype, MOST_WIDTH);
    let width = (0..=most.ilog2()).rev().map(|bits| 1 << bits).find(|&width| cols.is_multiple_of(width));
    let width = width.unwrap_or(1) as u32;
    Rows {
        style: Style::Row,
        compute: dtype.compute(),
        cols,
        split: false,
        width,
        read,
        bends: false,
        joins: false,
    }
}

/// `[lanes, threads, width, steps, leaves, teams]` of a pass that keeps `tensors` tensors.
fn chosen(dtype: DType, tensors: usize, cols: usize) -> [u32; 6] {
    let read = [dtype; 2];
    let shape = norm(&LIMITS, &Overrides::default(), &rows(dtype, &read[..tensors], cols)).unwrap();
    [shape.lanes, shape.threads, shape.width, shape.steps, shape.leaves, shape.teams]
}

#[test]
fn rows_are_shared_by_as_many_threads_as_their_length_asks_for() {
    use DType::{BF16, F32, F64};
    // Forward, 16 bytes at a time where that leaves each thread few enough elements.
    assert_eq!(chosen(BF16, 1, 64), [32, 4, 8, 2, 1, 32]);
    assert_eq!(chosen(F32, 1, 64), [32, 8, 4, 2, 1, 16]);
    assert_eq!(chosen(BF16, 1, 512), [128, 16, 8, 4, 1, 8]);
    assert_eq!(chosen(BF16, 1, 1024), [128, 32, 4, 8, 1, 4]);
    assert_eq!(chosen(F32, 1, 1024), [128, 32, 4, 8, 1, 4]);
    assert_eq!(chosen(BF16, 1, 4096), [256, 64, 4, 16, 1, 1]);
    assert_eq!(chosen(F32, 1, 4096), [256, 64, 4, 16, 1, 1]);
    assert_eq!(chosen(F64, 1, 4096), [256, 128, 2, 16, 1, 1]);
    // Backward keeps two tensors.
    assert_eq!(chosen(BF16, 2, 1024), [128, 32, 4, 8, 1, 4]);
    assert_eq!(chosen(F32, 2, 2048), [128, 64, 2, 16, 1, 1]);
    assert_eq!(chosen(F64, 2, 4096), [256, 256, 1, 16, 1, 1]);
    // Single elements.
    assert_eq!(chosen(BF16, 1, 1023), [128, 32, 1, 8, 1, 4]);
    assert_eq!(chosen(F32, 1, 7), [32, 32, 1, 1, 1, 4]);
    // Each has an address: no more than 32 a thread.
    assert_eq!(chosen(F32, 1, 4095), [256, 128, 1, 16, 1, 1]);
    assert_eq!(chosen(F32, 2, 1023), [128, 64, 1, 8, 1, 1]);
    assert_eq!(chosen(F64, 2, 4095), [256, 256, 1, 16, 1, 1]);
    // Leaves side by side, in one block while its registers last.
    assert_eq!(chosen(BF16, 1, 32_768), [256, 64, 4, 16, 8, 1]);
}

#[test]
fn rows_that_no_block_holds_go_to_several_or_are_read_twice() {
    use DType::{BF16, F32};
    let of = |capability, dtype, cols| {
        let limits = Limits { capability, ..LIMITS };
        let read = [dtype];
        let shape = norm(&limits, &Overrides::default(), &rows(dtype, &read, cols));
        shape.map(|shape| (shape.leaves, shape.cluster, shape.steps))
    };
    assert_eq!(of((9, 0), F32, 65_536), Some((8, 2, 16)));
    assert_eq!(of((9, 0), BF16, 262_144), Some((8, 8, 16)));
    assert_eq!(of((9, 0), BF16, 262_145), None);
    assert_eq!(of((8, 6), F32, 65_536), Some((16, 1, 0)));
    assert_eq!(of((8, 6), F32, 131_073), None);
}

#[test]
fn rows_with_sums_keep_few_single_columns() {
    let of = |dtype, cols| {
        let read = [dtype; 2];
        let shape = fused(&LIMITS, &Overrides::default(), &rows(dtype, &read, cols), 256);
        shape.map(|shape| (shape.threads, shape.width, shape.steps * shape.lanes / shape.threads))
    };
    use DType::{BF16, F32};
    assert_eq!(of(BF16, 64), Some((4, 8, 16)));
    assert_eq!(of(F32, 1024), Some((32, 4, 32)));
    assert_eq!(of(F32, 63), Some((8, 1, 8)));
    assert_eq!(of(F32, 1023), Some((128, 1, 8)));
    assert_eq!(of(F32, 4095), Some((256, 1, 16)));
    assert_eq!(of(F32, 4097), None);
}

#[test]
fn operands_of_fusions_are_kept_beside_the_tensors() {
    let of = |cols, tensors: usize, bends| {
        let read = [DType::BF16; 4];
        let rows = Rows { bends, ..rows(DType::BF16, &read[..tensors], cols) };
        let shape = norm(&LIMITS, &Overrides::default(), &rows).unwrap();
        let beside = fused(&LIMITS, &Overrides::default(), &rows, 256);
        (shape.threads, shape.steps, beside.map(|shape| shape.threads))
    };
    assert_eq!(of(1024, 2, false), (32, 8, Some(32)));
    assert_eq!(of(1024, 3, false), (64, 8, Some(64)));
    assert_eq!(of(1024, 3, true), (64, 8, Some(128)));
    // Too many single columns to keep without sums.
    assert_eq!(of(4096, 3, false), (32, 0, Some(256)));
    assert_eq!(of(4096, 3, true), (32, 0, None));
    assert_eq!(of(4096, 4, false), (32, 0, None));
}

#[test]
fn every_geometry_can_be_launched() {
    let forced = [None, Some(1), Some(4), Some(64), Some(256)];
    for (dtype, threads) in DType::FLOATS.into_iter().flat_map(|dtype| forced.map(|threads| (dtype, threads)))
    {
        for (cols, tensors) in
            (0..=20).flat_map(|bits| [1usize << bits, (1 << bits) + 1].map(|cols| (cols, bits % 3)))
        {
            for (style, split) in [(Style::Row, false), (Style::Row, true), (Style::Column, true)] {
                let read = [dtype; 2];
                let overrides = Overrides { threads, ..Overrides::default() };
                let rows = Rows { style, split, ..rows(dtype, &read[..tensors], cols) };
                for shared_bytes in [64 << 10, 227 << 10] {
                    let limits = Limits { shared_bytes, ..LIMITS };
                    let Some(shape) = norm(&limits, &overrides, &rows) else {
                        assert!(!split && cols > tree::LEAF * MOST_LEAVES, "{dtype} x {cols}");
                        continue;
                    };
                    let what = format!("{dtype} x {cols}: {shape:?}");
                    assert!(
                        shape.block() <= most_of_block(rows.compute) && shape.block() % 32 == 0,
                        "{what}"
                    );
                    assert!(shape.lanes % (shape.threads * shape.width) == 0, "{what}");
                    assert!(shape.shared_bytes(dtype.compute().size() as u32) <= shared_bytes, "{what}");
                    let columns = cols.min(tree::LEAF) as u32;
                    assert!(shape.steps == 0 || shape.steps * shape.lanes >= columns, "{what}");
                    let leaves = (shape.leaves * shape.cluster) as usize;
                    assert!(split || leaves * tree::LEAF >= cols, "{what}");
                    assert!(shape.steps == 0 || held_registers(&rows, &shape) <= HELD_REGISTERS, "{what}");
                }
            }
        }
    }
}

#[test]
fn rows_of_several_operands_side_by_side_leave_registers() {
    let read = [DType::F32; 2];
    let of = |cols, joins| {
        let rows = Rows { style: Style::Column, width: 1, joins, ..rows(DType::F32, &read, cols) };
        norm(&LIMITS, &Overrides::default(), &rows).expect("a shape")
    };
    // 64 registers for each thread, or 128.
    assert_eq!((of(4096, false).block(), of(4096, true).block()), (1024, 512));
    // 64 of them that hold elements, or 32.
    assert!(of(256, false).steps > 0 && of(256, true).steps == 0 && of(128, true).steps > 0);
}

#[test]
fn rows_are_split_where_there_are_few() {
    let split = |rows, cols, style| is_split(&LIMITS, &Overrides::default(), style, [rows, cols]);
    assert!(!split(1, 4096, Style::Row) && split(1, 4097, Style::Row) && !split(66, 4097, Style::Row));
    assert!(split(1000, 4097, Style::Column) && split(7, 0, Style::Row));
}

#[test]
fn neighbours_in_memory_go_to_neighbouring_threads() {
    let of = |shape: &[usize], reduced: &[usize], input: &Layout| {
        style(&Overrides::default(), shape, reduced, input)
    };
    let matrix = Layout::contiguous(&[64, 100]);
    assert_eq!(of(&[64, 100], &[1], &matrix), Style::Row);
    assert_eq!(of(&[64, 100], &[0], &matrix), Style::Column);
    // A row of three neighbours is too narrow for a warp.
    assert_eq!(of(&[64, 3], &[0], &Layout::contiguous(&[64, 3])), Style::Row);
    assert_eq!(of(&[64, 1], &[1], &Layout::contiguous(&[64, 1])), Style::Column);
    assert_eq!(of(&[2, 8, 9, 9], &[0, 2, 3], &Layout::contiguous(&[2, 8, 9, 9])), Style::Row);
}

#[test]
fn sums_over_rows_fill_the_device() {
    // Few columns and many rows: the row leaves of a chunk go to several groups.
    let shape = columns(&LIMITS, 4, 256 * 64, 256);
    assert_eq!((shape.leaves, shape.teams, shape.block()), (8, 32, 256));
    let shape = columns(&LIMITS, 4, 1 << 20, 256);
    assert_eq!((shape.leaves, shape.teams, shape.block()), (1, 128, 128));
    assert_eq!(columns(&LIMITS, 1, 1, 16).leaves, 1);
}

#[test]
fn overrides_are_checked() {
    let wrong = [
        Overrides { width: Some(3), ..Overrides::default() },
        Overrides { threads: Some(512), ..Overrides::default() },
        Overrides { threads: Some(0), ..Overrides::default() },
        Overrides { leaves: Some(0), ..Overrides::default() },
    ];
    assert!(wrong.iter().all(|overrides| overrides.check().is_err()));
    assert!(
        Overrides { width: Some(8), threads: Some(256), leaves: Some(1), ..Overrides::default() }
            .check()
            .is_ok()
    );
}
