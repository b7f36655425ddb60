//! Random cases of any method.

use normkit::Cast;
use normkit::Device;
use normkit::check::{ANY_SPEC, Case, Fill, Given, HeadKind, Mask, MaskKind, Placement};
use normkit::spec::{
    Activation, Affine, Branch, Dropout, Epilogue, EpsPosition, Function, Fusion, Norm, Pointwise, Prologue,
    Spec, Statistic,
};
use normkit::tensor::{DType, Dims};
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

/// A random value for the input or the gradient of the output, within float32's range.
fn any_fill() -> impl Strategy<Value = Fill> {
    prop_oneof![
        4 => Just(Fill::UNIT),
        1 => Just(Fill::Normal { mean: 100.0, deviation: 1.0 }),
        1 => (-3..=3).prop_map(|decade| Fill::Uniform(10f64.powi(decade))),
        1 => Just(Fill::ConstantRows(3.0)),
        1 => Just(Fill::Constant(0.0)),
        1 => Just(Fill::Mixed(2)),
        1 => (1usize..50).prop_map(|first| Fill::Outliers { first, value: 1000.0 }),
        1 => select(vec![Fill::Sorted, Fill::Step(1000.0), Fill::Ties, Fill::ZeroRow]),
        1 => select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY]).prop_map(Fill::Special),
    ]
}

/// Sizes of one to four axes, of which few are long.
fn any_shape() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        (0usize..40, 1usize..900).prop_map(|(rows, cols)| vec![rows, cols]),
        (1usize..6, 1usize..24, 1usize..200).prop_map(|(n, c, l)| vec![n, c, l]),
        proptest::collection::vec(1usize..9, 1..=4),
        // Rows of more than a leaf, as far as the method has them.
        (1usize..4, 4000usize..9000).prop_map(|(rows, cols)| vec![rows, cols]),
    ]
}

/// A mask for an input of this shape: its own, or one that is repeated along some axes.
fn any_mask(shape: Vec<usize>) -> impl Strategy<Value = Option<Mask>> {
    let kinds = vec![
        MaskKind::All,
        MaskKind::Random(0.5),
        MaskKind::Random(0.05),
        MaskKind::EmptyRow,
        MaskKind::One,
        MaskKind::Lengths,
    ];
    let rank = shape.len();
    (select(kinds), proptest::collection::vec(any::<bool>(), rank), 0..4u8).prop_map(
        move |(kind, repeated, choice)| match choice {
            0 => Some(Mask::of(kind)),
            1 => {
                let size = |(&size, &repeated): (&usize, &bool)| if repeated { 1 } else { size };
                Some(Mask::broadcast(kind, &shape.iter().zip(&repeated).map(size).collect::<Vec<_>>()))
            }
            _ => None,
        },
    )
}

fn any_statistic() -> impl Strategy<Value = (Statistic, EpsPosition)> {
    let p = select(vec![1.0, 1.5, 2.0, 3.0, 4.0, f64::INFINITY]);
    prop_oneof![
        Just((Statistic::Moments, EpsPosition::Inside)),
        Just((Statistic::MeanSquare, EpsPosition::Inside)),
        Just((Statistic::MeanSquare, EpsPosition::Outside)),
        p.prop_map(|p| (Statistic::Norm(p), EpsPosition::Floor)),
    ]
}

