//! What becomes of a message after an attempt to deliver it: a pure function.

use std::time::Duration;

use crate::clock::Timestamp;

/// By how much each wait is longer than the one before, and the longest.
const FACTOR: u32 = 4;
const LONGEST: Duration = Duration::from_secs(6 * 3_600);

/// When a message is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How often it is tried in all.
    pub attempts: u32,
    /// The wait before the second attempt.
    pub backoff: Duration,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was taken.
    Delivered,
    /// It is tried again, not before this moment.
    Again(Timestamp),
    /// It was tried as often as it may be.
    GivenUp,
    /// The receiver wants nothing more there.
    Gone,
}

/// Decides by the status of the answer, if there was one, after the attempt number `tries`; `asked` is what the receiver asked to wait.
pub fn verdict(rules: Rules, id: &str, tries: u32, status: Option<u16>, asked: Option<Duration>, now: Timestamp) -> Verdict {
    match status {
        Some(200..=299) => Verdict::Delivered,
        Some(410) => Verdict::Gone,
        _ if tries >= rules.attempts => Verdict::GivenUp,
        _ => Verdict::Again(now.after(wait(rules.backoff, id, tries).max(asked.unwrap_or_default().min(LONGEST)))),
    }
}

/// The wait behind an attempt: four times the one before, six hours at most; and up to a fifth longer, so that messages that failed together
/// do not come back together.
fn wait(first: Duration, id: &str, tries: u32) -> Duration {
    let wait = first.saturating_mul(FACTOR.saturating_pow(tries.saturating_sub(1))).min(LONGEST);
    let seed = id.bytes().fold(tries, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let draw = (seed.wrapping_mul(2_654_435_761) >> 16) % 1_000;
    wait + wait * draw / 5_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const RULES: Rules = Rules { attempts: 11, backoff: Duration::from_secs(5) };

    #[rstest]
    #[case(Some(200), 1, "delivered")]
    #[case(Some(204), 11, "delivered")]
    #[case(Some(410), 1, "gone")]
    #[case(Some(301), 1, "again")]
    #[case(Some(404), 10, "again")]
    #[case(Some(500), 11, "given up")]
    #[case(None, 1, "again")]
    #[case(None, 11, "given up")]
    fn by_the_status(#[case] status: Option<u16>, #[case] tries: u32, #[case] expected: &str) {
        let found = match verdict(RULES, "msg_1", tries, status, None, Timestamp::now()) {
            Verdict::Delivered => "delivered",
            Verdict::Again(_) => "again",
            Verdict::GivenUp => "given up",
            Verdict::Gone => "gone",
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn waits_grow_and_last_about_a_day_in_all() {
        let waits: Vec<_> = (1..11).map(|tries| wait(RULES.backoff, "msg_1", tries)).collect();
        let longest = LONGEST * 6 / 5;
        assert!(
            waits
                .iter()
                .zip([5, 20, 80, 320, 1_280, 5_120, 20_480])
                .all(|(wait, seconds)| { (Duration::from_secs(seconds)..=Duration::from_secs(seconds) * 6 / 5).contains(wait) })
        );
        assert!(waits.iter().all(|wait| *wait <= longest));
        let total: Duration = waits.iter().sum();
        assert!((24..32).contains(&(total.as_secs() / 3_600)), "{total:?}");
        assert!(wait(Duration::MAX, "msg_1", u32::MAX) <= longest);
    }

    #[test]
    fn messages_that_failed_together_do_not_come_back_together() {
        let waits: std::collections::BTreeSet<_> = (0..100).map(|n| wait(RULES.backoff, &format!("msg_{n}"), 3)).collect();
        assert!(waits.len() > 50);
    }

    #[test]
    fn a_receiver_can_ask_for_a_longer_wait_but_not_for_ever() {
        let now = Timestamp::now();
        let again = |asked| verdict(RULES, "msg_1", 1, Some(503), Some(Duration::from_secs(asked)), now);
        assert_eq!(again(600), Verdict::Again(now.after(Duration::from_secs(600))));
        assert_eq!(again(999_999), Verdict::Again(now.after(LONGEST)));
        assert!(matches!(again(0), Verdict::Again(at) if at.since(now) >= RULES.backoff));
    }
}
