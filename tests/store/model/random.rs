use std::time::Duration;

/// Numbers that look random and are the same for the same seed (`SplitMix64`).
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Up to so many milliseconds, and never a whole number of them: no two moments are alike by chance. At times none at all.
    pub(super) fn millis(&mut self, most: u64) -> Duration {
        match self.below(5) {
            0 => Duration::ZERO,
            _ => Duration::from_micros(self.below(most * 1_000)),
        }
    }

    pub(super) fn pick<'a, T>(&mut self, among: &'a [T]) -> Option<&'a T> {
        if among.is_empty() {
            return None;
        }
        let limit = u64::try_from(among.len()).unwrap();
        among.get(usize::try_from(self.below(limit)).unwrap())
    }
}
