// Scales of codes that are computed: the largest magnitude of the elements that share one, then what it makes.

// Whether elements are looked at, and not yet written.
var<private> is_looking: bool;
// The bits of the largest so far: they are in the order of magnitudes, and those of NaN above all.
var<private> most: u32;
var<private> code_scale: f32;

fn deliver(col: u32, y: vec4<f32>) {
    let outliers = are_outliers(magnitude4(y));
    if is_looking {
        let sizes = select(vec4<u32>(0u), magnitude4(y), is_inside(col) & !outliers);
        let two = max(sizes.xy, sizes.zw);
        most = max(most, max(two.x, two.y));
        return;
    }
    if OUTLIERS {
        flag(col, outliers);
    }
    deliver_code(col, select(y, vec4<f32>(0.0), outliers), code_scale);
}

// Elements that are set apart, by the bits of their magnitudes: infinity is beyond any threshold, NaN is not.
fn are_outliers(sizes: vec4<u32>) -> vec4<bool> {
    let threshold = vec4<u32>(bitcast<u32>(params.code_outlier));
    return vec4<bool>(OUTLIERS) & (sizes >= threshold) & (sizes <= vec4<u32>(INFINITY));
}

// Flags the columns of those of the four elements at `col` that are the row's.
fn flag(col: u32, outliers: vec4<bool>) {
    let count = there(col);
    if outliers.x && count > 0u {
        flags_raise(col);
    }
    if outliers.y && count > 1u {
        flags_raise(col + 1u);
    }
    if outliers.z && count > 2u {
        flags_raise(col + 2u);
    }
    if outliers.w && count > 3u {
        flags_raise(col + 3u);
    }
}

fn is_delivered() -> bool {
    return !is_looking;
}

fn scale_of(bits: u32) -> f32 {
    let is_number = bits <= INFINITY;
    let bound = bitcast<u32>(params.code_bound);
    let held = bitcast<f32>(select(bits, bound, is_number && bits > bound) ^ params.zero);
    let scale = quotient4(vec4<f32>(held), params.code_largest).x;
    // Positive numbers are in the order of their bits; NaN stays.
    return bitcast<f32>(max(bitcast<u32>(scale) & MAGNITUDE, bitcast<u32>(params.code_least)));
}
