// The result becomes codes under the scales of blocks of columns, one after the other: as for rows, though threads have
// other columns than those that they hold.

fn apply_all(scaled: bool) {
    let start = leaf_start();
    let end = start + leaf_length();
    // As many for each leaf, so that threads meet: leaves are whole blocks, but for the last one.
    let cols = select(params.cols, min(params.cols, LEAF), SPLIT);
    let count = (cols + params.code_block - 1u) / params.code_block;
    for (var block = 0u; block < count; block++) {
        let first = start + block * params.code_block;
        let last = min(first + params.code_block, end);
        most = 0u;
        for (var round = 0u; round < 2u; round++) {
            is_looking = round == 0u;
            for (var col = first + 4u * thread; col < last; col += 4u * THREADS) {
                slow_write(col);
            }
            if round == 0u {
                code_scale = scale_of(fold_max(most));
                if is_first() && first < end {
                    scales_set(first / params.code_block, code_scale);
                }
            }
        }
    }
}
