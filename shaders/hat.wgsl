// x_hat of elements, from the statistics of their row.

var<private> s: Statistics;

fn x_hat(x: vec4<f32>) -> vec4<f32> {
    let scaled = scale_row(x, -s.exponent);
    if MOMENTS {
        return opaque4(opaque4(opaque4(scaled - s.mean) - s.correction) * s.rstd);
    }
    return opaque4(scaled * s.rstd);
}
