//! Random numbers that never change: the same seed must give the same bytes in every later version, so these few lines of
//! SplitMix64 are no dependency. Only additions and multiplications of floats are used, which every machine rounds alike.

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scramble(self.0)
    }

    /// Less than `bound`; 0 when `bound` is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// Like `below`, for picking from a list.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// From 0 up to, but not including, 1.
    pub(crate) fn unit(&mut self) -> f64 {
        to_unit(self.next())
    }

    /// Between -1 and 1, mostly near 0.
    pub(crate) fn around_zero(&mut self) -> f64 {
        let bits = self.next();
        let half = |bits: u64| (bits & 0xffff_ffff) as f64 / 4_294_967_296.0;
        half(bits) - half(bits >> 32)
    }

    /// True with the probability `ratio`.
    pub(crate) fn chance(&mut self, ratio: f64) -> bool {
        self.unit() < ratio
    }
}

/// One number made from two: the seed of something that has a number.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    scramble(scramble(a ^ 0x5851_f42d_4c95_7f2d).wrapping_add(b))
}

/// A smooth random curve over the file index, between -1 and 1, the same for the same `seed`.
pub(crate) fn drift(seed: u64, index: u64) -> f64 {
    // The sum of a long wave and shorter ones; even the shortest changes slowly from file to file.
    const WAVES: [(u64, f64); 3] = [(96, 0.6), (32, 0.25), (12, 0.15)];
    let mut sum = 0.0;
    for (period, height) in WAVES {
        let lattice = |n: u64| to_unit(mix(seed ^ period, n)) * 2.0 - 1.0;
        let (cell, within) = (index / period, index % period);
        let t = within as f64 / period as f64;
        let smooth = t * t * (3.0 - 2.0 * t);
        let (from, to) = (lattice(cell), lattice(cell.wrapping_add(1)));
        sum += height * (from + (to - from) * smooth);
    }
    sum
}

fn scramble(value: u64) -> u64 {
    let z = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn to_unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / 9_007_199_254_740_992.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_random_numbers_are_those_of_splitmix64() {
        // Reference outputs of SplitMix64 for seed 1234567.
        let mut rng = Random::new(1_234_567);
        assert_eq!(rng.next(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn the_drift_is_bounded_and_small_from_file_to_file() {
        for index in 0..5_000 {
            let (here, next) = (drift(7, index), drift(7, index + 1));
            assert!((-1.0..=1.0).contains(&here));
            assert!((here - next).abs() < 0.12, "jump at {index}: {here} {next}");
        }
    }
}
