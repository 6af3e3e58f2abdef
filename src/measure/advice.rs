//! What an attempt's figures say against its tag or its executor.

use std::time::Duration;

use crate::job::{Bound, Executor, FindingKind, FindingKinds, Timing};

/// One sentence if the figures contradict the client's tag, or if the work held the event loop; with the figures in it.
pub fn advice(bound: Bound, executor: Executor, timing: &Timing) -> Option<String> {
    let kinds = FindingKinds::of(bound, executor, timing);
    let better_tag = if kinds.contains(FindingKind::Computes) {
        Some(Bound::Cpu)
    } else if kinds.contains(FindingKind::Waits) {
        Some(Bound::Io)
    } else {
        None
    };
    let held = timing.held_us().filter(|_| kinds.contains(FindingKind::HeldLoop)).map(span);
    let others = timing.held_jobs.map(|others| match others {
        0 => " while no other job was on it".to_owned(),
        1 => " while another job was on it".to_owned(),
        others => format!(" while {others} other jobs were on it"),
    });
    match (better_tag, held) {
        (Some(tag), held) => {
            let used = used(timing)?;
            let held = held
                .map_or_else(String::new, |held| format!(" and held the event loop for {held}{}", others.unwrap_or_default()));
            Some(format!("tagged {bound}, but used {used}{held}: tag it {tag}, or leave it to `routing` measured"))
        }
        (None, Some(held)) => {
            let others = others.unwrap_or_else(|| ", so every other job on it waited".into());
            Some(format!("held the event loop for {held}{others}"))
        }
        (None, None) => None,
    }
}

/// The share of a core, of the time in which it could run.
fn used(timing: &Timing) -> Option<String> {
    // The kernel may tell of longer waits for a core than there was time: what is over one core, as of several threads, is what it got.
    let percent = timing.demand()?.min(timing.cpu_share()?.max(1.0)) * 100.0;
    let kept = timing.wall_us.saturating_sub(timing.own_us());
    // A twentieth makes no difference to what is said.
    if kept * 20 < timing.wall_us {
        return Some(format!("{percent:.0} % of a core for {}", span(timing.wall_us)));
    }
    let own = span(timing.own_us());
    Some(format!("{percent:.0} % of a core for {own} (for another {} the machine was too busy to run it)", span(kept)))
}

/// Whole milliseconds, or seconds with one decimal from ten seconds on.
pub fn span(us: u64) -> String {
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
        "tagged io, but used 97 % of a core for 412 ms: tag it cpu, or leave it to `routing` measured"
    )]
    #[case(
        Bound::Cpu,
        timing(12_340_000, 1_000, None),
        "tagged cpu, but used 0 % of a core for 12.3 s: tag it io, or leave it to `routing` measured"
    )]
    #[case(
        Bound::Io,
        Timing { core_wait_us: Some(588_000), ..timing(1_000_000, 400_000, None) },
        "tagged io, but used 97 % of a core for 412 ms (for another 588 ms the machine was too busy to run it): tag it cpu, or \
         leave it to `routing` measured"
    )]
    #[case(
        Bound::Io,
        Timing { core_wait_us: Some(475_000), ..timing(430_000, 11_000, None) },
        "tagged io, but used 100 % of a core for 11 ms (for another 419 ms the machine was too busy to run it): tag it cpu, or \
         leave it to `routing` measured"
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
            advice(Bound::Io, Executor::Async, &Timing { held_jobs: Some(380), ..blocking_wait }).unwrap(),
            "held the event loop for 412 ms while 380 other jobs were on it"
        );
        assert_eq!(
            advice(Bound::Io, Executor::Async, &Timing { held_jobs: Some(0), ..blocking_wait }).unwrap(),
            "held the event loop for 412 ms while no other job was on it"
        );
        assert_eq!(
            advice(Bound::Io, Executor::Async, &timing(412_000, 412_000, Some(411_000))).unwrap(),
            "tagged io, but used 100 % of a core for 412 ms and held the event loop for 411 ms: tag it cpu, or leave it to `routing` measured"
        );
    }

    #[test]
    fn work_that_a_busy_machine_kept_waiting_is_not_called_io() {
        let crowded_out = Timing { ctx_voluntary: Some(1), ctx_involuntary: Some(40), ..timing(500_000, 100_000, None) };
        assert_eq!(advice(Bound::Cpu, Executor::Threads, &crowded_out), None);
        let waited = Timing { ctx_voluntary: Some(40), ctx_involuntary: Some(1), ..crowded_out };
        assert!(advice(Bound::Cpu, Executor::Threads, &waited).is_some());
        let held_by_the_machine = Timing { core_wait_us: Some(400_000), ..timing(412_000, 6_000, Some(410_000)) };
        assert_eq!(advice(Bound::Io, Executor::Async, &held_by_the_machine), None);
    }

    #[rstest]
    #[case::fits(Bound::Io, timing(500_000, 100_000, Some(2_000)))]
    #[case::between(Bound::Io, timing(500_000, 250_000, None))]
    #[case::too_short(Bound::Io, timing(9_000, 9_000, Some(9_000)))]
    #[case::too_short_without_the_machine(Bound::Io, Timing { core_wait_us: Some(20_000), ..timing(29_000, 9_000, None) })]
    #[case::not_measured(Bound::Io, Timing { wall_us: 500_000, ..Timing::default() })]
    fn otherwise_nothing_is_said(#[case] bound: Bound, #[case] timing: Timing) {
        assert_eq!(advice(bound, Executor::Async, &timing), None);
    }
}