/// Any spec of this shape.
fn any_spec(shape: Vec<usize>) -> impl Strategy<Value = Spec> {
    let axes: Vec<usize> = (0..shape.len()).collect();
    let some = || subsequence(axes.clone(), 0..=axes.len());
    let norm = (some(), some(), any_statistic(), any::<Index>(), any::<[bool; 3]>());
    let functions = (some(), select(vec![Function::Tanh, Function::InverseSquareRoot]));
    let sizes = shape.clone();
    let along = move |axes: Vec<usize>| Affine {
        shape: axes.iter().map(|&axis| sizes[axis]).collect(),
        axes: Dims::from_vec(axes),
    };
    let (of_norm, of_function) = (along.clone(), along);
    let (shape_1, shape_2) = (shape.clone(), shape);
    prop_oneof![
        4 => norm.prop_map(move |(reduced, affine, (statistic, eps_position), prefix, flags)| {
            let cols: usize = reduced.iter().map(|&axis| shape_1[axis]).product();
            let partial = flags[0] && statistic == Statistic::MeanSquare;
            Spec::Norm(Norm {
                shape: Dims::from_slice(&shape_1),
                reduced: Dims::from_vec(reduced),
                affine: of_norm(affine),
                statistic,
                prefix: if partial { 1 + prefix.index(cols.max(1)) } else { cols },
                eps: 1e-3,
                eps_position,
                weight_offset: if flags[1] { 1.0 } else { 0.0 },
                round_normalized: flags[2],
                frozen: false,
                fusion: Fusion::default(),
            })
        }),
        1 => functions.prop_map(move |(affine, function)| {
            Spec::Pointwise(Pointwise {
                shape: Dims::from_slice(&shape_2),
                affine: of_function(affine),
                function,
            })
        }),
    ]
}

/// A random case of a method for a device: shape, dtypes, values, options and memory layout.
pub(super) fn any_case(device: &Device, method: &'static str) -> impl Strategy<Value = Case> + use<> {
    let (dtypes, compiles): (Vec<DType>, bool) = (super::dtypes(device).collect(), super::compiles(device));
    any_shape().prop_flat_map(move |shape| {
        let what = (select(dtypes.clone()), select(dtypes.clone()));
        let values = (any_fill(), any_fill(), any::<bool>(), any::<bool>(), any::<u64>());
        let options = (
            select(vec![1e-5, 1e-12, 1e-3, 0.5]),
            select(vec![EpsPosition::Inside, EpsPosition::Outside]),
            select(vec![Cast::Fp32, Cast::Llama, Cast::Gemma]),
            select(vec![1.0, 0.5, 0.9]),
            select(vec![0.5, -0.8, 3.0]),
        );
        let axes = (
            any::<Index>(),
            any::<bool>(),
            select(vec![1.0, 1.5, 2.0, 3.0, f64::INFINITY]),
            select(vec![HeadKind::L2, HeadKind::Rms, HeadKind::Layer]),
        );
        let memory = (select(&Placement::ALL[..]), any::<bool>());
        // A free spec has at least one element in a row.
        let solid: Vec<usize> = shape.iter().map(|&size| size.max(1)).collect();
        let own = (any_mask(solid.clone()), any_spec(solid));
        let parameters = (proptest::collection::vec(any::<bool>(), shape.len()), any::<bool>());
        (what, values, options, axes, memory, own, parameters).prop_map(
            move |((dtype, weight_dtype), values, options, axes, memory, (mask, spec), (vary, own))| {
                let mut case = Case::new(method, dtype, &shape);
                if method == ANY_SPEC {
                    case = Case::of_spec(&spec, dtype);
                }
                if weight_dtype != DType::F64 || dtype == DType::F64 {
                    case.weight_dtype = weight_dtype;
                }
                (case.input, case.grad_output) = (values.0, values.1);
                case.weight = case.weight.filter(|_| values.2);
                case.bias = case.bias.filter(|_| values.3);
                (case.eps, case.eps_position, case.cast, case.partial, case.alpha) = options;
                (case.placement, case.one_buffer) = memory;
                case.seed = values.4;
                case.mask = mask.filter(|_| case.takes_mask());
                fit(&mut case, axes, own.then_some(vary));
                if !compiles && case.method != ANY_SPEC && case.takes_fusion() {
                    surround(&mut case, values.4);
                }
                case.name = "random".into();
                case
            },
        )
    })
}

