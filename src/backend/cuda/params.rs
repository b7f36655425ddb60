//! What a launch is told, as the bytes of `Params` or `Together` in `kernels/params.cuh`.

use crate::tensor::DType;
use smallvec::SmallVec;

/// The scalars of a launch. Those of the compute type have been rounded to it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Scalars {
    pub(super) first_row: i64,
    pub(super) rows: i64,
    pub(super) cols: i64,
    pub(super) prefix: i64,
    pub(super) leaves: i64,
    pub(super) chunk_rows: i64,
    pub(super) chunks: i64,
    pub(super) partial_cols: i64,
    pub(super) leaf_base: i64,
    pub(super) turns: i64,
    pub(super) pairs: i64,
    pub(super) head: i64,
    /// Rows of a rotary embedding's tables to choose from, and how far they are apart in either.
    pub(super) choice: [i64; 3],
    /// Columns that share a scale of codes.
    pub(super) block: i64,
    /// Columns that the statistic of a branch's norm sees.
    pub(super) inner_prefix: i64,
    pub(super) eps_exponent: i32,
    pub(super) parameter: u32,
    /// Dropout's key, the upper half of its counter, and the least word of an element that is kept.
    pub(super) dropout: [u32; 5],
    pub(super) inner_eps_exponent: i32,
    pub(super) inv_last: f64,
    pub(super) eps: f64,
    pub(super) eps_rstd: f64,
    pub(super) weight_offset: f64,
    /// A number and what is missing to it.
    pub(super) power: [f64; 2],
    pub(super) inv_power: [f64; 2],
    pub(super) slope_power: [f64; 2],
    pub(super) factor: f64,
    pub(super) rest: f64,
    /// What a prologue multiplies the input and the other operand by.
    pub(super) scales: [f64; 2],
    /// The scale of codes, what bounds one, the code of the largest magnitude, and the least scale.
    pub(super) codes: [f64; 4],
    /// Of the norm of a branch: eps, the divisor's reciprocal where the statistic is zero, and the weight's offset.
    pub(super) inner: [f64; 3],
    /// The least magnitude that is set apart from codes.
    pub(super) outlier: f64,
}

/// An axis of the index space: its size, and each operand's stride along it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    pub(super) size: i64,
    pub(super) strides: Vec<i64>,
}

impl Axis {
    /// One index, for tables that are longer than the problem's axes.
    pub(super) fn single(slots: usize) -> Self {
        Axis { size: 1, strides: vec![0; slots] }
    }
}

/// What a launch is told of a problem.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Told {
    pub(super) scalars: Scalars,
    /// Of the operands' elements of index zero.
    pub(super) addresses: SmallVec<[u64; 8]>,
    pub(super) outer: Vec<Axis>,
    pub(super) inner: Vec<Axis>,
    /// The blocks that work on it.
    pub(super) blocks: usize,
}

impl Told {
    /// Bytes that it takes beside other problems, with tables of so many axes.
    pub(super) fn bytes(&self, compute: DType, (outer, inner): (u32, u32)) -> usize {
        let numbers = self.addresses.len() + (outer + inner) as usize * (1 + self.addresses.len());
        8 + SCALARS + NUMBERS * compute.size() + 8 * numbers
    }

    /// The lengths of its tables.
    fn axes(&self) -> (u32, u32) {
        (self.outer.len() as u32, self.inner.len() as u32)
    }
}

/// Bytes of the scalars that are whole numbers, and how many are of the compute type.
const SCALARS: usize = 168;
const NUMBERS: usize = 22;

/// A kernel's argument, which has to lie as the C++ struct does: every member at a multiple of its own size.
pub(super) fn bytes(compute: DType, problems: &[Told]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(problems.iter().map(|told| told.bytes(compute, told.axes())).sum());
    let mut first_block = 0u64;
    for told in problems {
        if problems.len() > 1 {
            bytes.extend_from_slice(&first_block.to_ne_bytes());
            first_block += told.blocks as u64;
        }
        append(&mut bytes, compute, told);
    }
    bytes
}

