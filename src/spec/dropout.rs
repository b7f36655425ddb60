//! Dropout by a counter: which elements are kept is a function of their index, so no mask is stored.

use crate::{Error, Result};

/// Elements of the input are left out at random before a residual is added to it.
///
/// ```text
/// t_e = x_e * (input_scale / (1 - probability))     where element e is kept, else 0
/// ```
///
/// Element e, counted in the row-major order of the input's shape, is kept where word `e % 4` of Philox 4x32-10 (Salmon, Moraes,
/// Dror, Shaw 2011) at the counter `(e / 4, offset)` under the key `seed`, each of two words, the lower one first, is at
/// least `probability * 2^32`, rounded. The same call gives the same mask on every backend and in the backward pass. Calls with one seed
/// have independent masks where their offsets differ.
///
/// ```
/// use normkit::spec::Dropout;
/// let dropout = Dropout { probability: 0.25, seed: 7, offset: 0 };
/// let kept = (0..10_000).filter(|&element| dropout.keeps(element)).count();
/// assert!((7300..7700).contains(&kept));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Of an element to be left out: from 0 up, below 1.
    pub probability: f64,
    /// Philox's key.
    pub seed: u64,
    /// The upper half of its counter.
    pub offset: u64,
}

/// The lower and the upper word.
const fn words(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

impl Dropout {
    /// An error that names what makes no sense.
    pub fn check(&self) -> Result<()> {
        if (0.0..1.0).contains(&self.probability) {
            return Ok(());
        }
        Err(Error::argument("probability", "a number from 0 up, below 1", self.probability))
    }

    /// The least word of an element that is kept.
    pub fn threshold(&self) -> u32 {
        // Above the largest word only by rounding.
        (self.probability * 2f64.powi(32)).round_ties_even().min(f64::from(u32::MAX)) as u32
    }

    /// What elements that are kept are multiplied by.
    pub fn factor(&self) -> f64 {
        1.0 / (1.0 - self.probability)
    }

    /// Philox's key.
    pub const fn key(&self) -> [u32; 2] {
        words(self.seed)
    }

    /// The upper half of its counter.
    pub const fn upper(&self) -> [u32; 2] {
        words(self.offset)
    }

    /// Whether an element is kept.
    pub fn keeps(&self, element: u64) -> bool {
        let ([low, high], [third, fourth]) = (words(element / 4), self.upper());
        philox([low, high, third, fourth], self.key())[(element % 4) as usize] >= self.threshold()
    }
}

/// What Philox multiplies by, and what it adds to its key.
pub(crate) const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
pub(crate) const STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Philox 4x32-10: four random words.
pub(crate) fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let product = |n: usize| u64::from(MULTIPLIERS[n]) * u64::from(counter[2 * n]);
        let ([low_0, high_0], [low_1, high_1]) = (words(product(0)), words(product(1)));
        counter = [high_1 ^ counter[1] ^ key[0], low_1, high_0 ^ counter[3] ^ key[1], low_0];
        key = [key[0].wrapping_add(STEPS[0]), key[1].wrapping_add(STEPS[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the authors' library, Random123.
    #[test]
    fn philox_gives_the_known_answers() {
        let zeros = philox([0; 4], [0; 2]);
        assert_eq!(zeros, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = philox([u32::MAX; 4], [u32::MAX; 2]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    /// Rates are those wanted, neighbours and masks of other offsets and seeds are independent: counts of 10^6 elements within 5
    /// deviations.
    #[test]
    fn masks_have_their_rate_and_are_independent() {
        const COUNT: u64 = 1_000_000;
        for probability in [0.1, 0.5, 0.9] {
            let dropout = Dropout { probability, seed: 0x1234_5678_9abc, offset: 1 << 40 };
            let others = [
                Dropout { offset: dropout.offset + 1, ..dropout },
                Dropout { seed: dropout.seed + 1, ..dropout },
                Dropout { seed: dropout.seed ^ 1 << 40, ..dropout },
            ];
            let near = |count: u64, rate: f64| {
                let n = COUNT as f64;
                (count as f64 - n * rate).abs() < 5.0 * (n * rate * (1.0 - rate)).sqrt()
            };
            let rate = 1.0 - probability;
            let kept: Vec<bool> = (0..COUNT + 4).map(|element| dropout.keeps(element)).collect();
            let both = |other: &dyn Fn(usize) -> bool| -> u64 {
                (0..COUNT as usize).map(|i| u64::from(kept[i] && other(i))).sum()
            };
            assert!(near(both(&|_| true), rate), "{probability}");
            for distance in 1..=4 {
                assert!(near(both(&|i| kept[i + distance]), rate * rate), "{probability} {distance}");
            }
            for other in others {
                assert!(near(both(&|i| other.keeps(i as u64)), rate * rate), "{probability} {other:?}");
            }
        }
    }

    #[test]
    fn probabilities_that_are_none_are_refused() {
        for probability in [-0.1, 1.0, 1.5, f64::NAN, f64::INFINITY] {
            assert!(Dropout { probability, seed: 0, offset: 0 }.check().is_err());
        }
        let none = Dropout { probability: 0.0, seed: 3, offset: 0 };
        assert!(none.check().is_ok() && (0..1000).all(|element| none.keeps(element)) && none.factor() == 1.0);
        let nearly = Dropout { probability: 1.0 - f64::EPSILON / 2.0, seed: 3, offset: 0 };
        assert!(nearly.check().is_ok() && (0..1000).all(|element| !nearly.keeps(element)));
    }
}