/// Something around the norm in one case of three, by the bits of a random number.
fn surround(case: &mut Case, bits: u64) {
    const PROLOGUES: [Prologue; 4] = [
        Prologue::None,
        Prologue::Residual { input_scale: 1.0, residual_scale: 1.0 },
        Prologue::Residual { input_scale: -0.7, residual_scale: 2.5 },
        Prologue::Gate,
    ];
    const EPILOGUES: [Epilogue; 7] = [
        Epilogue::None,
        Epilogue::Activation(Activation::Relu),
        Epilogue::Activation(Activation::Silu),
        Epilogue::Activation(Activation::Gelu),
        Epilogue::Activation(Activation::GeluTanh),
        Epilogue::Residual,
        Epilogue::Gate,
    ];
    if !bits.is_multiple_of(3) {
        return;
    }
    let one_of = |shift: u32, count: usize| (bits >> shift) as usize % count;
    let (prologue, epilogue) = (PROLOGUES[one_of(8, 4)], EPILOGUES[one_of(16, 7)]);
    let is_sum = matches!(prologue, Prologue::Residual { .. });
    let dropout = Dropout { probability: 0.25, seed: bits, offset: bits >> 32 };
    let dropout = (is_sum && one_of(24, 2) == 0).then_some(dropout);
    let branch = Branch { bias: is_sum && one_of(36, 3) == 0, scale: is_sum && one_of(40, 3) == 0 };
    case.fusion = Fusion { prologue, epilogue, dropout, branch, ..Fusion::default() };
    case.hidden = one_of(28, 2) == 0;
    if case.dtype != DType::F64 && one_of(32, 2) == 0 {
        case.other_dtype = DType::F32;
    }
}

/// What the method asks of its shape and options.
fn fit(case: &mut Case, axes: (Index, bool, f64, HeadKind), vary: Option<Vec<bool>>) {
    let (axis, choice) = (axes.0.index(case.shape.len()), axes.1);
    (case.p, case.head) = (axes.2, axes.3);
    case.dim = if case.method == "weight_norm" && choice { None } else { Some(axis) };
    case.normalized_axes = case.shape.len() - axis;
    // Only numbers of rows, the first axis where others follow, may be zero.
    if case.method != ANY_SPEC {
        case.shape.iter_mut().skip(1).for_each(|size| *size = (*size).max(1));
    }
    let rank = match case.method {
        "batch_norm" | "group_norm" | "layer_norm_2d" | "qk_norm" => 2,
        "instance_norm" => 3,
        _ => 1,
    };
    while case.shape.len() < rank {
        case.shape.push(3);
        case.mask = None;
    }
    match case.method {
        "batch_norm" => {
            case.shape[0] = case.shape[0].max(1);
            let values = case.shape[0] * case.shape[2..].iter().product::<usize>();
            if choice || values < 2 {
                case.frozen = Some(Given::default());
            }
            case.mask = case.mask.take().filter(|mask| mask.shape.is_none());
        }
        "group_norm" => {
            let divisors = |n: usize| (1..=n).filter(move |d| n.is_multiple_of(*d));
            let all: Vec<usize> = divisors(case.shape[1]).collect();
            case.groups = all[axes.0.index(all.len())];
        }
        "eln" => case.alpha = case.alpha.abs(),
        "weight_norm" | "normalize" => case.shape[0] = case.shape[0].max(1),
        "layer_norm" | "rms_norm" | "dyt" if axis == 0 => case.shape[0] = case.shape[0].max(1),
        _ => {}
    }
    if case.method == "eln" && axis == 0 {
        case.shape[0] = case.shape[0].max(1);
    }
    // A share of a short row may be nothing of it.
    let normalized: usize = case.shape[axis.min(case.shape.len() - 1)..].iter().product();
    if normalized < 2 {
        case.partial = 1.0;
    }
    let varies = matches!(case.method, "batch_norm" | "group_norm" | "instance_norm" | "layer_norm_2d");
    if let Some(vary) = vary.filter(|vary| varies && vary.len() == case.shape.len()) {
        let size = |(&size, &vary): (&usize, &bool)| if vary { size } else { 1 };
        case.parameter_shape = Some(case.shape.iter().zip(&vary).map(size).collect());
    }
    // A mask that broadcasts has sizes of the shape that it was drawn for.
    if case.mask.as_ref().is_some_and(|mask| mask.shape.is_some()) && case.shape.contains(&0) {
        case.mask = None;
    }
}
