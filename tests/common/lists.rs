//! Cases of every method on every path, and the same ones otherwise: what is to give the same bits.

use super::{compiles, dim, dtypes, matrices};
use normkit::check::{Case, Fill, METHODS, Mask, MaskKind, Placement};
use normkit::spec::{
    Activation, Branch, Epilogue, EpsPosition, Fusion, Inner, Prologue, RotaryStyle, Statistic,
};
use normkit::tensor::DType;
use normkit::{Cast, Device};

/// Shapes on each path: a part of a vector, lanes of 32, 128 and 256, more than one leaf, many rows.
const SHAPES: [(usize, usize); 7] = [(5, 1), (5, 31), (70, 200), (40, 769), (3, 4099), (2, 9001), (1500, 24)];

/// A case of each method, dtype and shape.
pub(crate) fn varied(device: &Device) -> Vec<Case> {
    let mut list = Vec::new();
    for dtype in dtypes(device) {
        // A shader takes a software adapter seconds to compile, and most of these are one of their own: it gets a shape of
        // one leaf and one of two, and in the 16-bit dtypes every third method. CUDA's kernels compile sooner.
        let (few, single) = (compiles(device), dtype == DType::F32);
        let step = if device.backend() == "wgpu" && !single { 3 } else { 1 };
        let is_chosen = |cols: usize| !few || cols == 200 || single && cols == 4099;
        for (rows, cols) in SHAPES.into_iter().filter(|&(_, cols)| is_chosen(cols)) {
            for mut case in matrices(dtype, rows, cols).step_by(step) {
                case.name = format!("{rows} x {cols}");
                case.input = Fill::Mixed(2);
                if dtype != DType::F64 {
                    case.weight_dtype = DType::F32;
                }
                list.push(case);
            }
        }
        if few && !single {
            continue;
        }
        for (p, cols) in [(1.0, 300), (1.5, 300), (3.0, 5000), (f64::INFINITY, 5000)] {
            let mut case = Case::matrix("normalize", dtype, 6, cols);
            (case.p, case.name) = (p, format!("p {p}"));
            list.push(case);
        }
        for cols in [70, 4500] {
            let mut case = Case::matrix("layer_norm", dtype, 6, cols);
            case.mask = Some(Mask::of(MaskKind::Random(0.6)));
            case.name = format!("masked, {cols} columns");
            list.push(case);
        }
        list.extend(branches(dtype));
        list.extend(fused(dtype).into_iter().step_by(if few { 2 } else { 1 }));
        list.extend(rotated(dtype).into_iter().skip(usize::from(few)).step_by(if few { 2 } else { 1 }));
        list.extend(sandwiched(dtype));
        let mut llama = Case::matrix("rms_norm", dtype, 9, 515);
        (llama.cast, llama.partial) = (Cast::Llama, 0.5);
        list.push(llama);
        // No parameters to multiply by, and arguments on both sides of where tanh is 1.
        let mut bare = Case::matrix("dyt", dtype, 300, 130);
        (bare.weight, bare.bias, bare.alpha) = (None, None, -3.7);
        bare.input = Fill::Normal { mean: 0.0, deviation: 4.0 };
        list.push(bare);
    }
    list
}

/// Every prologue and every epilogue, in rows of one leaf and of two.
fn fused(dtype: DType) -> Vec<Case> {
    let residual = Prologue::Residual { input_scale: 0.75, residual_scale: 1.0 };
    let activation = Epilogue::Activation;
    let around = [
        ("rms_norm", 200, residual, Epilogue::None),
        ("layer_norm", 4500, residual, activation(Activation::GeluTanh)),
        ("rms_norm", 70, Prologue::Gate, Epilogue::Residual),
        ("rms_norm", 515, Prologue::None, Epilogue::Gate),
        ("layer_norm", 24, Prologue::None, activation(Activation::Silu)),
        ("group_norm", 200, Prologue::Gate, activation(Activation::Relu)),
    ];
    let case = |(method, cols, prologue, epilogue)| {
        let mut case = Case::matrix(method, dtype, 40, cols);
        (case.fusion, case.hidden) = (Fusion { prologue, epilogue, ..Fusion::default() }, true);
        if dtype != DType::F64 {
            case.other_dtype = DType::F32;
        }
        case.name = format!("{cols} columns, {prologue:?}, {epilogue:?}");
        case
    };
    around.map(case).into()
}

/// Residuals whose branch is shifted and scaled: parameters of columns, of channels in rows, and of rows.
pub(crate) fn branches(dtype: DType) -> Vec<Case> {
    let prologue = Prologue::Residual { input_scale: 0.75, residual_scale: 1.0 };
    let all = [
        ("rms_norm", 200),
        ("layer_norm", 4500),
        ("group_norm", 515),
        ("batch_norm", 70),
        ("layer_norm_2d", 24),
    ];
    let case = |(method, cols)| {
        let mut case = Case::matrix(method, dtype, 40, cols);
        let branch = Branch { bias: true, scale: true };
        (case.fusion, case.hidden) = (Fusion { prologue, branch, ..Fusion::default() }, true);
        case.name = format!("{cols} columns, branch");
        case
    };
    all.map(case).into()
}

