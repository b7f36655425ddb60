// A row's sums from those of its leaves, added pairwise, or from what is there already and one more part.

var<private> waiting: array<RowSums, 24>;

fn leaf_at(at: u32) -> RowSums {
    return RowSums(leaves_get(at), leaves_get(at + 1u), leaves_get(at + 2u), leaves_get(at + 3u), INT(leaves_get(at + 4u)),
        INT(leaves_get(at + 5u)));
}

fn merge_leaves() -> RowSums {
    for (var index = 0u; index < params.leaves; index++) {
        var s = leaf_at(SUMS_SIZE * index);
        var level = 0u;
        while ((index >> level) & 1u) == 1u {
            s = merge_sums(waiting[level], s);
            level++;
        }
        waiting[level] = s;
    }
    var all = RowSums(REAL(0.0), REAL(0.0), REAL(0.0), REAL(0.0), INT(NONE), INT(0));
    for (var level = 0u; level < 24u; level++) {
        if ((params.leaves >> level) & 1u) == 1u {
            all = merge_sums(waiting[level], all);
        }
    }
    return all;
}

@compute @workgroup_size(GROUP)
fn merge_sums_of_rows(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    if !enter_rows(group, groups, invocation) {
        return;
    }
    var s: RowSums;
    if ACCUMULATE {
        let before = RowSums(sums_get(0u), sums_get(1u), sums_get(2u), sums_get(3u), INT(sums_get(4u)), INT(sums_get(5u)));
        s = merge_sums(before, leaf_at(0u));
    } else {
        s = merge_leaves();
    }
    sums_set(0u, s.count);
    sums_set(1u, s.s1);
    sums_set(2u, s.s2);
    sums_set(3u, s.ties);
    sums_set(4u, REAL(s.g_exponent));
    sums_set(5u, REAL(s.w_exponent));
}
