// Moments of a row from those of its leaves, added pairwise, or of what is there already and one more part; and the
// statistics that follow.

var<private> waiting: array<Moments, 24>;

fn leaf_at(at: u32) -> Moments {
    return Moments(leaves_get(at), leaves_get(at + 1u), leaves_get(at + 2u), leaves_get(at + 3u), INT(leaves_get(at + 4u)));
}

fn merge_leaves() -> Moments {
    for (var index = 0u; index < params.leaves; index++) {
        var m = leaf_at(MOMENTS_SIZE * index);
        var level = 0u;
        while ((index >> level) & 1u) == 1u {
            m = merge(waiting[level], m);
            level++;
        }
        waiting[level] = m;
    }
    var all = Moments(REAL(0.0), REAL(0.0), REAL(0.0), REAL(0.0), INT(NONE));
    for (var level = 0u; level < 24u; level++) {
        if ((params.leaves >> level) & 1u) == 1u {
            all = merge(waiting[level], all);
        }
    }
    return all;
}

@compute @workgroup_size(GROUP)
fn merge_moments(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    if !enter_rows(group, groups, invocation) {
        return;
    }
    var m: Moments;
    if ACCUMULATE {
        let before = Moments(moments_get(0u), moments_get(1u), moments_get(2u), moments_get(3u), INT(moments_get(4u)));
        m = merge(before, leaf_at(0u));
    } else {
        m = merge_leaves();
    }
    if HAS_MOMENTS {
        moments_set(0u, m.count);
        moments_set(1u, m.mean);
        moments_set(2u, m.correction);
        moments_set(3u, m.m2);
        moments_set(4u, REAL(m.exponent));
    }
    if HAS_STATISTICS {
        let s = finish(m);
        statistics_set(0u, s.mean);
        statistics_set(1u, s.correction);
        statistics_set(2u, s.rstd);
        statistics_set(3u, REAL(s.exponent));
    }
}
