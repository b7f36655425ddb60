// The result becomes codes under a scale that is given.

fn deliver(col: u32, y: vec4<f32>) {
    deliver_code(col, y, params.code_scale);
}

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
