// Writes the elements at `col` and delivers what becomes of what the norm gives of them, each by itself.

fn emit(col: u32, x: vec4<f32>, v: vec4<f32>) {
    if HAS_HIDDEN {
        write_hidden(col, x);
    }
    deliver(col, epilogue(col, v));
}
