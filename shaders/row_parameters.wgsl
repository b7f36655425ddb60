// Weight and bias beside a row that is held: they are held too, for all rows that the threads take.

var<private> held_weight: array<vec4<f32>, HELD * QUADS + 1u>;
var<private> held_bias: array<vec4<f32>, HELD * QUADS + 1u>;

fn hold_parameters() {
    for (var step = 0u; step < HELD; step++) { // unrolled
        for (var quad = 0u; quad < QUADS; quad++) { // unrolled
            let col = column(0u, step, quad);
            if HAS_WEIGHT {
                held_weight[step * QUADS + quad] = full_weight(col);
            }
            if HAS_BIAS {
                held_bias[step * QUADS + quad] = bias_at(col);
            }
        }
    }
}

fn weight_of(kept: bool, col: u32, index: u32) -> vec4<f32> {
    if kept {
        return held_weight[index];
    }
    return full_weight(col);
}

// `index` is the vector's number among those that are held.
fn affine(kept: bool, col: u32, index: u32, x: vec4<f32>) -> vec4<f32> {
    var y = x;
    if HAS_WEIGHT {
        y = opaque4(y * weight_of(kept, col, index));
    }
    if HAS_BIAS && kept {
        y += held_bias[index];
    } else if HAS_BIAS {
        y += bias_at(col);
    }
    return y;
}
