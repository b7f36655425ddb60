//! The order of every sum: one summation tree per problem, whatever computes it.
//!
//! Float addition is not associative, so a sum is defined only once its order is. normkit fixes that order as a
//! function of the problem (its row length; for parameter gradients its rows and columns) and of nothing else: not of
//! the instruction set, the thread count, the load width, the alignment or the number of other rows. Every backend
//! computes this tree, so every backend gets the same bits wherever its additions round correctly.
//!
//! # A row's sum
//!
//! A row of `cols` elements is cut into *leaves* of [`LEAF`] consecutive elements. Within a leaf, element `i` belongs
//! to *lane* `i % lanes`, where `lanes` is [`lanes`]`(cols)`. Each lane adds its elements in order, starting from
//! zero (at most 16). The lanes are then *halved*: lane `l` adds lane
//! `l + lanes/2`, then `l + lanes/4`, down to one value, the leaf's sum. The leaves' sums are added *pairwise*:
//! the sum of `n` values is the sum of the first `p` plus the sum of the rest, `p` being the largest power of two
//! below `n`. [`Pairwise`] does that in order of arrival with a logarithmic stack.
//!
//! A lane beyond the row's end holds zero, so a short row needs no rule of its own.
//!
//! # A parameter gradient's sum, over rows
//!
//! Each column is summed by itself. The rows are cut into *chunks* of [`chunk_rows`]`(rows, cols)` rows, a chunk into
//! *row leaves* of [`ROW_LEAF`] rows. A row leaf adds its rows in order from zero; a chunk adds its row leaves in
//! order from zero; the chunks are added pairwise. A scalar parameter's gradient is summed like that in every column,
//! and the columns then like a row.

/// Elements of a leaf.
pub const LEAF: usize = 4096;
/// Rows of a row leaf.
pub const ROW_LEAF: usize = 16;
/// Upper bound of the memory that parameter-gradient partials take, in bytes.
pub const PARTIALS_LIMIT: usize = 16 << 20;

/// Lanes that share a row: 32 up to 256 columns, 128 up to 2048, 256 beyond.
///
/// Four columns a thread, they are 8, 32 and 64 threads of a GPU; on a CPU they are 4, 16 and 32 AVX2 registers, of
/// which the kernels hold four at a time. Fewer lanes would leave a GPU's warp idle on a row of a thousand columns;
/// more cost a CPU the tree at the end: with 256 lanes instead of 128, LayerNorm of 1024 columns in cache took 0.80
/// instead of 0.69 ns an element on one AVX2 core. A lane never adds more than 16 elements in order.
pub const fn lanes(cols: usize) -> usize {
    match cols {
        0..=256 => 32,
        257..=2048 => 128,
        _ => 256,
    }
}

/// Rows of a chunk: 1/256 of the rows, within 16 and 256 and in whole row leaves, and more only where the partial
/// sums of `params` numbers of `size` bytes per column would exceed [`PARTIALS_LIMIT`].
pub fn chunk_rows(rows: usize, cols: usize, params: usize, size: usize) -> usize {
    let wanted = rows.div_ceil(256).clamp(ROW_LEAF, 256);
    let chunk_bytes = cols.saturating_mul(params.max(1)).saturating_mul(size);
    let most_chunks = (PARTIALS_LIMIT / chunk_bytes.max(1)).max(1);
    wanted.max(rows.div_ceil(most_chunks)).next_multiple_of(ROW_LEAF)
}

/// Levels of a [`Pairwise`] stack: it takes fewer than `2^LEVELS` values.
const LEVELS: usize = 40;

/// Adds values pairwise in the order they come.
#[derive(Debug, Clone)]
pub struct Pairwise<T> {
    /// `sums[k]` is the sum of a run of `2^k` values where bit `k` of `count` is set.
    sums: [T; LEVELS],
    count: u64,
}

