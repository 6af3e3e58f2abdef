//! What an attempt's figures say against its tag or its executor.

use std::time::Duration;

use crate::job::{Bound, Executor, Observed, Timing};

/// Shorter work says nothing: starting it costs as much as doing it.
const SHORTEST_WALL_US: u64 = 10_000;

/// From here on, other jobs notice that the event loop was held.
const LONG_POLL_US: u64 = 50_000;

/// One sentence if the figures contradict the client's tag, or if the work held the event loop; with the figures in it.
pub fn advice(bound: Bound, executor: Executor, timing: &Timing) -> Option<String> {
    if timing.wall_us < SHORTEST_WALL_US {
        return None;
    }
    let held = timing.longest_poll_us.filter(|&us| executor == Executor::Async && us >= LONG_POLL_US).map(span);
    // Work that wanted a core and was not given one looks as if it had waited.
    let kept_waiting = timing.ctx_involuntary > timing.ctx_voluntary;
    let better_tag = match (bound, timing.observed()) {
        (Bound::Io, Some(Observed::Cpu)) => Some(Bound::Cpu),
        (Bound::Cpu, Some(Observed::Io)) if !kept_waiting => Some(Bound::Io),
        _ => None,
    };
    match (better_tag, held) {
        (Some(tag), held) => {
            let percent = timing.cpu_share()? * 100.0;
            let wall = span(timing.wall_us);
            let held = held.map_or_else(String::new, |held| format!(" and held the event loop for {held}"));
            Some(format!(
                "tagged {bound}, but used {percent:.0} % of a core for {wall}{held}: tag it {tag}, or let Trine route it"
            ))
        }
        (None, Some(held)) => Some(format!("held the event loop for {held}, so every other job on it waited")),
        (None, None) => None,
    }
}

/// Whole milliseconds, or seconds with one decimal from ten seconds on.
fn span(us: u64) -> String {
    let span = Duration::from_micros(us);
    if span < Duration::from_secs(10) { format!("{} ms", span.as_millis()) } else { format!("{:.1} s", span.as_secs_f64()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn timing(wall_us: u64, cpu_us: u64, longest_poll_us: Option<u64>) -> Timing {
        Timing { wall_us, cpu_user_us: Some(cpu_us), cpu_system_us: Some(0), longest_poll_us, ..Timing::default() }
    }

    #[rstest]
    #[case(
        Bound::Io,
        timing(412_000, 400_000, None),
        "tagged io, but used 97 % of a core for 412 ms: tag it cpu, or let Trine route it"
    )]
    #[case(
        Bound::Cpu,
        timing(12_340_000, 1_000, None),
        "tagged cpu, but used 0 % of a core for 12.3 s: tag it io, or let Trine route it"
    )]
    fn a_tag_that_does_not_fit_is_named(#[case] bound: Bound, #[case] timing: Timing, #[case] sentence: &str) {
        assert_eq!(advice(bound, Executor::Threads, &timing).as_deref(), Some(sentence));
    }

    #[test]
    fn a_held_event_loop_is_named() {
        let blocking_wait = timing(412_000, 1_000, Some(412_000));
        assert_eq!(
            advice(Bound::Io, Executor::Async, &blocking_wait).unwrap(),
            "held the event loop for 412 ms, so every other job on it waited"
        );
        assert_eq!(
            advice(Bound::Io, Executor::Async, &timing(412_000, 412_000, Some(411_000))).unwrap(),
            "tagged io, but used 100 % of a core for 412 ms and held the event loop for 411 ms: tag it cpu, or let Trine route it"
        );
    }

    #[test]
    fn work_that_a_busy_machine_kept_waiting_is_not_called_io() {
        let crowded_out = Timing { ctx_voluntary: Some(1), ctx_involuntary: Some(40), ..timing(500_000, 100_000, None) };
        assert_eq!(advice(Bound::Cpu, Executor::Threads, &crowded_out), None);
        let waited = Timing { ctx_voluntary: Some(40), ctx_involuntary: Some(1), ..crowded_out };
        assert!(advice(Bound::Cpu, Executor::Threads, &waited).is_some());
    }

    #[rstest]
    #[case::fits(Bound::Io, timing(500_000, 100_000, Some(2_000)))]
    #[case::between(Bound::Io, timing(500_000, 250_000, None))]
    #[case::too_short(Bound::Io, timing(9_000, 9_000, Some(9_000)))]
    #[case::not_measured(Bound::Io, Timing { wall_us: 500_000, ..Timing::default() })]
    fn otherwise_nothing_is_said(#[case] bound: Bound, #[case] timing: Timing) {
        assert_eq!(advice(bound, Executor::Async, &timing), None);
    }
}
