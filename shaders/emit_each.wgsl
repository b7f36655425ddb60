// Writes the elements at `col` and what the norm gives of them, each by itself.

fn emit(col: u32, x: vec4<f32>, v: vec4<f32>) {
    put(col, there(col), x, epilogue(col, v));
}
