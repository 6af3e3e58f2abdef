//! What becomes of a job when an attempt of it has ended: a pure function.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::executor::Measured;
use crate::job::{Conclusion, Ending, Failure, FailureKind, JobId, Outcome};
use crate::store::{Claimed, Settlement};
use crate::workload::StopReason;

/// Decides by the attempt's outcome, the job's retry rule and what the job has been through.
pub(super) fn settlement(claimed: &Claimed, measured: Measured, max_losses: u32, now: Timestamp) -> Settlement {
    let Measured { mut outcome, stopped, timing, begun, .. } = measured;
    let ending = match &outcome {
        Outcome::Output(_) => Ending::Succeeded,
        Outcome::Error(_) if stopped == Some(StopReason::HandBack) => {
            if !begun || claimed.retry().on.contains(&FailureKind::Lost) {
                return Settlement::Release { begun };
            }
            let why = "the server was told to stop while this job ran; it is not run again";
            outcome = Outcome::Error(Failure::new(FailureKind::Lost, why));
            Ending::Lost
        }
        Outcome::Error(failure) => match failure.kind {
            FailureKind::Cancelled => Ending::Cancelled,
            FailureKind::Lost if claimed.retry().survives_loss(claimed.losses + 1, max_losses) => {
                return Settlement::Again { due_at: now, lost: true, error: failure.clone(), timing };
            }
            FailureKind::Lost => Ending::Lost,
            // Attempts that were lost do not count: they say nothing about the work. Nor do those before it was run again by hand.
            kind => match claimed.retry().wait_after(claimed.attempt.saturating_sub(claimed.losses + claimed.earlier), kind) {
                Some(wait) => {
                    return Settlement::Again {
                        due_at: now.after(jittered(wait, claimed.lease.id, claimed.attempt)),
                        lost: false,
                        error: failure.clone(),
                        timing,
                    };
                }
                None => Ending::Failed,
            },
        },
    };
    Settlement::Finish(Conclusion { ending, outcome, timing })
}

/// Up to a tenth longer, so that jobs that failed together do not come back together. Drawn from the random part of the id.
pub(super) fn jittered(wait: Duration, id: JobId, attempt: u32) -> Duration {
    let [.., high, low] = *id.as_bytes();
    let draw = u32::from(u16::from_be_bytes([high, low])).wrapping_add(attempt.wrapping_mul(40_503)) % 1_000;
    wait + wait * draw / 10_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Bound, Retry, Spec};
    use crate::store::Lease;
    use rstest::rstest;
    use std::sync::Arc;

    fn claimed(attempt: u32, losses: u32) -> Claimed {
        let json = serde_json::value::RawValue::from_string("{}".into()).unwrap();
        Claimed {
            lease: Lease { id: JobId::new(), token: 1 },
            owner: None,
            bound: Bound::Io,
            workload: Spec { kind: "sleep".into(), json },
            deadline: None,
            retry: Some(Arc::new(Retry { attempts: 2, backoff_ms: 1_000, ..Retry::DEFAULT })),
            attempt,
            losses,
            earlier: 0,
            requires: None,
            queued_for: Duration::ZERO,
            profile: None,
        }
    }

    fn ended(kind: FailureKind, stopped: Option<StopReason>) -> Measured {
        Measured { outcome: Outcome::Error(Failure::new(kind, "")), stopped, timing: None, crashed: None, begun: true }
    }

    #[rstest]
    #[case::first_failure(1, 0, FailureKind::Error, "again")]
    #[case::last_failure(2, 0, FailureKind::Error, "failed")]
    #[case::a_loss_is_no_attempt(2, 1, FailureKind::Error, "again")]
    #[case::first_loss(1, 0, FailureKind::Lost, "again lost")]
    #[case::third_loss(3, 2, FailureKind::Lost, "lost")]
    #[case::cancelled(1, 0, FailureKind::Cancelled, "cancelled")]
    fn by_the_rule(#[case] attempt: u32, #[case] losses: u32, #[case] kind: FailureKind, #[case] expected: &str) {
        let settled = match settlement(&claimed(attempt, losses), ended(kind, None), 3, Timestamp::now()) {
            Settlement::Finish(conclusion) => conclusion.ending.to_string(),
            Settlement::Again { lost: true, .. } => "again lost".into(),
            Settlement::Again { .. } => "again".into(),
            Settlement::Release { .. } => "release".into(),
            Settlement::Later { .. } => "later".into(),
        };
        assert_eq!(settled, expected);
    }

    #[test]
    fn work_that_a_shutdown_stopped_is_handed_back() {
        let settled = settlement(&claimed(1, 0), ended(FailureKind::Lost, Some(StopReason::HandBack)), 3, Timestamp::now());
        assert!(matches!(settled, Settlement::Release { begun: true }));
        // What must not be repeated is not, once it may have begun.
        let retry = Retry { on: vec![FailureKind::Error].into(), ..Retry::DEFAULT };
        let once = Claimed { retry: Some(Arc::new(retry)), ..claimed(1, 0) };
        let settle = |begun| {
            let measured = Measured { begun, ..ended(FailureKind::Lost, Some(StopReason::HandBack)) };
            settlement(&once, measured, 3, Timestamp::now())
        };
        assert!(matches!(settle(true), Settlement::Finish(Conclusion { ending: Ending::Lost, .. })));
        assert!(matches!(settle(false), Settlement::Release { begun: false }));
    }

    #[test]
    fn jitter_adds_at_most_a_tenth() {
        let wait = Duration::from_secs(10);
        for attempt in 1..50 {
            let jittered = jittered(wait, JobId::new(), attempt);
            assert!((wait..=wait * 11 / 10).contains(&jittered), "{jittered:?}");
        }
    }
}
