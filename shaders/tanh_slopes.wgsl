// The functions that the pointwise kernels call, for tanh(alpha * x).

fn value(alpha: f32, x: vec4<f32>) -> vec4<f32> {
    if SHORT {
        return tanh_short(opaque4(alpha * x));
    }
    let z = scaled_input(alpha, x);
    return tanh_forward(z.hi, z.lo);
}

// What stays the same from row to row.
fn begin_slopes(alpha: f32, weight: vec4<f32>) -> Two4 {
    return two_prod4(weight, vec4<f32>(alpha));
}

fn slopes(alpha: f32, b: Two4, weight: vec4<f32>, x: vec4<f32>, g: vec4<f32>) -> Slopes {
    let z = scaled_input(alpha, x);
    let s = tanh_backward(z.hi, z.lo);
    let slope = opaque4(opaque4(s.h * x) + opaque4(s.hl * x));
    let t = two_prod4(b.hi, s.h);
    let tl = opaque4(t.lo + opaque4(opaque4(b.hi * s.hl) + opaque4(b.lo * s.h)));
    let high = opaque4(g * t.hi);
    let low = opaque4(g * tl);
    // An infinite gradient has no low part to add: it would only meet the high part as inf - inf.
    let sum = select(high, opaque4(high + low), magnitude4(low) < vec4<u32>(INFINITY));
    return Slopes(s.t, times_power(sum, s.k), times_power(opaque4(opaque4(g * weight) * slope), s.k));
}
