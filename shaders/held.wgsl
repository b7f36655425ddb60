// What moments are taken of, which is in registers where the row fits.

fn element(i: u32, col: u32) -> vec4<f32> {
    if HELD > 0u {
        return held[i];
    }
    return x_at(col);
}

fn first_held() -> vec4<f32> {
    return scale_row(held[0], -exponent);
}
