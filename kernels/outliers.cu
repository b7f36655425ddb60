// The second step of codes that outliers are set apart from: what is multiplied apart is no part of the product of codes.
#pragma once
#include "params.cuh"

// Codes in columns that are flagged become 0. A block a column, whose rows are the columns of this problem.
template <class V> DEVICE void zero_columns(const Params<V>& p) {
    using Codes = typename V::output;
    using Flags = typename V::flags;
    using I = Index<V>;
    const Place<V> column = place_of_row(p, u64(p.s.first_row) + block_of(p));
    const i32* flag = reinterpret_cast<const i32*>(p.at[Flags::SLOT]) + column.at[Flags::SLOT];
    if (device::load<i32, 1>(flag).at[0] == 0) {
        return;
    }
    for (I row = device::thread(); row < I(p.s.cols); row += device::threads()) {
        device::store<typename Codes::T, 1>(element<V, Codes>(p, column, row), {});
    }
}
