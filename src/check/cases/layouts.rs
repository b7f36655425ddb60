//! Memory layouts: every stride pattern, apart and packed in one buffer.

use super::super::placement::Placement;
use super::Effort::{Full, Quick};
use super::List;

pub(super) fn list(list: &mut List) {
    let four: [usize; 4] = [3, 6, 4, 9];
    for placement in Placement::ALL {
        list.add(Quick, format!("{placement:?}"), (7, 769), |case| case.placement = placement);
        list.add_shape(Quick, format!("{placement:?} in one buffer"), &four, |case| {
            (case.placement, case.one_buffer) = (placement, true);
            (case.normalized_axes, case.groups) = (2, 3);
        });
        list.add_shape(Full, format!("{placement:?}, four axes"), &[3, 4, 7, 40], |case| {
            (case.placement, case.normalized_axes, case.groups) = (placement, 2, 2);
        });
        list.add(Full, format!("{placement:?} in one buffer, odd row"), (6, 515), |case| {
            (case.placement, case.one_buffer) = (placement, true);
        });
        list.add(Full, format!("{placement:?}, many rows"), (600, 5), |case| case.placement = placement);
        list.add(Full, format!("{placement:?}, long rows"), (3, 8200), |case| case.placement = placement);
    }
}
