// The functions that the pointwise kernels call, for tanh(alpha * x).

fn value(alpha: f32, x: vec4<f32>) -> vec4<f32> {
    return tanh_forward(opaque4(alpha * x));
}

// What stays the same from row to row.
fn begin_slopes(alpha: f32, weight: vec4<f32>) -> vec4<f32> {
    return opaque4(weight * alpha);
}

fn slopes(alpha: f32, of_column: vec4<f32>, weight: vec4<f32>, x: vec4<f32>, g: vec4<f32>) -> Slopes {
    let z = two_prod4(vec4<f32>(alpha), x);
    let s = tanh_backward(z.hi, z.lo);
    let of_input = opaque4(opaque4(g * of_column) * s.h);
    let of_alpha = opaque4(opaque4(g * weight) * opaque4(s.h * x));
    return Slopes(
        s.t,
        opaque4(opaque4(of_input * s.power) * s.rest),
        opaque4(opaque4(of_alpha * s.power) * s.rest),
    );
}
