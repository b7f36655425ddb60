//! What only one method has.

use super::super::data::Fill;
use super::super::mask::{Mask, MaskKind};
use super::super::method::{Given, HeadKind};
use super::super::placement::Placement;
use super::Effort::{Full, Quick};
use super::List;
use crate::norm::Cast;
use crate::spec::EpsPosition;
use crate::tensor::DType;

pub(super) fn list(list: &mut List) {
    match list.method {
        "rms_norm" => rms_norm(list),
        "batch_norm" => batch_norm(list),
        "normalize" => normalize(list),
        "qk_norm" => qk_norm(list),
        "dyt" => dyt(list),
        "eln" => eln(list),
        _ => {}
    }
}

fn rms_norm(list: &mut List) {
    for (cols, effort) in [(769, Quick), (96, Full)] {
        let mut add = |name: &str, edit: &dyn Fn(&mut super::Case)| {
            list.add(effort, format!("{name}, {cols} columns"), (9, cols), edit);
        };
        add("eps outside", &|case| case.eps_position = EpsPosition::Outside);
        add("large eps outside", &|case| (case.eps_position, case.eps) = (EpsPosition::Outside, 0.7));
        add("gemma", &|case| {
            case.cast = Cast::Gemma;
            case.weight = Some(Fill::Normal { mean: 0.0, deviation: 0.2 });
        });
        add("llama", &|case| case.cast = Cast::Llama);
        add("llama with float32 weight", &|case| {
            case.cast = Cast::Llama;
            case.weight_dtype = if case.dtype == DType::F64 { DType::F64 } else { DType::F32 };
        });
        add("partial 0.0625", &|case| case.partial = 0.0625);
        add("partial 0.5", &|case| case.partial = 0.5);
        add("partial 0.5, eps outside", &|case| {
            (case.partial, case.eps_position) = (0.5, EpsPosition::Outside);
        });
        add("partial 0.5, masked", &|case| {
            (case.partial, case.mask) = (0.5, Some(Mask::of(MaskKind::Random(0.5))));
        });
        add("weight offset", &|case| case.weight_offset = -0.25);
    }
    list.add(Full, "partial 0.7, long rows", (3, 9001), |case| case.partial = 0.7);
    for magnitude in [1e-30, 1e30] {
        if list.holds(magnitude) {
            list.add(Quick, format!("eps outside, magnitude {magnitude:e}"), (4, 515), |case| {
                case.input = Fill::Uniform(magnitude);
                case.eps_position = EpsPosition::Outside;
            });
        }
    }
    list.add(Quick, "eps outside, zero rows", (4, 515), |case| {
        case.input = Fill::Constant(0.0);
        case.eps_position = EpsPosition::Outside;
    });
    list.add(Quick, "llama, well-conditioned", (131, 768), |case| {
        (case.cast, case.well_conditioned) = (Cast::Llama, true);
    });
}

fn batch_norm(list: &mut List) {
    let shape = [4, 6, 35];
    list.add_shape(Quick, "frozen", &shape, |case| case.frozen = Some(Given::default()));
    list.add_shape(Quick, "frozen, channels-last", &shape, |case| {
        (case.frozen, case.placement) = (Some(Given::default()), Placement::ChannelsLast);
    });
    list.add_shape(Full, "frozen, one value per channel", &[1, 6], |case| {
        case.frozen = Some(Given::default())
    });
    list.add_shape(Quick, "frozen, masked", &shape, |case| {
        (case.frozen, case.mask) = (Some(Given::default()), Some(Mask::of(MaskKind::EmptyRow)));
    });
    list.add_shape(Full, "frozen, weight of each sample", &shape, |case| {
        (case.frozen, case.parameter_shape) = (Some(Given::default()), Some(vec![4, 6, 1]));
    });
    list.add_shape(Quick, "frozen, not finite", &[4, 6, 5], |case| {
        (case.frozen, case.parameter_shape) = (Some(Given::default()), Some(vec![1, 1, 5]));
        (case.input, case.grad_output) = (Fill::Special(f64::NAN), Fill::Special(f64::INFINITY));
    });
    list.add_shape(Full, "frozen, long rows", &[3, 2, 4099], |case| case.frozen = Some(Given::default()));
    for (mean, var) in [(1e4, 1.0), (0.0, 1e-12), (1e30, 1e30), (1e-30, 1e-30)] {
        list.add_shape(Full, format!("frozen, mean {mean:e}, variance {var:e}"), &shape, |case| {
            case.frozen = Some(Given { mean, var });
        });
    }
}

