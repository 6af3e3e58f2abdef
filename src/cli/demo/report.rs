use std::collections::BTreeMap;

use crate::cli::answer::Job;
use crate::cli::human::micros;
use crate::cli::table::{or_dash, table};
use crate::job::Executor;

/// Outcomes and timings by executor and workload.
pub(super) fn outcomes<'a>(jobs: impl IntoIterator<Item = (&'a Job, bool)>) -> String {
    let mut groups = BTreeMap::<(Executor, String), Group<'_>>::new();
    for (job, right) in jobs {
        groups.entry((job.route.executor, job.kind())).or_default().add(job, right);
    }
    let columns = [
        ("executor", false),
        ("workload", false),
        ("jobs", true),
        ("ok", true),
        ("queue p50", true),
        ("wall p50", true),
        ("wall max", true),
        ("cpu share", true),
        ("observed", false),
    ];
    table(&columns, groups.into_iter().map(|((executor, workload), group)| group.row(executor, &workload)))
}

/// Why jobs went where they went, each reason once.
pub(super) fn routes(jobs: &[&Job]) -> String {
    let mut routes = BTreeMap::<_, usize>::new();
    for job in jobs {
        *routes.entry((job.kind(), job.bound, job.route.executor, job.route.reason.as_str())).or_default() += 1;
    }
    let columns = [("workload", false), ("tag", false), ("executor", false), ("jobs", true), ("because", false)];
    let row = |((workload, bound, executor, reason), jobs): ((String, _, _, &str), usize)| {
        vec![workload, format!("{bound}"), format!("{executor}"), jobs.to_string(), reason.to_owned()]
    };
    table(&columns, routes.into_iter().map(row))
}

/// What the figures say against tags and executors, one sentence for each workload on each executor. `None` if nothing.
pub(super) fn advice(jobs: &[&Job]) -> Option<String> {
    let mut advice = BTreeMap::new();
    for job in jobs {
        if let Some(sentence) = job.timing.as_ref().and_then(|timing| timing.advice.as_deref()) {
            advice.entry((job.kind(), job.route.executor)).or_insert(sentence);
        }
    }
    let columns = [("workload", false), ("executor", false), ("advice", false)];
    let row =
        |((workload, executor), sentence): ((String, Executor), &str)| vec![workload, executor.to_string(), sentence.to_owned()];
    (!advice.is_empty()).then(|| table(&columns, advice.into_iter().map(row)))
}

#[derive(Default)]
struct Group<'a> {
    jobs: usize,
    right: usize,
    queue: Vec<u64>,
    wall: Vec<u64>,
    /// CPU time and wall time of those of which the share is known.
    shared: (u64, u64),
    observed: BTreeMap<&'a str, usize>,
}

impl<'a> Group<'a> {
    fn add(&mut self, job: &'a Job, right: bool) {
        self.jobs += 1;
        self.right += usize::from(right);
        let Some(timing) = &job.timing else { return };
        self.queue.push(timing.queue_us);
        self.wall.push(timing.wall_us);
        if let Some(cpu) = timing.cpu_us().filter(|_| timing.cpu_share.is_some()) {
            self.shared = (self.shared.0 + cpu, self.shared.1 + timing.wall_us);
        }
        if let Some(observed) = &timing.observed {
            *self.observed.entry(observed).or_default() += 1;
        }
    }

    fn row(mut self, executor: Executor, workload: &str) -> Vec<String> {
        let (cpu, wall) = self.shared;
        #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
        let share = (wall > 0).then(|| format!("{:.2}", cpu as f64 / wall as f64));
        let observed = match self.observed.len() {
            0 | 1 => self.observed.keys().next().map(ToString::to_string),
            _ => Some(self.observed.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")),
        };
        vec![
            executor.to_string(),
            workload.to_owned(),
            self.jobs.to_string(),
            self.right.to_string(),
            or_dash(median(&mut self.queue).map(micros)),
            or_dash(median(&mut self.wall).map(micros)),
            or_dash(self.wall.iter().max().copied().map(micros)),
            or_dash(share),
            or_dash(observed),
        ]
    }
}

/// The middle one; the lower of both if there are two.
fn median(values: &mut [u64]) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_one() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [7]), Some(7));
        assert_eq!(median(&mut [9, 1, 5]), Some(5));
        assert_eq!(median(&mut [9, 1, 5, 2]), Some(2));
    }
}
