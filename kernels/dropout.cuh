#pragma once
#include "params.cuh"
// Dropout by a counter: `spec::Dropout` says which elements are kept. The operand `element` has no memory: its places are the
// indices of elements.

struct Words {
    u32 at[4];

    DEVICE u32 get(u32 i) const {
        const u32 even = i & 2 ? at[2] : at[0], odd = i & 2 ? at[3] : at[1];
        return i & 1 ? odd : even;
    }
};

// Philox 4x32-10 of Salmon, Moraes, Dror and Shaw.
DEVICE Words philox(Words c, u32 key_0, u32 key_1) {
    UNROLL for (int round = 0; round < 10; ++round) {
        const u64 first = u64(0xD2511F53u) * c.at[0], second = u64(0xCD9E8D57u) * c.at[2];
        c = {{u32(second >> 32) ^ c.at[1] ^ key_0, u32(second), u32(first >> 32) ^ c.at[3] ^ key_1, u32(first)}};
        key_0 += 0x9E3779B9u;
        key_1 += 0xBB67AE85u;
    }
    return c;
}

// Which of the WIDTH columns from `col` on are kept, a bit each; all of them where there is no dropout.
template <class V> DEVICE u32 kept_columns(const Params<V>& p, const Place<V>& row, Index<V> col) {
    if constexpr (!V::element::PRESENT) {
        return ~u32(0);
    } else {
        u32 kept = 0;
        u64 quad = 0;
        Words words = {};
        UNROLL for (int k = 0; k < V::WIDTH; ++k) {
            const u64 e = u64(row.at[V::element::SLOT] + place<V>(p.inner, col + Index<V>(k)).at[V::element::SLOT]);
            // Four elements that follow each other have words of one counter.
            if (k == 0 || e >> 2 != quad) {
                quad = e >> 2;
                words = philox({{u32(quad), u32(quad >> 32), p.s.drop_upper[0], p.s.drop_upper[1]}}, p.s.drop_key[0],
                               p.s.drop_key[1]);
            }
            kept |= u32(words.get(u32(e) & 3) >= p.s.drop_threshold) << k;
        }
        return kept;
    }
}
