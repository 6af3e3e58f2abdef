//! What makes jobs alike, so that their figures belong together.

use std::fmt;

use crate::job::ProfileKey;

/// Runs of a workload that can be expected to behave alike: those of one type with inputs of about one size, or of one piece of code.
///
/// It is shown, stored and addressed as text such as `primes:below~2^20`, `http:example.com` or `function:resize@0123456789ab`. Nothing
/// in it may be a secret of a user's: of an address it has the host, of a program the name, of code a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Likeness {
    kind: &'static str,
    name: Option<String>,
    size: Option<(&'static str, u64)>,
}

impl Likeness {
    /// Runs of the workload of this type.
    pub const fn of(kind: &'static str) -> Self {
        Self { kind, name: None, size: None }
    }

    /// Of these, runs of what has this name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Of these, runs with a parameter of about this size: the nearest power of two is what counts.
    #[must_use]
    pub fn size(mut self, parameter: &'static str, size: u64) -> Self {
        self.size = Some((parameter, size));
        self
    }

    /// The key of the profile that these runs belong to.
    pub fn key(&self) -> ProfileKey {
        ProfileKey::from(self.to_string())
    }
}

impl fmt::Display for Likeness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        if let Some(name) = &self.name {
            write!(f, ":{name}")?;
        }
        let Some((parameter, size)) = self.size else { return Ok(()) };
        match power(size) {
            Some(power) => write!(f, ":{parameter}~2^{power}"),
            None => write!(f, ":{parameter}~0"),
        }
    }
}

/// The power of two that is nearest to a number by its ratio; `None` for 0.
const fn power(number: u64) -> Option<u32> {
    let Some(below) = number.checked_ilog2() else { return None };
    // Above the root of two times the lower power, whose square is twice that of the lower power.
    let square = (number as u128) * (number as u128);
    Some(below + (square > 1 << (2 * below + 1)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(0, None)]
    #[case(1, Some(0))]
    #[case(2, Some(1))]
    #[case(3, Some(2))]
    #[case(90, Some(6))]
    #[case(91, Some(7))]
    #[case(1_000_000, Some(20))]
    #[case(u64::MAX, Some(64))]
    fn sizes_go_to_the_nearest_power(#[case] number: u64, #[case] nearest: Option<u32>) {
        assert_eq!(power(number), nearest);
    }

    #[test]
    fn text_has_the_type_the_name_and_the_size() {
        assert_eq!(Likeness::of("image").name("resize").size("width", 640).to_string(), "image:resize:width~2^9");
        assert_eq!(Likeness::of("sleep").size("ms", 0).to_string(), "sleep:ms~0");
        assert_eq!(Likeness::of("sleep").size("ms", 100).to_string(), "sleep:ms~2^7");
        assert_eq!(Likeness::of("http").name("example.com").to_string(), "http:example.com");
    }
}
