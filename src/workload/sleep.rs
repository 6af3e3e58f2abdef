//! `sleep`: waits.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{Context, Environment, Invalid, Likeness, Work, Workload};
use crate::job::{Bound, Form};

const MAX_MS: u64 = 86_400_000;

/// How long to wait.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Sleep {
    /// The wait in milliseconds: up to a day. 0 does nothing at all.
    #[schema(maximum = 86_400_000)]
    ms: u64,
}

#[derive(Serialize)]
struct Slept {
    slept_ms: u64,
}

impl Workload for Sleep {
    const TYPE: &'static str = "sleep";
    const ABOUT: &'static str = "Waits on a timer, and does nothing else.";
    const BOUND: Bound = Bound::Io;
    const FORM: Form = Form::Async;

    fn example() -> serde_json::Value {
        json!({ "ms": 100 })
    }

    fn check(&self, _environment: &Environment) -> Result<(), Invalid> {
        if self.ms > MAX_MS { Err(Invalid::new("/ms", format!("at most {MAX_MS}, a day"))) } else { Ok(()) }
    }

    fn likeness(&self) -> Likeness {
        Likeness::of(Self::TYPE).size("ms", self.ms)
    }

    fn work(self, _context: Context) -> Work {
        Work::future(async move {
            // Even a timer of 0 ms is registered and fires a millisecond later.
            if self.ms > 0 {
                tokio::time::sleep(Duration::from_millis(self.ms)).await;
            }
            Ok(Slept { slept_ms: self.ms })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::testing::Bench;
    use super::*;

    #[tokio::test]
    async fn it_waits_as_long_as_it_says() {
        let bench = Bench::new();
        let started = Instant::now();
        assert_eq!(bench.run(json!({ "type": "sleep", "ms": 30 })).await.unwrap(), json!({ "slept_ms": 30 }));
        assert!(started.elapsed() >= Duration::from_millis(30));
    }

    #[test]
    fn zero_needs_no_timer() {
        let bench = Bench::new();
        // Outside of a runtime a timer would panic.
        let output = futures_util::FutureExt::now_or_never(bench.run(json!({ "type": "sleep", "ms": 0 })));
        assert_eq!(output.unwrap().unwrap(), json!({ "slept_ms": 0 }));
    }

    #[test]
    fn limits_are_named() {
        let bench = Bench::new();
        assert_eq!(bench.invalid(&json!({ "type": "sleep", "ms": MAX_MS + 1 })).pointer, "/ms");
        assert_eq!(bench.invalid(&json!({ "type": "sleep", "ms": -1 })).pointer, "/ms");
        assert_eq!(bench.invalid(&json!({ "type": "sleep", "ms": 1, "extra": 2 })).pointer, "/extra");
        assert!(bench.invalid(&json!({ "type": "sleep" })).message.contains("ms"));
    }
}
