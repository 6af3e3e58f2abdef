//! What the kernel says that a thread or a process has used.

use std::cell::Cell;
use std::ops::{AddAssign, Sub};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::clock::{Monotonic, micros};

/// For how long after the kernel was asked what a thread has used it is taken for granted that it has computed since.
const FRESH: Duration = Duration::from_micros(200);

thread_local! {
    /// What the kernel said lately of the calling thread, and when.
    static LATELY: Cell<Option<(Monotonic, Usage)>> = const { Cell::new(None) };
}

/// CPU time in microseconds, and context switches. Of user and system time the sum is exact; the kernel estimates their shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in user mode.
    pub cpu_user_us: u64,
    /// CPU time in the kernel.
    pub cpu_system_us: u64,
    /// Context switches because the thread waited.
    pub ctx_voluntary: u64,
    /// Context switches because the kernel took the core away.
    pub ctx_involuntary: u64,
}

/// The CPU time of all threads of a process so far.
pub fn cpu_time_of(process: Pid) -> Option<Duration> {
    ClockId::pid_cpu_clock_id(process).and_then(clock_gettime).ok().map(Duration::from)
}

impl Usage {
    /// All that the calling thread has used since it started.
    pub fn of_thread() -> Self {
        // For the calling thread, the kernel tells getrusage what it knew at its latest tick, milliseconds ago. Reading the thread's
        // clock brings that up to date. (For RUSAGE_SELF it does so by itself.)
        let _ = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
        Self::of(UsageWho::RUSAGE_THREAD)
    }

    /// All that the calling thread has used until `now`, which is now. The kernel is not asked again within a moment in which the thread
    /// did not go to sleep: then it has computed, or others had its core for a part of that moment.
    pub(super) fn of_thread_until(now: Monotonic) -> Self {
        match LATELY.get().map(|(then, usage)| (now.since(then), usage)) {
            Some((since, usage)) if since < FRESH => Self { cpu_user_us: usage.cpu_user_us + micros(since), ..usage },
            _ => Self::of_thread_at(now),
        }
    }

    /// The same as the kernel has it.
    pub(super) fn of_thread_at(now: Monotonic) -> Self {
        let usage = Self::of_thread();
        LATELY.set(Some((now, usage)));
        usage
    }

    /// The calling thread goes to sleep.
    pub(super) fn falls_asleep() {
        LATELY.set(None);
    }

    /// All that the threads of this process have used since it started.
    pub fn of_process() -> Self {
        Self::of(UsageWho::RUSAGE_SELF)
    }

    /// All that those processes have used that this one has started and waited for, with those that these have waited for.
    pub fn of_children() -> Self {
        Self::of(UsageWho::RUSAGE_CHILDREN)
    }

    fn of(who: UsageWho) -> Self {
        // getrusage fails only for an unknown `who` or a bad address; neither can be.
        let Ok(usage) = getrusage(who) else { return Self::default() };
        let micros = |time: nix::sys::time::TimeVal| u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or(0);
        let count = |switches: i64| u64::try_from(switches).unwrap_or(0);
        Self {
            cpu_user_us: micros(usage.user_time()),
            cpu_system_us: micros(usage.system_time()),
            ctx_voluntary: count(usage.voluntary_context_switches()),
            ctx_involuntary: count(usage.involuntary_context_switches()),
        }
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        // The kernel's shares of user and system time are corrected as it learns, so one of them may stand still for a while.
        Self {
            cpu_user_us: self.cpu_user_us.saturating_sub(earlier.cpu_user_us),
            cpu_system_us: self.cpu_system_us.saturating_sub(earlier.cpu_system_us),
            ctx_voluntary: self.ctx_voluntary.saturating_sub(earlier.ctx_voluntary),
            ctx_involuntary: self.ctx_involuntary.saturating_sub(earlier.ctx_involuntary),
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.cpu_user_us += other.cpu_user_us;
        self.cpu_system_us += other.cpu_system_us;
        self.ctx_voluntary += other.ctx_voluntary;
        self.ctx_involuntary += other.ctx_involuntary;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn what_was_used_since_the_latest_tick_counts() {
        let clock = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
        let agrees = || {
            let (from, before, started) = (clock(), Usage::of_thread(), Instant::now());
            while started.elapsed() < Duration::from_micros(300) {
                std::hint::black_box((0..1_000_u64).sum::<u64>());
            }
            // The clock is read after the usage, so that it can't be what brings it up to date.
            let usage = Usage::of_thread() - before;
            let used = clock().saturating_sub(from);
            let counted = Duration::from_micros(usage.cpu_user_us + usage.cpu_system_us);
            used.abs_diff(counted) < Duration::from_micros(100)
        };
        // A busy machine may come in between the two readings now and then. Without an up-to-date clock hardly any would agree.
        let agreeing = (0..200).filter(|_| agrees()).count();
        assert!(agreeing > 100, "{agreeing} of 200");
    }
}