impl<T: Copy + Default + std::ops::Add<Output = T>> Default for Pairwise<T> {
    fn default() -> Self {
        Pairwise::new(T::default())
    }
}

impl<T: Copy> Pairwise<T> {
    /// No values yet.
    pub const fn new(zero: T) -> Self {
        Pairwise { sums: [zero; LEVELS], count: 0 }
    }
}

impl<T: Copy> Pairwise<T> {
    /// Appends a value, `merge` being the sum of an earlier run and a later one.
    #[inline(always)]
    pub fn push_by(&mut self, mut value: T, merge: impl Fn(T, T) -> T) {
        let mut level = 0;
        while self.count >> level & 1 == 1 {
            value = merge(self.sums[level], value);
            level += 1;
        }
        self.sums[level] = value;
        self.count += 1;
    }

    /// The sum so far; `None` if there was no value.
    #[inline(always)]
    pub fn total_by(&self, merge: impl Fn(T, T) -> T) -> Option<T> {
        if self.count == 0 {
            return None;
        }
        let first = self.count.trailing_zeros() as usize;
        let mut total = self.sums[first];
        let mut rest = self.count & (self.count - 1);
        while rest != 0 {
            total = merge(self.sums[rest.trailing_zeros() as usize], total);
            rest &= rest - 1;
        }
        Some(total)
    }
}

impl<T: Copy + Default + std::ops::Add<Output = T>> Pairwise<T> {
    /// Appends a value.
    #[inline(always)]
    pub fn push(&mut self, value: T) {
        self.push_by(value, |earlier, later| earlier + later);
    }

    /// The sum so far; zero if there was no value.
    #[inline(always)]
    pub fn total(&self) -> T {
        self.total_by(|earlier, later| earlier + later).unwrap_or_default()
    }
}

/// The row sum written from its definition, one element at a time: what every backend must reproduce bit for bit.
#[cfg(any(test, feature = "check"))]
pub fn row_sum<T: Copy + Default + std::ops::Add<Output = T>>(row: &[T]) -> T {
    let lanes = lanes(row.len());
    let mut leaves = Pairwise::default();
    for leaf in row.chunks(LEAF) {
        let mut sums = vec![T::default(); lanes];
        for (i, &x) in leaf.iter().enumerate() {
            sums[i % lanes] = sums[i % lanes] + x;
        }
        while sums.len() > 1 {
            let upper = sums.split_off(sums.len() / 2);
            sums.iter_mut().zip(upper).for_each(|(low, high)| *low = *low + high);
        }
        leaves.push(sums[0]);
    }
    leaves.total()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pairwise rule as stated: split at the largest power of two below n.
    fn split(values: &[f32]) -> f32 {
        match values.len() {
            0 => 0.0,
            1 => values[0],
            n => {
                let p = n.next_power_of_two() / 2;
                split(&values[..p]) + split(&values[p..])
            }
        }
    }

    #[test]
    fn pairwise_is_the_stated_split() {
        let values: Vec<f32> = (1..200).map(|i| 1.0 / i as f32).collect();
        for n in 0..values.len() {
            let mut sum = Pairwise::default();
            values[..n].iter().for_each(|&v| sum.push(v));
            assert_eq!(sum.total().to_bits(), split(&values[..n]).to_bits(), "n = {n}");
        }
    }

    #[test]
    fn chunks_are_whole_leaves_and_bounded() {
        for rows in [0, 1, 15, 16, 17, 4096, 70_000, 1 << 24] {
            for cols in [1, 64, 1024, 65_537, 1 << 21] {
                let chunk = chunk_rows(rows, cols, 2, 4);
                assert_eq!(chunk % ROW_LEAF, 0);
                let chunks = rows.div_ceil(chunk);
                assert!(chunks <= 1 || chunks * cols * 8 <= PARTIALS_LIMIT, "{rows} x {cols}: {chunks}");
            }
        }
        assert_eq!(chunk_rows(4096, 1024, 2, 4), 16);
    }
}
