//! Shapes: both sides of each change of path, primes, single elements, empty and huge ones.

use super::super::data::Fill;
use super::super::placement::Placement;
use super::Effort::{Full, Quick};
use super::List;
use crate::tensor::DType;

pub(super) fn list(list: &mut List) {
    // Either side of each change of path (the tree's 32 and 256 lanes, 4096 to a leaf), primes, and the extremes.
    let quick = [1, 2, 3, 31, 769, 1023, 4096, 65_537];
    let full = [7, 32, 33, 61, 64, 255, 256, 257, 512, 1024, 2053, 4095, 4097, 8192, 9973];
    for cols in quick {
        list.add(Quick, format!("{cols} columns"), (if cols > 5000 { 2 } else { 5 }, cols), |_| {});
    }
    for cols in full {
        list.add(Full, format!("{cols} columns"), (4, cols), |_| {});
    }
    if list.method != "batch_norm" {
        list.add(Quick, "no rows", (0, 65), |_| {});
    }
    list.add(Quick, "one row", (1, 300), |_| {});
    list.add(Quick, "70000 rows", (70_000, 3), |_| {});
    list.add(Full, "70000 rows of one column", (70_000, 1), |_| {});
    list.add(Full, "4099 rows", (4099, 40), |_| {});
    list.add(Full, "10^5 columns", (2, 100_000), |_| {});
    if list.dtype == DType::F32 && list.is(&["group_norm", "batch_norm", "weight_norm"]) {
        list.add(Full, "10^7 columns", (1, 10_000_000), |_| {});
    }
    // 100,000 elements as in a network.
    list.add(Quick, "well-conditioned", (131, 768), |case| {
        case.well_conditioned = true;
        case.weight = case.weight.and(Some(Fill::Normal { mean: 1.0, deviation: 0.1 }));
        case.bias = case.bias.and(Some(Fill::Normal { mean: 0.0, deviation: 0.1 }));
    });
    if list.is_trailing() {
        list.add_shape(Quick, "one axis", &[130], |_| {});
        list.add_shape(Quick, "four axes", &[3, 5, 4, 9], |case| case.normalized_axes = 2);
        list.add_shape(Full, "four axes in a row", &[2, 3, 4, 5], |case| case.normalized_axes = 4);
    }
    if list.has_channels() {
        images(list);
    }
    match list.method {
        "group_norm" => groups(list),
        "weight_norm" => weights(list),
        "normalize" => {
            for (dim, shape) in [(0, [40, 30]), (1, [3, 301])] {
                list.add_shape(Quick, format!("axis {dim} of a matrix"), &shape, |case| case.dim = Some(dim));
            }
            for dim in 0..4 {
                list.add_shape(Quick, format!("axis {dim} of four"), &[5, 6, 7, 8], |case| {
                    case.dim = Some(dim)
                });
            }
        }
        "qk_norm" => {
            list.add_shape(Quick, "heads of 64", &[2, 17, 8, 64], |_| {});
            list.add_shape(Full, "heads of 128", &[1, 50, 4, 128], |_| {});
            list.add_shape(Quick, "one head of one number", &[6, 1, 1], |_| {});
        }
        _ => {}
    }
}

fn images(list: &mut List) {
    let shapes: [&[usize]; 6] =
        [&[33, 6], &[4, 6, 35], &[2, 6, 7, 9], &[2, 4, 3, 5, 4], &[7, 1, 12], &[1, 12, 5, 5]];
    for shape in shapes {
        if shape.len() == 2 && list.method == "instance_norm" {
            continue;
        }
        for placement in [Placement::Contiguous, Placement::ChannelsLast] {
            let effort = if shape.len() == 4 { Quick } else { Full };
            let groups = if shape[1].is_multiple_of(3) { 3 } else { 1 };
            list.add_shape(effort, format!("{shape:?}, {placement:?}"), shape, |case| {
                (case.placement, case.groups) = (placement, groups);
            });
        }
    }
    // As in a network, channels-last and more than a leaf of positions.
    list.add_shape(Full, "channels-last, many positions", &[2, 32, 50, 47], |case| {
        (case.placement, case.groups) = (Placement::ChannelsLast, 8);
    });
    list.add_shape(Full, "many channels, few positions", &[3, 512, 2, 2], |case| case.groups = 32);
}

fn groups(list: &mut List) {
    for (groups, effort) in [(1, Quick), (2, Full), (6, Quick), (12, Quick)] {
        list.add_shape(effort, format!("{groups} groups of 12 channels"), &[3, 12, 5, 5], |case| {
            case.groups = groups
        });
    }
    list.add_shape(Quick, "groups of one element", &[4, 6], |case| case.groups = 6);
    list.add_shape(Full, "groups of two elements", &[4, 6], |case| case.groups = 3);
    list.add_shape(Full, "2 groups of 10^5 elements", &[1, 20, 100, 100], |case| case.groups = 2);
}

fn weights(list: &mut List) {
    let shape = [24, 10, 3, 3];
    for dim in [Some(0), Some(1), Some(3), None] {
        list.add_shape(Quick, format!("convolution, dim {dim:?}"), &shape, |case| case.dim = dim);
    }
    list.add_shape(Quick, "matrix, dim 1", &[300, 70], |case| case.dim = Some(1));
    list.add_shape(Full, "matrix, whole", &[300, 70], |case| case.dim = None);
    list.add_shape(Full, "vector, whole", &[9001], |case| case.dim = None);
    list.add_shape(Full, "vector, one each", &[77], |case| case.dim = Some(0));
}
