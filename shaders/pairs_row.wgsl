// Pairs of columns that are `params.pairs` apart, in rows of which a thread has four neighbouring columns at a time.

// How many of the columns at `col` are first ones.
fn firsts(col: u32) -> u32 {
    return min(there(col), params.pairs - min(col, params.pairs));
}

// Where those begin that are of no pair, from `col` on, and how many of the four they are.
fn rest_at(col: u32) -> u32 {
    return max(col, 2u * params.pairs);
}

fn rest_count(col: u32) -> u32 {
    let end = col + there(col);
    return end - min(rest_at(col), end);
}
