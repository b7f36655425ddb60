//! P1: every result is within the bound of its definition, whatever the method, backend and dtype.

mod common;

use normkit::check::{Effort, METHODS, cases};
use normkit::tensor::DType;

#[test]
fn published_cases_are_within_the_bound_on_every_backend() {
    for device in common::devices() {
        common::check_all(&device.stream(), common::all_cases(&device));
    }
}

#[test]
fn every_instruction_set_is_within_the_bound() {
    for (_, stream) in common::instruction_sets() {
        for method in METHODS {
            for dtype in DType::ALL {
                common::check_all(&stream, cases(method, dtype, Effort::Quick));
            }
        }
    }
}

#[test]
fn random_cases_are_within_the_bound_on_every_backend() {
    for device in common::devices() {
        common::check_random(&device);
    }
}
