//! Jobs as CSV, a column a figure.

use super::view::TimingView;
use crate::job::{Failure, Finished, Job, Observed};

/// What the cells of one line are made of.
struct Line<'a> {
    job: &'a Job,
    finished: Option<&'a Finished>,
    timing: Option<TimingView>,
}

impl Line<'_> {
    fn failure(&self) -> Option<&Failure> {
        self.finished.and_then(|finished| finished.outcome.failure())
    }
}

type Column = (&'static str, fn(&Line<'_>) -> String);

/// Each column with how its cell is written. What is absent is an empty cell.
const COLUMNS: [Column; 33] = [
    ("id", |line| line.job.id.to_string()),
    ("state", |line| line.job.state.as_str().to_owned()),
    ("bound", |line| line.job.submission.bound.to_string()),
    ("workload", |line| line.job.submission.workload.kind.clone()),
    ("executor", |line| line.job.route.executor.to_string()),
    ("rule", |line| line.job.route.rule.to_string()),
    ("attempt", |line| line.job.attempt.to_string()),
    ("accepted_at", |line| line.job.accepted_at.to_string()),
    ("started_at", |line| text(line.finished.and_then(|finished| finished.started_at))),
    ("finished_at", |line| text(line.finished.map(|finished| finished.finished_at))),
    ("queue_us", |line| figure(line, |timing| Some(timing.queue_us))),
    ("dispatch_us", |line| figure(line, |timing| Some(timing.dispatch_us))),
    ("wall_us", |line| figure(line, |timing| Some(timing.wall_us))),
    ("cpu_user_us", |line| figure(line, |timing| timing.cpu_user_us)),
    ("cpu_system_us", |line| figure(line, |timing| timing.cpu_system_us)),
    ("cpu_share", |line| figure(line, |timing| timing.cpu_share)),
    ("polls", |line| figure(line, |timing| timing.polls)),
    ("longest_poll_us", |line| figure(line, |timing| timing.longest_poll_us)),
    ("max_rss_bytes", |line| figure(line, |timing| timing.max_rss_bytes)),
    ("ctx_voluntary", |line| figure(line, |timing| timing.ctx_voluntary)),
    ("ctx_involuntary", |line| figure(line, |timing| timing.ctx_involuntary)),
    ("core_wait_us", |line| figure(line, |timing| timing.core_wait_us)),
    ("loop_wait_us", |line| figure(line, |timing| timing.loop_wait_us)),
    ("gil_wait_us", |line| figure(line, |timing| timing.gil_wait_us)),
    ("held_jobs", |line| figure(line, |timing| timing.held_jobs)),
    ("observed", |line| figure(line, |timing| timing.observed.map(Observed::as_str))),
    ("advice", |line| figure(line, |timing| timing.advice.clone())),
    ("error_kind", |line| text(line.failure().map(|failure| failure.kind))),
    ("error_message", |line| no_formula(text(line.failure().map(|failure| &failure.message)))),
    ("output", |line| text(line.finished.and_then(|finished| finished.outcome.output()))),
    ("parameters", |line| line.job.submission.workload.json.to_string()),
    ("tags", |line| serde_json::to_string(&line.job.submission.tags).unwrap_or_default()),
    ("owner", |line| text(line.job.submission.owner)),
];

/// The table of these jobs, a line a job, below a line of names if it is the beginning.
pub(super) fn csv(jobs: &[Job], beginning: bool) -> String {
    let mut table = csv::Writer::from_writer(Vec::new());
    // Writing to memory does not fail, nor does a line with as many cells as the first.
    if beginning {
        let _ = table.write_record(COLUMNS.map(|(name, _)| name));
    }
    for job in jobs {
        let line = Line { job, finished: job.state.finished(), timing: TimingView::of_last(job) };
        let _ = table.write_record(COLUMNS.map(|(_, cell)| cell(&line)));
    }
    table.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

fn figure<T: ToString>(line: &Line<'_>, figure: impl FnOnce(&TimingView) -> Option<T>) -> String {
    text(line.timing.as_ref().and_then(figure))
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// Text that others wrote, as a cell that a spreadsheet takes for text: what begins like a formula has a `'` before it.
fn no_formula(text: String) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::example;
    use rstest::rstest;

    #[test]
    fn no_jobs_give_the_names_alone() {
        assert_eq!(csv(&[], true), format!("{}\n", COLUMNS.map(|(name, _)| name).join(",")));
    }

    #[rstest]
    #[case("=1+1", "'=1+1")]
    #[case("+1", "'+1")]
    #[case("-1", "'-1")]
    #[case("@A1", "'@A1")]
    #[case("\t=1", "'\t=1")]
    #[case("\r=1", "'\r=1")]
    #[case("a=1", "a=1")]
    #[case("'=1", "'=1")]
    #[case("", "")]
    fn a_message_is_no_formula(#[case] message: &str, #[case] cell: &str) {
        assert_eq!(no_formula(message.to_owned()), cell);
    }

    #[test]
    fn a_line_has_figures_and_json() {
        let table = example::result_rows();
        let mut reader = csv::Reader::from_reader(table.as_str().unwrap().as_bytes());
        let names = reader.headers().unwrap().clone();
        let line = reader.records().next().unwrap().unwrap();
        let cell = |name: &str| &line[names.iter().position(|column| column == name).unwrap()];
        assert_eq!((cell("state"), cell("workload"), cell("executor")), ("succeeded", "primes", "threads"));
        assert_eq!((cell("wall_us"), cell("cpu_share"), cell("observed"), cell("polls")), ("23040", "0.984", "cpu", ""));
        assert_eq!((cell("output"), cell("tags")), (r#"{"count":78498}"#, r#"{"team":"search"}"#));
        assert_eq!(cell("started_at"), "2026-01-31T12:00:00.000210Z");
    }
}
