// The result is the output.

fn deliver(col: u32, y: vec4<f32>) {
    let count = there(col);
    if count > 0u {
        output_set(col, count, y);
    }
}

// Whether elements are written that are visited now.
fn is_delivered() -> bool {
    return true;
}

fn apply_all(scaled: bool) {
    if scaled {
        slow_apply();
    } else {
        fast_apply();
    }
}
