//! What else the machine had to do while a comparison ran.

use std::collections::BTreeMap;

use super::report::Pressure;
use crate::clock::{Monotonic, micros};
use crate::dispatch::Dispatcher;
use crate::job::Queue;
use crate::measure::Usage;
use crate::measure::machine::{Ticks, used_us};

/// Watches from its start on.
pub(super) struct Watch {
    began: Monotonic,
    ticks: Option<Ticks>,
    own: u64,
    /// What the processes that belong to this server have used, those that are gone included.
    runners: BTreeMap<u32, (u64, u64)>,
    jobs: u64,
}

impl Watch {
    pub(super) fn start(dispatcher: &Dispatcher) -> Self {
        let mut watch = Self { began: Monotonic::now(), ticks: Ticks::now(), own: own_us(), runners: BTreeMap::new(), jobs: 0 };
        watch.look(dispatcher);
        watch
    }

    /// Looks at what may be gone later: processes, and jobs of clients.
    pub(super) fn look(&mut self, dispatcher: &Dispatcher) {
        let status = dispatcher.queues();
        for pid in status.iter().flat_map(|queue| &queue.workers).map(|worker| worker.pid) {
            if let Some(used) = used_us(pid) {
                self.runners.entry(pid).or_insert((used, used)).1 = used;
            }
        }
        self.jobs = self.jobs.max(status.iter().map(|queue| queue.depth.running).sum());
    }

    /// What came of it.
    #[expect(clippy::cast_precision_loss, reason = "shares")]
    pub(super) fn end(mut self, dispatcher: &Dispatcher) -> Pressure {
        self.look(dispatcher);
        let since = self.ticks.zip(Ticks::now()).filter(|(before, now)| now.all > before.all);
        let Some((before, now)) = since else { return Pressure { jobs: self.jobs, ..Pressure::default() } };
        let all = (now.all - before.all) as f64;
        let runners: u64 = self.runners.values().map(|(before, now)| now - before).sum();
        let ours = (own_us() - self.own + runners) as f64;
        // A tick is of one core, so the machine's time is that of all its cores.
        let machine = micros(self.began.elapsed()) as f64 * f64::from(now.cores);
        let busy = (now.busy - before.busy) as f64 / all;
        let share = |share: f64| Some((share.clamp(0.0, 1.0) * 1000.0).round() / 1000.0);
        Pressure {
            others_share: share(busy - ours / machine),
            stolen_share: share((now.stolen - before.stolen) as f64 / all),
            jobs: self.jobs,
        }
    }
}

fn own_us() -> u64 {
    let Usage { cpu_user_us, cpu_system_us, .. } = Usage::of_process();
    cpu_user_us + cpu_system_us
}

/// The processes that serve a queue: what they hold in memory together, and how many they are.
pub(super) fn runners(dispatcher: &Dispatcher, queue: Queue) -> (Option<u64>, u32) {
    let workers = dispatcher.executors().workers(queue);
    let held: Vec<u64> = workers.iter().filter_map(|worker| crate::measure::machine::proportional_bytes(worker.pid)).collect();
    let count = u32::try_from(workers.len()).unwrap_or(u32::MAX);
    ((!workers.is_empty() && held.len() == workers.len()).then(|| held.iter().sum()), count)
}
