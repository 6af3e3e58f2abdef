//! `primes`: counts primes by trial division.

use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{Context, Environment, Invalid, Likeness, Pace, Work, Workload};
use crate::job::{Bound, Failure, Form};

// The square of the last divisor tried fits 32 bits, whose division is the fastest.
const MAX_BELOW: u32 = 2_000_000_000;

/// Up to where to count.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Primes {
    /// Primes below this number are counted. The cost grows with its power of about 1.5: a million takes a fraction of a second.
    #[schema(maximum = 2_000_000_000)]
    below: u32,
}

#[derive(Serialize)]
struct Counted {
    count: u32,
}

impl Workload for Primes {
    const TYPE: &'static str = "primes";
    const ABOUT: &'static str = "Counts the primes below a number by dividing each odd number by all odd numbers up to its root.";
    const BOUND: Bound = Bound::Cpu;
    const FORM: Form = Form::Blocking;

    fn example() -> serde_json::Value {
        json!({ "below": 300_000 })
    }

    fn check(&self, _environment: &Environment) -> Result<(), Invalid> {
        if self.below > MAX_BELOW { Err(Invalid::new("/below", format!("at most {MAX_BELOW}"))) } else { Ok(()) }
    }

    fn likeness(&self) -> Likeness {
        Likeness::of(Self::TYPE).size("below", self.below.into())
    }

    fn work(self, context: Context) -> Work {
        Work::blocking(move || count(self.below, &context).map(|count| Counted { count }))
    }
}

/// The number of primes below `below`, which is at most [`MAX_BELOW`]. Deliberately no sieve: the same steps are what other
/// languages are compared by.
fn count(below: u32, context: &Context) -> Result<u32, Failure> {
    // Between two questions for a stop lie 20 microseconds for small numbers, 20 milliseconds for the greatest.
    const NUMBERS_BETWEEN_STOPS: u32 = 2 * 1024;
    let mut count = u32::from(below > 2);
    let mut from = 3;
    let mut pace = Pace::start();
    while from < below {
        context.stop.check()?;
        if pace.is_due() {
            // The cost of a number grows with its root, so the work done grows with this power.
            let share = (f64::from(from) / f64::from(below)).powf(1.5);
            context.progress(&json!({ "share": (share * 1000.0).round() / 1000.0 }));
        }
        let end = below.min(from + NUMBERS_BETWEEN_STOPS);
        let mut number = from;
        while number < end {
            count += u32::from(is_prime(number));
            number += 2;
        }
        from = number;
    }
    Ok(count)
}

/// Whether an odd number from 3 is a prime.
fn is_prime(number: u32) -> bool {
    let mut divisor = 3;
    while divisor * divisor <= number {
        if number.is_multiple_of(divisor) {
            return false;
        }
        divisor += 2;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::super::{Reporter, Stop, StopReason};
    use super::*;

    fn context(stop: Stop) -> Context {
        let environment = std::sync::Arc::clone(Bench::new().registry.environment());
        Context { environment, stop, reporter: Reporter::default() }
    }

    #[test]
    fn counts_are_known() {
        let known = [
            (0, 0),
            (1, 0),
            (2, 0),
            (3, 1),
            (4, 2),
            (5, 2),
            (6, 3),
            (9, 4),
            (10, 4),
            (25, 9),
            (26, 9),
            (100, 25),
            (2_053, 309),
            (2_054, 310),
            (10_000, 1_229),
            (300_000, 25_997),
        ];
        for (below, primes) in known {
            assert_eq!(count(below, &context(Stop::default())), Ok(primes), "below {below}");
        }
    }

    #[test]
    fn the_greatest_numbers_do_not_overflow() {
        // The three greatest primes below two billion.
        assert!([1_999_999_973, 1_999_999_943, 1_999_999_927].into_iter().all(is_prime));
        assert!(!is_prime(1_999_999_999));
        assert!(!is_prime(44_711 * 44_711));
    }

    #[test]
    fn it_ends_when_asked() {
        let stop = Stop::default();
        stop.stop(StopReason::Deadline);
        assert_eq!(count(MAX_BELOW, &context(stop)), Err(Failure::error("stopped")));
    }

    #[tokio::test]
    async fn it_is_registered_and_checked() {
        let bench = Bench::new();
        assert_eq!(bench.run(json!({ "type": "primes", "below": 1000 })).await.unwrap(), json!({ "count": 168 }));
        for wrong in [json!(MAX_BELOW + 1), json!(-1), json!(1.5), json!("10"), json!(null)] {
            assert_eq!(bench.invalid(&json!({ "type": "primes", "below": wrong })).pointer, "/below");
        }
    }
}
