//! The CPU time of a call that may use only so much. Its host raises `CpuTimeExceeded` in it, and ends it if that does not help (`host/processes.py`); but
//! both are code of the process that the job has to itself, which it may keep from running. So it is looked at from here as well.

use std::time::Duration;

use super::host::Host;
use crate::measure::cpu_time_of;

/// How often to look.
const LOOK: Duration = Duration::from_millis(200);
/// What the host may use to end such a call by itself, which says more of it.
const BEYOND: Duration = Duration::from_secs(1);

/// Ends when a call of a host that makes one after the other has used more than it may, and the host has not ended it.
pub(super) async fn more_than(most: Duration, host: &Host, id: u64) {
    let mut before = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(used) = cpu_time_of(host.pid()).filter(|_| !host.is_behind(id)) else { continue };
        if used.saturating_sub(*before.get_or_insert(used)) > most + BEYOND {
            return;
        }
    }
}