/// Appends what is told of a problem.
fn append(bytes: &mut Vec<u8>, compute: DType, told: &Told) {
    let Told { scalars, addresses, outer, inner, .. } = told;
    let Scalars { first_row, rows, cols, prefix, leaves, chunk_rows, chunks, .. } = *scalars;
    let Scalars { partial_cols, leaf_base, turns, pairs, head, choice, block, inner_prefix, .. } = *scalars;
    let Scalars { power, inv_power, slope_power, scales, codes, inner: of_inner, .. } = *scalars;
    let counts = [first_row, rows, cols, prefix, leaves, chunk_rows, chunks, partial_cols, leaf_base, turns];
    for number in counts.into_iter().chain([pairs, head]).chain(choice).chain([block, inner_prefix]) {
        bytes.extend_from_slice(&number.to_ne_bytes());
    }
    bytes.extend_from_slice(&scalars.eps_exponent.to_ne_bytes());
    bytes.extend_from_slice(&scalars.parameter.to_ne_bytes());
    for word in scalars.dropout {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(&scalars.inner_eps_exponent.to_ne_bytes());
    let numbers: [f64; NUMBERS] = [
        scalars.inv_last,
        scalars.eps,
        scalars.eps_rstd,
        scalars.weight_offset,
        power[0],
        power[1],
        inv_power[0],
        inv_power[1],
        slope_power[0],
        slope_power[1],
        scalars.factor,
        scalars.rest,
        scales[0],
        scales[1],
        codes[0],
        codes[1],
        codes[2],
        codes[3],
        of_inner[0],
        of_inner[1],
        of_inner[2],
        scalars.outlier,
    ];
    for number in numbers {
        match compute {
            DType::F64 => bytes.extend_from_slice(&number.to_ne_bytes()),
            _ => bytes.extend_from_slice(&(number as f32).to_ne_bytes()),
        }
    }
    for address in addresses {
        bytes.extend_from_slice(&address.to_ne_bytes());
    }
    for axis in outer.iter().chain(inner) {
        bytes.extend_from_slice(&axis.size.to_ne_bytes());
        for stride in &axis.strides {
            bytes.extend_from_slice(&stride.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number_at(bytes: &[u8], at: usize) -> i64 {
        i64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    /// The offsets are those that `kernels/params.cuh` has on a machine with natural alignment.
    #[test]
    fn members_lie_where_the_kernel_reads_them() {
        let scalars = Scalars {
            first_row: 1,
            turns: 10,
            head: 12,
            inner_prefix: 16,
            choice: [13, 14, 15],
            eps_exponent: -3,
            parameter: 2,
            inv_last: 0.5,
            scales: [2.0, 0.25],
            inner: [0.125, 0.0, 0.0],
            inner_eps_exponent: -7,
            ..Scalars::default()
        };
        let axis = |size| Axis { size, strides: vec![size + 1, size + 2, size + 3] };
        for (compute, size) in [(DType::F32, 4), (DType::F64, 8)] {
            let told = Told {
                scalars,
                addresses: SmallVec::from_slice(&[11, 12, 13]),
                outer: vec![axis(20)],
                inner: vec![axis(30), axis(40)],
                blocks: 7,
            };
            let all = bytes(compute, std::slice::from_ref(&told));
            let float_at = |at: usize| match compute {
                DType::F64 => f64::from_ne_bytes(all[at..at + 8].try_into().unwrap()),
                _ => f64::from(f32::from_ne_bytes(all[at..at + 4].try_into().unwrap())),
            };
            assert_eq!((number_at(&all, 72), number_at(&all, 88), number_at(&all, 112)), (10, 12, 15));
            assert_eq!(number_at(&all, 128), 16);
            assert_eq!(all[136..144], [(-3i32).to_ne_bytes(), 2u32.to_ne_bytes()].concat());
            assert_eq!((float_at(168), float_at(168 + 13 * size)), (0.5, 0.25));
            assert_eq!(all[164..168], (-7i32).to_ne_bytes());
            assert_eq!(float_at(168 + 18 * size), 0.125);
            let addresses = 168 + 22 * size;
            assert_eq!(addresses, if size == 4 { 256 } else { 344 });
            assert_eq!((number_at(&all, addresses), number_at(&all, addresses + 16)), (11, 13));
            let outer = addresses + 24;
            assert_eq!((number_at(&all, outer), number_at(&all, outer + 24)), (20, 23));
            assert_eq!((number_at(&all, outer + 32), number_at(&all, outer + 64)), (30, 40));
            assert_eq!(all.len(), outer + 96);
            // Of several problems, each has the number of its first block before it.
            let both = bytes(compute, &[told.clone(), told.clone()]);
            assert_eq!(both.len(), 2 * told.bytes(compute, (1, 2)));
            assert_eq!(both, [&0u64.to_ne_bytes(), &all[..], &7u64.to_ne_bytes(), &all[..]].concat());
        }
    }
}
