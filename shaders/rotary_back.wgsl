// The gradient of a rotary embedding: see `epilogue_rotary`, and `epilogue_gate`.

struct OfOutput {
    value: vec4<f32>,
    after: vec4<f32>,
}

// The gradient is rotated back. Its other columns are read wherever they are.
fn of_output(col: u32, g: vec4<f32>, v: vec4<f32>) -> OfOutput {
    let j = in_head(col);
    let first = are_first(j);
    let second = are_second(j);
    if !any(first | second) {
        return OfOutput(g, g);
    }
    var other = g;
    if WITHIN {
        other = g.yxwz;
    } else {
        if any(first) {
            other = select(other, grad_output_at(col + distance_of_pair()), first);
        }
        if any(second) {
            other = select(other, grad_output_at(col - distance_of_pair()), second);
        }
    }
    return OfOutput(select(g, turned(g, other, angles_at(col), first), first | second), g);
}