fn normalize(list: &mut List) {
    for (p, effort) in
        [(1.0, Quick), (1.5, Quick), (3.0, Quick), (f64::INFINITY, Quick), (7.0, Full), (64.5, Full)]
    {
        let name = |what: &str| format!("p {p}, {what}");
        let mut add = |effort, what: &str, at, fill, eps: f64| {
            list.add(effort, name(what), at, |case| (case.p, case.input, case.eps) = (p, fill, eps));
        };
        add(effort, "5 x 300", (5, 300), Fill::UNIT, 1e-12);
        add(effort, "2 x 9001", (2, 9001), Fill::UNIT, 1e-12);
        add(Full, "one column", (9, 1), Fill::UNIT, 1e-12);
        add(Full, "large eps", (5, 300), Fill::UNIT, 1e5);
        add(effort, "a zero row, eps 0", (5, 300), Fill::ZeroRow, 0.0);
        add(Full, "a zero row", (5, 300), Fill::ZeroRow, 1e-3);
        add(effort, "ties", (5, 300), Fill::Ties, 1e-12);
        add(Full, "ties in several leaves", (2, 9001), Fill::Ties, 1e-12);
        add(Full, "constant rows", (5, 300), Fill::ConstantRows(2.0), 1e-12);
        add(Full, "sorted", (5, 300), Fill::Sorted, 1e-12);
        for special in [f64::NAN, f64::INFINITY] {
            add(Full, &format!("{special} in one row"), (5, 300), Fill::Special(special), 1e-12);
        }
        for magnitude in [1e-38, 1e-30, 1e30, 3.3e38] {
            if matches!(list.dtype, DType::F16) {
                continue;
            }
            let at = if magnitude == 1e30 { effort } else { Full };
            let fill = Fill::Uniform(magnitude);
            list.add(at, name(&format!("magnitude {magnitude:e}")), (5, 300), |case| {
                (case.p, case.input, case.eps) = (p, fill, 0.0);
            });
        }
        list.add(Full, name("several leaves of different magnitude"), (2, 12_293), |case| {
            (case.p, case.input) = (p, Fill::Leaves { every: 2, scale: 1e-3, shift: 0.0 });
        });
        list.add_shape(Full, name("axis 3 of four"), &[5, 6, 7, 8], |case| (case.p, case.dim) = (p, Some(3)));
    }
}

fn qk_norm(list: &mut List) {
    for head in [HeadKind::L2, HeadKind::Layer] {
        let shape = [2, 9, 8, 64];
        list.add_shape(Quick, format!("{head:?}"), &shape, |case| case.head = head);
        list.add_shape(Quick, format!("{head:?}, zero head"), &shape, |case| {
            (case.head, case.input) = (head, Fill::ZeroRow);
        });
        list.add_shape(Full, format!("{head:?}, one scale"), &shape, |case| {
            (case.head, case.parameter_shape, case.bias) = (head, Some(vec![1]), None);
        });
        list.add_shape(Full, format!("{head:?}, a weight of each head"), &shape, |case| {
            (case.head, case.parameter_shape) = (head, Some(vec![8, 64]));
        });
        list.add_shape(Full, format!("{head:?}, sliced"), &shape, |case| {
            (case.head, case.placement) = (head, Placement::Sliced);
        });
    }
}

fn dyt(list: &mut List) {
    for (alpha, effort) in [(0.0, Quick), (-0.8, Quick), (1e-3, Full), (20.0, Quick), (1e4, Full)] {
        list.add(effort, format!("alpha {alpha}"), (9, 300), |case| case.alpha = alpha);
    }
    list.add(Quick, "saturated", (9, 300), |case| {
        case.input = Fill::Normal { mean: 0.0, deviation: 30.0 };
    });
}

fn eln(list: &mut List) {
    for (alpha, effort) in [(100.0, Quick), (1.0, Full), (1e-4, Quick), (1e4, Full)] {
        list.add(effort, format!("alpha {alpha}"), (9, 300), |case| case.alpha = alpha);
    }
    for (alpha, magnitude) in [(1e-30, 1e-10), (1e30, 1e10), (1e-30, 1.0), (1e30, 1.0), (1e30, 1e-30)] {
        if list.holds(alpha) {
            let name = format!("alpha {alpha:e}, magnitude {magnitude:e}");
            list.add(Quick, name, (9, 300), |case| {
                (case.alpha, case.input) = (alpha, Fill::Uniform(magnitude));
            });
        }
    }
}
