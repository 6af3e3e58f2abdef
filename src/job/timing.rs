use serde::{Deserialize, Serialize};

/// The figures of how long others kept an attempt from running are right to one part in so many, or better.
const KEPT_ERROR: u64 = 20;
/// For so long it may have had no core each time that the kernel took it away, in microseconds: that is the turn of dozens of others.
const LONGEST_WITHOUT_US: u64 = 100_000;

/// The clock of the CPU time is read before and after that of the wall time, so it may show so much too much, in microseconds.
const CLOCK_ERROR_US: u64 = 10;
/// What takes less time has no share of a core: the error would be a tenth of it, or all of it.
const SHORTEST_SHARE_US: u64 = 10 * CLOCK_ERROR_US;

/// What was measured of one attempt. Durations are in microseconds. A figure is of this attempt alone, or it is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// From accepted (or due) until claimed.
    pub queue_us: u64,
    /// From claimed until the work itself began: serialising, hand-over, the process hop.
    pub dispatch_us: u64,
    /// The work itself.
    pub wall_us: u64,
    /// CPU time spent in user mode.
    pub cpu_user_us: Option<u64>,
    /// CPU time spent in the kernel.
    pub cpu_system_us: Option<u64>,
    /// How often the future was polled (`async` only).
    pub polls: Option<u64>,
    /// The longest that one poll held the event loop (`async` only).
    pub longest_poll_us: Option<u64>,
    /// Peak resident memory (`processes` only), in bytes.
    pub max_rss_bytes: Option<u64>,
    /// Context switches because the work waited.
    pub ctx_voluntary: Option<u64>,
    /// Context switches because the kernel took the core away.
    pub ctx_involuntary: Option<u64>,
    /// Whether a global lock kept the runtime's threads from computing at once (Python only).
    pub gil: Option<bool>,
    /// How long it could have run but had no core, because others had them. On the event loop, at least so long.
    pub core_wait_us: Option<u64>,
    /// How long it was ready to go on, but others held the event loop (`async` only).
    pub loop_wait_us: Option<u64>,
    /// How long it may have waited for the global lock, by estimate: less than it did where who had the lock was kept from a core more than
    /// it was (Python on threads, and on the event loop where it used threads or blocked).
    pub gil_wait_us: Option<u64>,
    /// How many other jobs were on the event loop during the longest poll, if that was long (`async` only).
    pub held_jobs: Option<u64>,
    /// The longest that one poll held the event loop by itself: without the time in which it had no core, or its code was loaded (`async`
    /// only).
    pub longest_hold_us: Option<u64>,
}

/// What the work turned out to be, by its share of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Observed {
    /// It mostly waited: a share of up to 0.3.
    Io,
    /// It mostly computed: a share from 0.7.
    Cpu,
    /// Neither.
    Mixed,
}

impl Observed {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Io, Self::Cpu, Self::Mixed];

    /// The name that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Cpu => "cpu",
            Self::Mixed => "mixed",
        }
    }

    /// What work with this demand is.
    pub fn of_demand(demand: f64) -> Self {
        match demand {
            demand if demand <= 0.3 => Self::Io,
            demand if demand >= 0.7 => Self::Cpu,
            _ => Self::Mixed,
        }
    }
}

impl Timing {
    /// CPU time in user mode and in the kernel together.
    pub fn cpu_us(&self) -> Option<u64> {
        Some(self.cpu_user_us? + self.cpu_system_us?)
    }

    /// CPU time over wall time, rounded to a thousandth; over 1 if the work used several cores. Absent without a CPU figure, and of work
    /// that is too short to tell.
    pub fn cpu_share(&self) -> Option<f64> {
        self.cpu_thousandths().map(|share| ratio(share, 1_000))
    }

    /// The same in whole thousandths.
    pub fn cpu_thousandths(&self) -> Option<u64> {
        let (cpu, wall) = (self.cpu_us()?, self.wall_us);
        let cpu = if (wall..=wall.saturating_add(CLOCK_ERROR_US)).contains(&cpu) { wall } else { cpu };
        (wall >= SHORTEST_SHARE_US).then(|| cpu.saturating_mul(1_000).saturating_add(wall / 2) / wall)
    }

    /// How many cores it would use on a machine of its own: its CPU time over the time in which it was not kept from running. Unlike
    /// the share of a core that it got, this is the same on an idle and on a busy machine.
    pub fn demand(&self) -> Option<f64> {
        self.demand_without(0)
    }

    /// How long it could run, whether it did or waited for something: the wall time without what others kept it from running.
    pub fn own_us(&self) -> u64 {
        self.wall_us.saturating_sub(self.kept_us()).max(self.cpu_us().unwrap_or(0))
    }

    /// How long it held the event loop itself at the longest: not the time in which it had no core.
    pub fn held_us(&self) -> Option<u64> {
        // Versions before did not tell in which of the polls it had no core.
        self.longest_hold_us.or_else(|| Some(self.longest_poll_us?.saturating_sub(self.core_wait_us.unwrap_or(0))))
    }

    /// What the work turned out to be; absent if that can't be told, as of work that is too short to have a share of a core.
    pub fn observed(&self) -> Option<Observed> {
        self.cpu_thousandths()?;
        let observed = Observed::of_demand(self.demand()?);
        // If all that may have been waiting for the lock was, it might be something else.
        let otherwise = Observed::of_demand(self.demand_without(self.gil_wait_us.unwrap_or(0))?);
        // How long others kept it is known to a twentieth or so. That matters where it was most of the time.
        let sure = Observed::of_demand(self.demand_without(self.kept_us() / KEPT_ERROR)?) == observed;
        (observed == otherwise && sure && !self.crowded_out(observed)).then_some(observed)
    }

