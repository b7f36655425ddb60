// Moments of a leaf: one pass where the mean of its first elements is near enough to the mean of all, and a second, as
// the corrected two-pass algorithm has it, where it is not. Rare leaves whose squares would overflow or underflow are
// read again, scaled.

// What is subtracted, and in the last resort a second time.
var<private> shift: REAL;
var<private> rest: REAL;
var<private> exponent: INT;
// Subtract `rest` as well.
var<private> centred: TRUTH;
// The largest magnitude bits of each component's elements; while counting, how far before the end the first counts.
var<private> seen: vec4<u32>;
var<private> counting: bool;
var<private> first: BITS;

// Elements that the statistic sees.
fn counted(col: u32) -> vec4<bool> {
    var all = is_inside(col);
    if PREFIX {
        all = all & is_within(col, params.prefix);
    }
    if HAS_MASK {
        all = all & (magnitude4(mask_at(col)) != vec4<u32>(0u));
    }
    return all;
}

const ALL_COUNT = EXACT && !PREFIX && !HAS_MASK;

fn only_counted(col: u32, x: vec4<f32>) -> vec4<f32> {
    if ALL_COUNT {
        return x;
    }
    return select(vec4<f32>(0.0), x, counted(col));
}

fn terms(col: u32, x: vec4<f32>) -> Terms {
    if MOMENTS {
        return Terms(only_counted(col, x), only_counted(col, opaque4(x * x)));
    }
    return Terms(zero4(), only_counted(col, opaque4(degree(x))));
}

fn fast_term(i: u32, col: u32) -> Terms {
    let x = element(i, col);
    if LARGEST_ONE {
        seen = max(seen, magnitude4(only_counted(col, x)));
        return Terms(zero4(), zero4());
    }
    if MOMENTS {
        return terms(col, opaque4(x - shift));
    }
    return terms(col, x);
}

fn slow_term(col: u32) -> Terms {
    if HAS_MASK && counting {
        let counts = counted(col);
        seen = max(seen, select(vec4<u32>(0u), ~columns_of(col), counts));
        return Terms(select(vec4<f32>(0.0), vec4<f32>(1.0), counts), zero4());
    }
    let x = x_at(col);
    seen = max(seen, magnitude4(only_counted(col, x)));
    let scaled = scale_row(x, -exponent);
    if MOMENTS {
        let e = opaque4(scaled - shift);
        return terms(col, select(e, opaque4(e - rest), centred));
    }
    return terms(col, scaled);
}

fn first_element(col: u32) -> vec4<f32> {
    return scale_row(x_at(col), -exponent);
}

fn first_shift() -> REAL {
    if HAS_MASK {
        return scale(pick(first), -exponent);
    }
    return first_mean();
}

// How many elements count, and which is the first.
fn count_elements() -> REAL {
    if !HAS_MASK {
        return REAL(f32(min(max(params.prefix, leaf_start()) - leaf_start(), leaf_length())));
    }
    counting = true;
    let sums = slow_sums();
    counting = false;
    let most = fold_most(seen);
    first = select(~most, BITS(leaf_start()), most == BITS(0u));
    seen = vec4<u32>(0u);
    return sums.a;
}

// The m2 of a pass whose sum of the statistic is `sum`.
fn m2_of(sum: REAL) -> REAL {
    if LARGEST_ONE {
        return scale(bitcast<REAL>(fold_most(seen)), -exponent);
    }
    return sum;
}

// 4 p <= s, by bits, so that NaN is the largest.
fn is_near(p: REAL, s: REAL) -> TRUTH {
    return magnitude(opaque(4.0 * p)) <= magnitude(s);
}

// By bits, so that NaN is irregular too.
fn is_regular(x: REAL) -> TRUTH {
    if POWERS {
        // Powers leave the range too soon to tell.
        return TRUTH(false);
    }
    let bits = bitcast<BITS>(x);
    return (bits >= BITS(LOW)) & (bits <= BITS(HIGH));
}

fn leaf_moments() -> Moments {
    exponent = INT(0);
    seen = vec4<u32>(0u);
    counting = false;
    var count = REAL(f32(leaf_length()));
    var inv = REAL(select(1.0 / 4096.0, params.inv_last, leaf + 1u == params.leaves));
    if PREFIX || HAS_MASK {
        count = count_elements();
        inv = nearest_recip(count, REAL(0.0));
    }
    if MOMENTS {
        shift = first_shift();
    }
    let sums = fast_sums();
    var m = Moments(count, REAL(0.0), REAL(0.0), m2_of(sums.b), INT(0));
    var good = is_regular(opaque(m.m2 * inv));
    if MOMENTS {
        let c = opaque(sums.a * inv);
        let p = opaque(sums.a * c);
        m.m2 = opaque(sums.b - p);
        let mean = two_sum(shift, c);
        m.mean = mean.hi;
        m.correction = mean.lo;
        good = is_near(p, sums.b) & is_regular(opaque(m.m2 * inv));
    }
    if any_row(!good) {
        m = slow_moments(m, good, inv);
    }
    let empty = count == REAL(0.0);
    let none = Moments(count, REAL(0.0), REAL(0.0), REAL(0.0), INT(NONE));
    if PREFIX || HAS_MASK {
        m = choose(m, none, empty);
    }
    return m;
}

const SETTLED = 3u;

// From the beginning, round by round, for the rows that are not `good`; the others come by and keep what they have.
fn slow_moments(fast: Moments, good: TRUTH, inv: REAL) -> Moments {
    var m = fast;
    // 0: around the first shift; 1: around the mean that gave; 2: around the mean of that, corrected.
    var phase = select(BITS(0u), BITS(SETTLED), good);
    var scaled = TRUTH(false);
    rest = REAL(0.0);
    for (var round = 0u; round < 8u; round++) {
        centred = phase == BITS(2u);
        let sums = slow_sums();
        let most = fold_most(seen);
        let c = opaque(sums.a * inv);
        let p = opaque(sums.a * c);
        let shifted = phase < BITS(2u);
        var settles = phase < BITS(SETTLED);
        var m2 = m2_of(sums.b);
        if MOMENTS {
            settles = (shifted & is_near(p, sums.b)) | centred;
            m2 = select(opaque(sums.b - p), sums.b, centred);
            rest = select(rest, c, shifted);
            let mean = two_sum(shift, rest);
            m.mean = select(m.mean, mean.hi, settles);
            m.correction = select(m.correction, mean.lo, settles);
        }
        m.m2 = select(m.m2, m2, settles);
        let irregular = settles & !scaled & !is_regular(opaque(m2 * inv)) & (most < BITS(INFINITY));
        let of_most = exponent_of(most);
        let again = irregular & (most > BITS(0u)) & (of_most != INT(0));
        m.exponent = select(m.exponent, select(of_most, INT(NONE), most == BITS(0u)), irregular);
        scaled = scaled | irregular;
        shift = select(shift, opaque(shift + c), !settles & (phase == BITS(0u)));
        phase = select(phase + BITS(1u), select(BITS(SETTLED), BITS(0u), again), settles | (phase == BITS(SETTLED)));
        if !any_row(phase < BITS(SETTLED)) {
            break;
        }
        exponent = select(exponent, of_most, again);
        if MOMENTS {
            shift = select(shift, first_shift(), again);
        }
    }
    return m;
}
