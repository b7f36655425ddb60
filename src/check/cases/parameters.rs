//! Parameters: absent, zero, of other dtypes, and varying along other axes than they usually do.

use super::super::data::Fill;
use super::super::placement::Placement;
use super::Effort::{Full, Quick};
use super::List;
use crate::tensor::DType;

pub(super) fn list(list: &mut List) {
    if list.method == "normalize" {
        return;
    }
    let zero = Some(Fill::Constant(0.0));
    list.add(Quick, "zero weight", (5, 200), |case| case.weight = zero);
    list.add(Quick, "no weight", (5, 200), |case| case.weight = None);
    if list.method != "weight_norm" {
        list.add(Quick, "no bias", (5, 200), |case| case.bias = None);
        list.add(Quick, "neither weight nor bias", (5, 200), |case| (case.weight, case.bias) = (None, None));
    }
    for magnitude in [1e-20, 1e20] {
        if list.holds(magnitude) {
            list.add(Full, format!("weights of {magnitude:e}"), (5, 200), |case| {
                case.weight = Some(Fill::Uniform(magnitude));
            });
        }
    }
    for weight in DType::FLOATS {
        let fits = weight != DType::F64 || list.dtype == DType::F64;
        if weight != list.dtype && fits {
            list.add(Quick, format!("{weight} weight"), (37, 201), |case| case.weight_dtype = weight);
            list.add(Full, format!("{weight} weight in one buffer"), (5, 33), |case| {
                (case.weight_dtype, case.one_buffer) = (weight, true);
                case.placement = Placement::Padded;
            });
        }
    }
    if list.has_channels() {
        // One for each sample and channel, each position, each sample, each element, one for all.
        let shapes: [&[usize]; 6] =
            [&[3, 4, 1], &[1, 1, 70], &[3, 1, 1], &[3, 4, 70], &[1, 1, 1], &[1, 4, 70]];
        for (index, shape) in shapes.into_iter().enumerate() {
            let effort = if index % 2 == 0 { Quick } else { Full };
            for placement in [Placement::Padded, Placement::ChannelsLast] {
                list.add_shape(effort, format!("weight of {shape:?}, {placement:?}"), &[3, 4, 70], |case| {
                    (case.parameter_shape, case.groups) = (Some(shape.to_vec()), 2);
                    case.placement = placement;
                });
            }
        }
        // More rows than a chunk, and rows of more than a leaf.
        list.add_shape(Full, "weight of each sample, many samples", &[700, 3, 2], |case| {
            (case.parameter_shape, case.groups) = (Some(vec![700, 3, 1]), 1);
        });
        list.add_shape(Full, "weight of each position, long rows", &[2, 2, 5000], |case| {
            (case.parameter_shape, case.groups) = (Some(vec![1, 1, 5000]), 2);
        });
    }
    if list.method == "qk_norm" {
        for (shape, effort) in [(&[8, 64][..], Quick), (&[1], Quick), (&[64], Full)] {
            list.add_shape(effort, format!("weight of {shape:?}"), &[2, 9, 8, 64], |case| {
                case.parameter_shape = Some(shape.to_vec());
            });
        }
    }
    if list.method == "weight_norm" {
        list.add_shape(Quick, "plain shape of g", &[24, 10], |case| case.parameter_shape = Some(vec![24]));
    }
}
