//! What the fields of a submission may be, apart from their types.

use std::time::Duration;

use super::DAY_MS;
use crate::clock::Timestamp;
use crate::job::{Concurrency, FailureKind, Labels, MAX_REQUIRED, Rate, Retry, Submission, Tags, Unique, wrong_label};
use crate::workload::{Invalid, pointer_token};

const PRIORITIES: std::ops::RangeInclusive<i16> = -100..=100;
const LONGEST_DELAY_MS: u64 = 365 * DAY_MS;
/// How long it is remembered that there was a unique job.
const LONGEST_UNIQUE_MS: u64 = 7 * DAY_MS;
/// The longest key of a limit, and the highest limit.
const MAX_KEY: usize = 200;
/// The most bytes of both keys and of what is required, as a store keeps them together: an index of PostgreSQL takes rows of 2,704.
const MAX_LANE: usize = 2_500;
const MAX_LIMIT: u32 = 1_000_000;
/// The most labels of a job.
pub(in crate::api) const MAX_TAGS: usize = 16;
const MAX_TAG_NAME: usize = 64;
const MAX_TAG_VALUE: usize = 256;

/// How soon it runs.
pub(super) fn check_priority(priority: i16) -> Result<(), Invalid> {
    if PRIORITIES.contains(&priority) { Ok(()) } else { Err(Invalid::new("/priority", "must be -100 to 100")) }
}

/// How long an attempt may take.
pub(super) fn deadline(ms: Option<u64>) -> Result<Option<Duration>, Invalid> {
    if ms.is_some_and(|ms| !(1..=DAY_MS).contains(&ms)) {
        return Err(Invalid::new("/deadline_ms", format!("must be 1 to {DAY_MS}")));
    }
    Ok(ms.map(Duration::from_millis))
}

/// From when on it may start.
pub(super) fn start(
    run_at: Option<Timestamp>,
    delay_ms: Option<u64>,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<Option<Timestamp>, Invalid> {
    if delay_ms.is_some_and(|ms| ms > LONGEST_DELAY_MS) {
        return Err(Invalid::new("/delay_ms", format!("must be 0 to {LONGEST_DELAY_MS}")));
    }
    match (run_at, delay_ms, expires_at) {
        (Some(_), Some(_), _) => Err(Invalid::new("/delay_ms", "says the same as run_at: give one of them")),
        (Some(run_at), _, Some(expires_at)) if expires_at <= run_at => {
            Err(Invalid::new("/expires_at", "must be later than run_at"))
        }
        (Some(run_at), ..) => Ok(Some(run_at)),
        (None, delay_ms, expires_at) => {
            let run_at = delay_ms.map(|ms| now.after(Duration::from_millis(ms)));
            if expires_at.zip(run_at).is_some_and(|(expires_at, run_at)| expires_at <= run_at) {
                return Err(Invalid::new("/expires_at", "must be later than delay_ms from now"));
            }
            Ok(run_at)
        }
    }
}

/// What it requires of a node.
pub(super) fn check_requires(labels: &Labels) -> Result<(), Invalid> {
    if labels.len() > MAX_REQUIRED {
        return Err(Invalid::new("/requires", format!("there may be {MAX_REQUIRED} at most")));
    }
    let wrong = |(name, value): (&String, &String)| {
        let pointer = format!("/requires/{}", pointer_token(name));
        wrong_label(name, value).map(|message| Invalid::new(pointer, message))
    };
    labels.iter().find_map(wrong).map_or(Ok(()), Err)
}

/// When it is taken for another one.
pub(super) fn check_unique(unique: &Unique) -> Result<(), Invalid> {
    if unique.within_ms.is_some_and(|ms| !(1..=LONGEST_UNIQUE_MS).contains(&ms)) {
        return Err(Invalid::new("/unique/within_ms", format!("must be 1 to {LONGEST_UNIQUE_MS}")));
    }
    Ok(())
}

/// When a failed attempt is followed by another.
pub(super) fn check_retry(retry: &Retry) -> Result<(), Invalid> {
    if !(1..=100).contains(&retry.attempts) {
        return Err(Invalid::new("/retry/attempts", "must be 1 to 100"));
    }
    if !(1.0..=100.0).contains(&retry.factor) {
        return Err(Invalid::new("/retry/factor", "must be 1 to 100"));
    }
    for (name, ms) in [("backoff_ms", retry.backoff_ms), ("max_backoff_ms", retry.max_backoff_ms)] {
        if ms > DAY_MS {
            return Err(Invalid::new(format!("/retry/{name}"), format!("must be 0 to {DAY_MS}")));
        }
    }
    for (index, kind) in retry.on.iter().enumerate() {
        let wrong = |message: String| Err(Invalid::new(format!("/retry/on/{index}"), message));
        if matches!(kind, FailureKind::Cancelled | FailureKind::Expired | FailureKind::Dependency) {
            return wrong(format!("a job that is {kind} is not tried again"));
        }
        if retry.on[..index].contains(kind) {
            return wrong("is there already".into());
        }
    }
    Ok(())
}

/// What it waits with others for.
pub(super) fn check_lane(submission: &Submission) -> Result<(), Invalid> {
    if submission.lane().is_some_and(|lane| lane.len() > MAX_LANE) {
        let why = format!(
            "the keys of `concurrency` and `rate` and what is in `requires` have more than {MAX_LANE} bytes together, as JSON"
        );
        return Err(Invalid::new("", why));
    }
    Ok(())
}

/// The limits that it shares with others.
pub(super) fn check_limits(concurrency: Option<&Concurrency>, rate: Option<&Rate>) -> Result<(), Invalid> {
    for (at, key, limit) in concurrency
        .map(|limit| ("/concurrency", &limit.key, limit.limit))
        .into_iter()
        .chain(rate.map(|rate| ("/rate", &rate.key, rate.limit)))
    {
        if !(1..=MAX_KEY).contains(&key.chars().count()) || key.contains('\0') {
            return Err(Invalid::new(format!("{at}/key"), format!("must have 1 to {MAX_KEY} characters, and no NUL")));
        }
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Invalid::new(format!("{at}/limit"), format!("must be 1 to {MAX_LIMIT}")));
        }
    }
    match rate {
        Some(Rate { per_ms, .. }) if !(1..=DAY_MS).contains(per_ms) => {
            Err(Invalid::new("/rate/per_ms", format!("must be 1 to {DAY_MS}")))
        }
        _ => Ok(()),
    }
}

/// The labels.
pub(super) fn check_tags(tags: &Tags) -> Result<(), Invalid> {
    if tags.len() > MAX_TAGS {
        return Err(Invalid::new("/tags", format!("there may be {MAX_TAGS} at most")));
    }
    for (name, value) in tags {
        let at = || format!("/tags/{}", pointer_token(name));
        if name.is_empty() || name.chars().count() > MAX_TAG_NAME || name.contains(':') {
            return Err(Invalid::new(at(), format!("a tag's name has 1 to {MAX_TAG_NAME} characters and no colon")));
        }
        if name.contains('\0') || value.contains('\0') {
            return Err(Invalid::new(at(), "a tag has no NUL"));
        }
        if value.chars().count() > MAX_TAG_VALUE {
            return Err(Invalid::new(at(), format!("a tag's value has {MAX_TAG_VALUE} characters at most")));
        }
    }
    Ok(())
}
