// A function of an element, and the gradients that it passes on of its input and of alpha.
struct Slopes {
    value: vec4<f32>,
    grad_input: vec4<f32>,
    grad_alpha: vec4<f32>,
}
