//! What runs beside the workload: two controls that do one thing alone, and a bystander that wants next to nothing.

use std::time::Duration;

use serde_json::{Value, json};

use super::request::{Variant, spec};
use crate::job::{Form, Runtime, Spec};

/// The shortest and the longest control: shorter ones are lost in what a hop costs, longer ones tell no more.
const SPAN: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(20));
/// How long a control runs in each repetition, at the least, on one core.
const RUN: Duration = Duration::from_millis(60);
/// The first guess of how much computing a millisecond is.
const FIRST_STEPS: (u64, u64) = (20_000, 10_000);

const WAITING: [&str; 2] = [
    "import time\n\ndef main(seconds):\n    time.sleep(seconds)\n",
    "import asyncio\n\nasync def main(seconds):\n    await asyncio.sleep(seconds)\n",
];
const COMPUTING: [&str; 2] = [
    "def main(steps):\n    total = 0\n    for step in range(steps):\n        total += step * step % 7\n    return total\n",
    "async def main(steps):\n    total = 0\n    for step in range(steps):\n        total += step * step % 7\n    return total\n",
];
const BYSTANDER: &str = "import asyncio\n\nasync def main():\n    await asyncio.sleep(0.001)\n";

/// Which of the controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Waiting,
    Computing,
}

/// How long a control should take beside a workload of this length.
pub(super) fn span(wall: Duration) -> Duration {
    wall.clamp(SPAN.0, SPAN.1)
}

/// How many tasks of this length make a run worth looking at, in whole rounds of `concurrency`.
pub(super) fn tasks(span: Duration, concurrency: u32) -> u32 {
    let enough = u32::try_from(RUN.as_micros().div_ceil(span.as_micros().max(1))).unwrap_or(u32::MAX);
    enough.max(2 * concurrency).next_multiple_of(concurrency)
}

/// Pure waiting, for so long.
pub(super) fn waiting(variant: &Variant, runtime: Runtime, form: Form, span: Duration) -> Value {
    match runtime {
        Runtime::Python => python(variant, WAITING[usize::from(form == Form::Async)], &json!([span.as_secs_f64()])),
        Runtime::Native | Runtime::Command => json!({ "type": "sleep", "ms": span.as_millis() }),
    }
}

/// Pure computing, of so many steps.
pub(super) fn computing(variant: &Variant, runtime: Runtime, form: Form, steps: u64) -> Value {
    match runtime {
        Runtime::Python => python(variant, COMPUTING[usize::from(form == Form::Async)], &json!([steps])),
        Runtime::Native | Runtime::Command => json!({ "type": "primes", "below": steps }),
    }
}

/// So many steps as a first guess.
pub(super) const fn first_steps(runtime: Runtime) -> u64 {
    match runtime {
        Runtime::Python => FIRST_STEPS.1,
        Runtime::Native | Runtime::Command => FIRST_STEPS.0,
    }
}

/// How many steps take `wanted`, by what `steps` took.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rough guess, corrected"
)]
pub(super) fn more_steps(runtime: Runtime, steps: u64, took: Duration, wanted: Duration) -> u64 {
    let factor = wanted.as_secs_f64() / took.as_secs_f64().max(1e-6);
    // The cost of counting primes grows with this power of the number.
    let power = if runtime == Runtime::Python { 1.0 } else { 1.0 / 1.4 };
    (steps as f64 * factor.powf(power)).clamp(100.0, 1e9) as u64
}

/// A wait of a millisecond on an event loop.
pub(super) fn bystander(variant: &Variant, runtime: Runtime) -> Spec {
    match runtime {
        Runtime::Python => of(&python(variant, BYSTANDER, &json!([]))),
        Runtime::Native | Runtime::Command => of(&json!({ "type": "sleep", "ms": 1 })),
    }
}

fn python(variant: &Variant, source: &str, args: &Value) -> Value {
    let mut workload = json!({ "type": "python", "source": source, "interpreter": variant.interpreter, "args": args });
    if variant.network {
        // Hosts with the network are others than those without.
        workload["network"] = true.into();
    }
    workload
}

/// A workload object as what executors take.
pub(super) fn of(workload: &Value) -> Spec {
    serde_json::value::to_raw_value(workload).map(spec).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_last_about_as_long_as_the_workload_within_reason() {
        let ms = Duration::from_millis;
        assert_eq!([Duration::ZERO, ms(7), ms(5_000)].map(span), [ms(2), ms(7), ms(20)]);
        assert_eq!((tasks(ms(20), 2), tasks(ms(2), 4), tasks(ms(20), 8)), (4, 32, 16));
    }

    #[test]
    fn steps_follow_from_what_they_take() {
        let ms = Duration::from_millis;
        assert_eq!(more_steps(Runtime::Python, 1_000, ms(1), ms(10)), 10_000);
        let native = more_steps(Runtime::Native, 10_000, ms(1), ms(10));
        assert!((50_000..55_000).contains(&native), "{native}");
    }
}