/// A norm of the branch before a residual, and one of the sum.
fn sandwiched(dtype: DType) -> Vec<Case> {
    let all = [
        ("rms_norm", 200, Statistic::MeanSquare),
        ("layer_norm", 515, Statistic::MeanSquare),
        ("layer_norm", 24, Statistic::Moments),
        ("rms_norm", 4500, Statistic::Moments),
    ];
    all.map(|(method, cols, statistic)| sandwich(Case::matrix(method, dtype, 40, cols), statistic)).into()
}

/// The case with a norm of the branch by `statistic`.
pub(crate) fn sandwich(mut case: Case, statistic: Statistic) -> Case {
    let cols = *case.shape.last().expect("rows");
    let inner = Inner {
        statistic,
        prefix: cols,
        eps: 1e-3,
        eps_position: EpsPosition::Inside,
        weight_offset: 1.0,
        round_normalized: false,
    };
    let prologue = Prologue::Residual { input_scale: 1.0, residual_scale: 1.0 };
    case.fusion = Fusion { prologue, inner: Some(inner), ..Fusion::default() };
    case.hidden = true;
    if case.dtype != DType::F64 {
        case.other_dtype = DType::F32;
    }
    case.name = format!("{cols} columns, {statistic:?} of the branch");
    case
}

/// Rotary embeddings of heads, and of rows of several leaves.
fn rotated(dtype: DType) -> Vec<Case> {
    use RotaryStyle::{HalfSplit, Interleaved};
    let all = [
        ("rms_norm", 200, HalfSplit, 200, Prologue::None),
        ("qk_norm", 128, HalfSplit, 64, Prologue::None),
        ("qk_norm", 72, Interleaved, 72, Prologue::None),
        ("rms_norm", 70, HalfSplit, 70, Prologue::Residual { input_scale: 0.75, residual_scale: 1.0 }),
        ("layer_norm", 515, Interleaved, 504, Prologue::Gate),
        ("layer_norm", 4500, HalfSplit, 4500, Prologue::None),
    ];
    let case = |(method, cols, style, dims, prologue)| {
        let mut case = Case::matrix(method, dtype, 40, cols);
        case.fusion = Fusion { prologue, epilogue: Epilogue::Rotary { style, dims }, ..Fusion::default() };
        case.hidden = true;
        // Of 64 bits, of 32, or none.
        case.positions = [Some(true), Some(false), None][dims % 3];
        if dtype != DType::F64 {
            case.other_dtype = DType::F32;
        }
        case.name = format!("{cols} columns, {style:?} of {dims}, {prologue:?}");
        case
    };
    all.map(case).into()
}

/// Some rows of a case: row `chosen` alone, with the one before it, and with all that follow.
pub(crate) fn parts_around(case: &Case, chosen: usize) -> Vec<Case> {
    let (rows, cols) = dim(case);
    let part = |(first_row, count)| {
        let shape = Case::matrix(case.method, case.dtype, count, cols).shape;
        Case { shape, first_row, ..case.clone() }
    };
    [(chosen, 1), (chosen.saturating_sub(1), 2), (chosen, rows - chosen)].map(part).into()
}

/// The case elsewhere in memory: in every placement, and where kernels are compiled in a misaligned and a strided one.
pub(crate) fn moved(device: &Device, case: &Case) -> Vec<Case> {
    let (placements, buffers) = match device.backend() {
        "cpu" => (&Placement::ALL[..], &[false, true][..]),
        _ => (&[Placement::Offset(1), Placement::Sliced][..], &[true][..]),
    };
    let mut list = Vec::new();
    for &placement in placements.iter().filter(|&&placement| placement != Placement::Expanded) {
        list.extend(buffers.iter().map(|&one_buffer| Case { placement, one_buffer, ..case.clone() }));
    }
    list
}

/// Rows around each vector width and around the tree's changes at 256 and 4096, in every placement.
pub(crate) fn row_lengths(device: &Device) -> Vec<Case> {
    let lengths: Vec<usize> = match device.backend() {
        "cpu" => (1..=70).chain(250..=262).chain([4095, 4096, 4097, 8191]).collect(),
        _ => vec![1, 3, 33, 257, 4097],
    };
    // A software adapter compiles a shader for nearly each case, so it gets one placement of each.
    let each = if device.backend() == "cpu" { 1 } else { 3 };
    let list = lengths.into_iter().flat_map(|cols| {
        let dtypes = [DType::F32, DType::BF16, DType::F16].into_iter().cycle();
        METHODS.iter().zip(dtypes).flat_map(move |(method, dtype)| {
            [Placement::Offset(1), Placement::ChannelsLast, Placement::Sliced].map(|placement| {
                let mut case = Case::matrix(method, dtype, 3, cols);
                (case.placement, case.one_buffer) = (placement, true);
                case.name = format!("{cols} columns, {placement:?}");
                case
            })
        })
    });
    list.step_by(each).collect()
}
