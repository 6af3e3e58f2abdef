//! What else the machine had to do while a comparison ran.

use super::report::Pressure;
use crate::clock::{Monotonic, micros};
use crate::dispatch::Dispatcher;
use crate::job::Queue;
use crate::measure::Usage;
use crate::measure::machine::{Ticks, descendants, used_us};

/// Watches from its start on.
pub(super) struct Watch {
    began: Monotonic,
    ticks: Option<Ticks>,
    ours: u64,
    jobs: u64,
}

impl Watch {
    pub(super) fn start(dispatcher: &Dispatcher) -> Self {
        let mut watch = Self { began: Monotonic::now(), ticks: Ticks::now(), ours: ours_us(), jobs: 0 };
        watch.look(dispatcher);
        watch
    }

    /// Looks at what may be gone later: jobs of clients.
    pub(super) fn look(&mut self, dispatcher: &Dispatcher) {
        self.jobs = self.jobs.max(dispatcher.queues().iter().map(|queue| queue.depth.running).sum());
    }

    /// What came of it.
    #[expect(clippy::cast_precision_loss, reason = "shares")]
    pub(super) fn end(mut self, dispatcher: &Dispatcher) -> Pressure {
        self.look(dispatcher);
        let since = self.ticks.zip(Ticks::now()).filter(|(before, now)| now.all > before.all);
        let Some((before, now)) = since else { return Pressure { jobs: self.jobs, ..Pressure::default() } };
        let all = (now.all - before.all) as f64;
        let ours = ours_us().saturating_sub(self.ours) as f64;
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

/// What this server has used, and what belongs to it: its threads, its processes, the programs that they ran. A process that ends goes from
/// those that live to those that the server has waited for, with all that it has used.
fn ours_us() -> u64 {
    let own = [Usage::of_process(), Usage::of_children()].map(|usage| usage.cpu_user_us + usage.cpu_system_us);
    own.into_iter().chain(descendants(std::process::id()).into_iter().filter_map(used_us)).sum()
}

/// The processes that serve a queue, of one interpreter if it has several: what they hold in memory together, and how many they are.
pub(super) fn runners(dispatcher: &Dispatcher, queue: Queue, interpreter: Option<&str>) -> (Option<u64>, u32) {
    let mut workers = dispatcher.executors().workers(queue);
    workers.retain(|worker| interpreter.is_none() || worker.interpreter.as_deref() == interpreter);
    let held: Vec<u64> = workers.iter().filter_map(|worker| crate::measure::memory::proportional_bytes(worker.pid)).collect();
    let count = u32::try_from(workers.len()).unwrap_or(u32::MAX);
    ((!workers.is_empty() && held.len() == workers.len()).then(|| held.iter().sum()), count)
}
