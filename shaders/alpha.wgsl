// Four columns a thread, which are rows of the launch: what the share of the residual is the magnitude of.
fn scaled_alpha() -> vec4<f32> {
    return opaque4(alpha_at(0u) * params.factor);
}
