// The result becomes codes under the scale of its row: elements are visited twice, and the first time only looked at.

fn apply_all(scaled: bool) {
    most = 0u;
    for (var round = 0u; round < 2u; round++) {
        is_looking = round == 0u;
        if scaled {
            slow_apply();
        } else {
            fast_apply();
        }
        if round == 0u {
            code_scale = scale_of(fold_max(most));
            if is_first() {
                scales_set(0u, code_scale);
            }
        }
    }
}
