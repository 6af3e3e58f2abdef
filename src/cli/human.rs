use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

use crate::clock::Timestamp;
pub(super) use crate::clock::readable as micros;

/// Reads a duration such as `30s`, `1m 30s`, `500ms` or `7d`: a day has 24 hours.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| "a duration is written as in 30s, 500ms, 1m 30s or 7d".to_owned())
}

/// Reads a duration that the API, which counts in milliseconds, does not take for nothing.
pub(super) fn some_duration(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration < Duration::from_millis(1) { Err("must be at least 1ms".to_owned()) } else { Ok(duration) }
}

/// Reads a moment: RFC 3339, or a duration before now.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    text.parse::<Timestamp>().or_else(|_| {
        let ago =
            duration(text).map_err(|_| "a moment is written as in 2026-01-31T12:00:00Z, or as in 10m for ten minutes ago")?;
        let ago = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
        Ok(Timestamp::from_micros(Timestamp::now().as_micros().saturating_sub(ago)))
    })
}

/// A moment to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Later {
    /// When it is.
    pub(super) at: Timestamp,
    /// Whether it was said as so long from now, which is another moment each time.
    pub(super) from_now: bool,
}

/// Reads a moment: RFC 3339, or a duration from now.
pub(super) fn later(text: &str) -> Result<Later, String> {
    if let Ok(at) = text.parse() {
        return Ok(Later { at, from_now: false });
    }
    let by =
        duration(text).map_err(|_| "a moment is written as in 2026-01-31T12:00:00Z, or as in 10m for ten minutes from now")?;
    if by.is_zero() {
        return Err("must be a time to come, such as 10m".to_owned());
    }
    Ok(Later { at: Timestamp::now().after(by), from_now: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        assert_eq!(
            [850, 1_234, 999_000, 3_450_000, 125_000_000].map(micros),
            ["850 µs", "1.2 ms", "999.0 ms", "3.45 s", "2 min 5 s"]
        );
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("7d"), Ok(Duration::from_hours(7 * 24)));
        assert_eq!(duration("2w"), Ok(Duration::from_hours(14 * 24)));
        assert!(duration("1 month").is_err());
        assert!(duration("30").is_err());
        assert!(duration("-3s").is_err());
        assert_eq!(some_duration("1ms"), Ok(Duration::from_millis(1)));
        assert!(["0s", "0.5ms"].iter().all(|text| some_duration(text).is_err()));
    }

    #[test]
    fn moments_are_absolute_or_ago() {
        assert_eq!(moment("2026-01-31T12:00:00Z").unwrap().to_string(), "2026-01-31T12:00:00.000000Z");
        let ago = Timestamp::now().since(moment("10m").unwrap());
        assert!((599..=601).contains(&ago.as_secs()));
        assert!(moment("yesterday").is_err());
        let in_ten_minutes = later("10m").unwrap();
        let left = in_ten_minutes.at.since(Timestamp::now());
        assert!((598..=600).contains(&left.as_secs()) && in_ten_minutes.from_now);
        assert!(!later("2026-01-31T12:00:00Z").unwrap().from_now);
        assert!(later("tomorrow").is_err() && later("0s").is_err());
    }
}
