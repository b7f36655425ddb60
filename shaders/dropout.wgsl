// Dropout by a counter: `spec::Dropout` says which elements are kept.

// The upper word of a product.
fn upper_product(a: u32, b: u32) -> u32 {
    let low_a = a & 0xffffu;
    let low_b = b & 0xffffu;
    let high_a = a >> 16u;
    let high_b = b >> 16u;
    let middle = high_a * low_b + ((low_a * low_b) >> 16u);
    let other = low_a * high_b + (middle & 0xffffu);
    return high_a * high_b + (middle >> 16u) + (other >> 16u);
}

// Philox 4x32-10 of Salmon, Moraes, Dror and Shaw.
fn philox(quad: u32) -> vec4<u32> {
    var c = vec4<u32>(quad, 0u, params.drop_upper_0, params.drop_upper_1);
    var key = vec2<u32>(params.drop_key_0, params.drop_key_1);
    for (var round = 0u; round < 10u; round++) {
        let first = vec2<u32>(upper_product(0xd2511f53u, c.x), 0xd2511f53u * c.x);
        let second = vec2<u32>(upper_product(0xcd9e8d57u, c.z), 0xcd9e8d57u * c.z);
        c = vec4<u32>(second.x ^ c.y ^ key.x, second.y, first.x ^ c.w ^ key.y, first.y);
        key += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return c;
}

// Which of the four elements at `col` are kept.
fn kept_at(col: u32) -> vec4<bool> {
    let e = element_at(col);
    if all(e == vec4<u32>(e.x & 0xfffffffcu) + vec4<u32>(0u, 1u, 2u, 3u)) {
        return philox(e.x >> 2u) >= vec4<u32>(params.drop_threshold);
    }
    var words: vec4<u32>;
    for (var i = 0u; i < 4u; i++) {
        words[i] = philox(e[i] >> 2u)[e[i] & 3u];
    }
    return words >= vec4<u32>(params.drop_threshold);
}
