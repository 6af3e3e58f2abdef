//! A report as it may be, for the API's documentation and for whoever draws one.

use serde_json::json;

use super::report::{
    Bystander, Choice, Confidence, Control, ControlRow, Controls, Handover, Inline, Pressure, Report, Row, Spans, Spread, Verdict,
};
use crate::job::{Executor, Form, Runtime};

/// Native computing on two cores.
pub(crate) fn report() -> Report {
    let matrix = [
        (Executor::Async, [(1, 0.99), (2, 0.99)]),
        (Executor::Threads, [(1, 1.0), (2, 1.96)]),
        (Executor::Processes, [(1, 0.99), (2, 1.94)]),
    ];
    let rows = matrix
        .into_iter()
        .flat_map(|(executor, levels)| levels.map(|(concurrency, speedup)| row(executor, concurrency, speedup)));
    Report {
        runtime: Runtime::Native,
        form: Form::Blocking,
        cores: 2,
        repetitions: 8,
        tasks_per_repetition: 16,
        inline: vec![Inline {
            interpreter: None,
            throughput_per_s: 43.403,
            wall_us: spans(23_040),
            cpu_share: Some(0.998),
            max_rss_bytes: None,
            bystander_us: Some(Bystander { p50: 1_210, p99: 1_930, longest: 2_400, count: 290 }),
        }],
        matrix: rows.collect(),
        controls: Controls {
            concurrency: 2,
            waiting: control(json!({ "type": "sleep", "ms": 20 }), 20_110, [1.98, 1.97, 1.95]),
            computing: control(json!({ "type": "primes", "below": 270_000 }), 20_480, [0.99, 1.96, 1.94]),
        },
        gil: Vec::new(),
        pressure: Pressure { others_share: Some(0.021), stolen_share: Some(0.0), jobs: 0 },
        verdict: Verdict {
            executor: Choice::Threads,
            interpreter: None,
            concurrency: Some(2),
            speedup: Some(1.96),
            because: "Threads ran it 1.96 times as fast as one after the other, 2 at once (1.93 to 1.98 with 96 % confidence). \
                      It computes: 100 % of a core while it runs. The event loop reached 0.99: an event loop computes one thing at a \
                      time. Processes came as far (1.94), but cost more for each task, and more memory. Handing a task over costs \
                      38 µs, next to nothing of its 23.0 ms. On the event loop, one task kept all others waiting for 24.1 ms."
                .into(),
            confidence: Confidence::High,
        },
    }
}

fn row(executor: Executor, concurrency: u32, speedup: f64) -> Row {
    let (hop, held) = match executor {
        Executor::Async => (21, Some(24_100)),
        Executor::Threads => (38, None),
        Executor::Processes => (112, None),
    };
    let late = if executor == Executor::Async { 23_900 } else { 2_050 };
    let isolated = executor == Executor::Processes;
    #[expect(clippy::cast_possible_truncation, reason = "an example")]
    let gained_us = (23_040.0 - 23_040.0 / speedup) as i64;
    Row {
        executor,
        interpreter: None,
        concurrency,
        at_once: concurrency,
        tasks: 128,
        failures: 0,
        failure: None,
        throughput_per_s: Some((43.403 * speedup * 1000.0).round() / 1000.0),
        speedup: Some(speedup),
        spread: Some(spread(speedup)),
        between_controls: None,
        latency_us: Some(spans(23_100)),
        wall_us: Some(spans(23_060)),
        cpu_share: Some(0.997),
        cores_used: Some(if speedup > 1.5 { 1.98 } else { 1.0 }),
        longest_poll_us: held,
        max_rss_bytes: isolated.then_some(14 << 20),
        runners_pss_bytes: isolated.then_some(19 << 20),
        runners: if isolated { 2 } else { 0 },
        handover: Some(Handover { cost_us: hop, gained_us }),
        bystander_us: Some(Bystander { p50: late / 2, p99: late, longest: late + 400, count: 280 }),
    }
}

fn control(workload: serde_json::Value, wall_us: u64, speedups: [f64; 3]) -> Control {
    let rows = Executor::ALL.into_iter().zip(speedups);
    let rows = rows.map(|(executor, speedup)| ControlRow { executor, interpreter: None, speedup, spread: spread(speedup) });
    Control { workload, wall_us: Some(wall_us), rows: rows.collect() }
}

fn spread(speedup: f64) -> Spread {
    let hundredths = |figure: f64| (figure * 100.0).round() / 100.0;
    Spread { low: hundredths(speedup * 0.985), high: hundredths(speedup * 1.01), confidence: 0.961, repetitions: 8 }
}

const fn spans(us: u64) -> Spans {
    Spans { p50: us, p90: us + us / 20, p99: us + us / 8 }
}
