use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo};
use serde::{Serialize, Serializer};

/// How long something is kept: a time such as `90d` or `12h`, or `forever`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptFor(pub Option<Duration>);

/// How many of something are kept: a number, or `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptCount(pub Option<u64>);

impl FromStr for KeptFor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if text == "forever" {
            return Ok(Self(None));
        }
        let span = text.parse::<Span>().ok().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
        let kept = span.filter(SignedDuration::is_positive).and_then(|span| Duration::try_from(span).ok());
        kept.map(|kept| Self(Some(kept))).ok_or("must be a time, such as 90d or 12h, or forever")
    }
}

impl FromStr for KeptCount {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if text == "all" {
            return Ok(Self(None));
        }
        text.parse().map(|count| Self(Some(count))).map_err(|_| "must be a number, or all")
    }
}

impl fmt::Display for KeptFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.map(|kept| (kept, kept.as_secs())) {
            None => f.write_str("forever"),
            Some((_, seconds)) if seconds > 0 && seconds % 86_400 == 0 => write!(f, "{}d", seconds / 86_400),
            Some((kept, _)) => write!(f, "{:#}", SignedDuration::try_from(kept).unwrap_or(SignedDuration::MAX)),
        }
    }
}

impl fmt::Display for KeptCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("all"),
            Some(count) => count.fmt(f),
        }
    }
}

impl Serialize for KeptFor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for KeptCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("forever", None)]
    #[case("90d", Some(90 * 86_400_000))]
    #[case("2w", Some(14 * 86_400_000))]
    #[case("1d 12h", Some(36 * 3_600_000))]
    #[case("1500ms", Some(1_500))]
    fn times_have_units(#[case] text: &str, #[case] millis: Option<u64>) {
        let kept = KeptFor(millis.map(Duration::from_millis));
        assert_eq!(text.parse(), Ok(kept));
        assert_eq!(kept.to_string().parse(), Ok(kept));
    }

    #[rstest]
    #[case("0s")]
    #[case("-1d")]
    #[case("1mo")]
    #[case("90")]
    fn what_is_no_time_is_refused(#[case] text: &str) {
        assert!(text.parse::<KeptFor>().is_err());
    }

    #[test]
    fn a_count_is_a_number_or_all() {
        assert_eq!(("all".parse(), "7".parse()), (Ok(KeptCount(None)), Ok(KeptCount(Some(7)))));
        assert!("-1".parse::<KeptCount>().is_err());
        assert_eq!([KeptCount(None), KeptCount(Some(7))].map(|kept| kept.to_string()), ["all", "7"]);
    }
}
