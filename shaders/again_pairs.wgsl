// As `again_each`, by pairs of columns: see `emit_pairs`.

fn again(col: u32, slow: bool) {
    let count = firsts(col);
    if count > 0u {
        let other = col + distance_of_pair();
        let first = read_again(col, slow);
        let second = read_again(other, slow);
        write(col, count, first, slow);
        write(other, count, second, slow);
    }
    let rest = rest_count(col);
    if rest > 0u {
        write(rest_at(col), rest, read_again(rest_at(col), slow), slow);
    }
}
