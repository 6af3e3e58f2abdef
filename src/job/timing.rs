use serde::{Deserialize, Serialize};

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

impl Timing {
    /// CPU time in user mode and in the kernel together.
    pub fn cpu_us(&self) -> Option<u64> {
        Some(self.cpu_user_us? + self.cpu_system_us?)
    }

    /// CPU time over wall time, rounded to a thousandth; over 1 if the work used several cores. Absent without a CPU figure or a wall time.
    #[expect(clippy::cast_precision_loss, reason = "microseconds stay far below 2^53")]
    pub fn cpu_share(&self) -> Option<f64> {
        let cpu = self.cpu_us()?;
        (self.wall_us > 0).then(|| (cpu as f64 / self.wall_us as f64 * 1000.0).round() / 1000.0)
    }

    /// What the work turned out to be.
    pub fn observed(&self) -> Option<Observed> {
        self.cpu_share().map(|share| match share {
            share if share <= 0.3 => Observed::Io,
            share if share >= 0.7 => Observed::Cpu,
            _ => Observed::Mixed,
        })
    }
}
