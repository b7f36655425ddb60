// Writes the gradients of the elements at `col`, which are read again, each by itself.

fn again(col: u32, slow: bool) {
    write(col, there(col), read_again(col, slow), slow);
}
