// Pairs of columns, in rows of which a thread has one column at a time: see `pairs_row`. What is counted is rows.

fn firsts(col: u32) -> u32 {
    return select(0u, there(col), are_first(columns_of(col)).x);
}

fn rest_at(col: u32) -> u32 {
    return col;
}

fn rest_count(col: u32) -> u32 {
    return select(0u, there(col), col >= 2u * params.pairs);
}