    /// Whether it may be something else than what it seems to be since it had no core for most of the time, which nobody tells of it.
    fn crowded_out(&self, observed: Observed) -> bool {
        let switches = self.ctx_involuntary.filter(|switches| Some(*switches) > self.ctx_voluntary);
        let Some(without) = switches.filter(|_| self.core_wait_us.is_none() && observed != Observed::Cpu) else { return false };
        let at_most = without.saturating_mul(LONGEST_WITHOUT_US).min(self.wall_us + 1);
        self.demand_without(at_most).is_none_or(|demand| Observed::of_demand(demand) != observed)
    }

    /// The demand, if a further part of the wall time was none of its own.
    fn demand_without(&self, further_us: u64) -> Option<f64> {
        let (cpu, wall) = (self.cpu_us()?, self.wall_us);
        if wall == 0 {
            return None;
        }
        let kept = self.kept_us() + further_us;
        // With several threads, each of them may have been kept; so many as wanted to run on average would each have had a core.
        Some(if cpu + kept > wall { ratio(cpu + kept, wall) } else { ratio(cpu, (wall - kept).max(1)) })
    }

    /// How long others kept it from running, where that is known.
    fn kept_us(&self) -> u64 {
        self.core_wait_us.unwrap_or(0) + self.loop_wait_us.unwrap_or(0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds stay far below 2^53")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn timing(wall_us: u64, cpu_us: u64, core_wait_us: Option<u64>) -> Timing {
        Timing { wall_us, cpu_user_us: Some(cpu_us), cpu_system_us: Some(0), core_wait_us, ..Timing::default() }
    }

    #[rstest]
    #[case::idle(timing(100, 100, Some(0)), 1.0)]
    #[case::a_third_of_a_core(timing(300, 100, Some(200)), 1.0)]
    #[case::half_of_it_waiting(timing(200, 100, Some(0)), 0.5)]
    #[case::the_same_on_a_busy_machine(timing(400, 100, Some(200)), 0.5)]
    #[case::two_threads(timing(100, 200, Some(0)), 2.0)]
    #[case::two_threads_on_a_busy_machine(timing(200, 200, Some(200)), 2.0)]
    #[case::waiting_on_a_busy_machine(timing(100_000, 10, Some(5_000)), 0.000_105)]
    fn the_demand_does_not_depend_on_others(#[case] timing: Timing, #[case] demand: f64) {
        assert!((timing.demand().unwrap() - demand).abs() < 1e-6, "{:?}", timing.demand());
    }

    #[rstest]
    #[case::too_short(timing(1, 7, None), None)]
    #[case::still_too_short(timing(99, 50, None), None)]
    #[case::the_other_clock_went_on(timing(200, 209, None), Some(1.0))]
    #[case::several_cores(timing(200, 400, None), Some(2.0))]
    #[case::rounded(timing(23_040, 22_680, None), Some(0.984))]
    fn no_share_of_a_core_is_made_up_by_its_error(#[case] timing: Timing, #[case] share: Option<f64>) {
        assert_eq!(timing.cpu_share(), share);
    }

    #[test]
    fn a_turn_that_did_not_come_is_no_waiting() {
        let crowded = Timing { loop_wait_us: Some(900), ..timing(1_000, 90, Some(0)) };
        assert_eq!(crowded.observed(), Some(Observed::Cpu));
    }

    #[test]
    fn what_can_not_be_told_is_absent() {
        // Threads of one interpreter: it may have computed all the time, or waited.
        let contended = Timing { gil_wait_us: Some(750), ..timing(1_000, 250, Some(0)) };
        assert_eq!(contended.observed(), None);
        assert_eq!(Timing { gil_wait_us: Some(50), ..contended }.observed(), Some(Observed::Io));
        let unknown = Timing { ctx_voluntary: Some(1), ctx_involuntary: Some(40), ..timing(1_000, 250, None) };
        assert_eq!(unknown.observed(), None);
        assert_eq!(Timing { core_wait_us: Some(0), ..unknown }.observed(), Some(Observed::Io));
        // A program that sleeps for four seconds: five switches do not explain them, but they may explain a third of a second.
        let sleeps = |wall_us| Timing { ctx_voluntary: Some(3), ctx_involuntary: Some(5), ..timing(wall_us, 6_000, None) };
        assert_eq!((sleeps(4_016_000).observed(), sleeps(300_000).observed()), (Some(Observed::Io), None));
        // The clocks tell too little of what is so short.
        assert_eq!([(0, 0), (5, 4), (99, 1)].map(|(wall_us, cpu_us)| timing(wall_us, cpu_us, Some(0)).observed()), [None; 3]);
        // It computed, but had a core for a twentieth of the time.
        let starved = timing(2_010_746, 91_539, Some(1_820_643));
        assert_eq!(starved.observed(), None);
        assert_eq!(timing(300, 90, Some(200)).observed(), Some(Observed::Cpu));
    }

    #[test]
    fn a_hold_is_told_from_a_core_that_was_taken_away() {
        let polled = Timing { longest_poll_us: Some(60_000), ..timing(60_000, 10_000, Some(50_000)) };
        assert_eq!(polled.held_us(), Some(10_000));
        // What it waited for a core in other polls is no part of it.
        assert_eq!(Timing { longest_hold_us: Some(55_000), ..polled }.held_us(), Some(55_000));
    }
}
