// As `emit_each`, by pairs of columns: who has the first ones writes the second ones, too, having read both. The result may lie
// where they do.

// Writes what is normalized and what becomes of it, `count` elements from `col` on.
fn put(col: u32, count: u32, x: vec4<f32>, y: vec4<f32>) {
    if count > 0u {
        if HAS_HIDDEN {
            hidden_set(col, count, x);
        }
        output_set(col, count, y);
    }
}

fn emit(col: u32, x: vec4<f32>, v: vec4<f32>) {
    let count = firsts(col);
    if count > 0u {
        let other = col + distance_of_pair();
        let x_other = x_at(other);
        let v_other = normed_again(other, x_other);
        let angles = angles_at(col);
        put(col, count, x, turned(v, v_other, angles, vec4<bool>(false)));
        put(other, count, x_other, turned(v_other, v, angles, vec4<bool>(true)));
    }
    let rest = rest_at(col);
    if rest == col {
        put(col, rest_count(col), x, v);
    } else if rest_count(col) > 0u {
        let x_rest = x_at(rest);
        put(rest, rest_count(col), x_rest, normed_again(rest, x_rest));
    }
}
