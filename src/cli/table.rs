//! Jobs and results as tables for people.

use std::io::{IsTerminal as _, stdout};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::HumanBytes;
use serde::Deserialize;
use serde_json::Value;

use super::answer::{Accepted, Attempt, Job, Related, Timing};
use super::human::micros;
use super::print::on_one_line;
use crate::job::{Failure, FailureKind};

/// The most characters of a value in a row of a list.
const CELL: usize = 60;
/// The most characters, and lines, of a value where people look at one job.
const LONGEST: usize = 2_000;
const MOST_LINES: usize = 24;

/// A column of a list: its name, and whether it holds numbers.
pub(super) type Column<'a> = (&'a str, bool);

/// A table without lines, whose first row has the names of the columns.
pub(super) fn table(columns: &[Column<'_>], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(columns.iter().map(|(name, _)| name.to_uppercase()));
    table.add_rows(rows.into_iter().map(|row| row.iter().map(|cell| on_one_line(cell)).collect::<Vec<_>>()));
    for (column, (_, number)) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        if *number {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// What was accepted, one a row. What was there before is marked.
pub(super) fn accepted(jobs: &[Accepted]) -> String {
    let columns = [("id", false), ("state", false), ("executor", false), ("because", false)];
    let row = |job: &Accepted| {
        let state = if job.existing { format!("{} (existing)", job.state) } else { job.state.clone() };
        vec![job.id.clone(), state, job.route.executor.to_string(), job.route.reason.clone()]
    };
    table(&columns, jobs.iter().map(row))
}

/// Jobs wherever they are, one a row.
pub(super) fn jobs<'a>(jobs: impl IntoIterator<Item = &'a Job>) -> String {
    let columns = [
        ("id", false),
        ("state", false),
        ("workload", false),
        ("bound", false),
        ("executor", false),
        ("attempt", true),
        ("accepted", false),
    ];
    let row = |job: &Job| {
        let Job { id, state, bound, route, attempt, accepted_at, .. } = job;
        vec![
            id.clone(),
            state.clone(),
            job.kind(),
            bound.to_string(),
            route.executor.to_string(),
            attempt.to_string(),
            accepted_at.clone(),
        ]
    };
    table(&columns, jobs.into_iter().map(row))
}

/// Finished jobs, one a row.
pub(super) fn results<'a>(jobs: impl IntoIterator<Item = &'a Job>) -> String {
    let columns = [
        ("id", false),
        ("state", false),
        ("workload", false),
        ("bound", false),
        ("executor", false),
        ("queue", true),
        ("wall", true),
        ("cpu", true),
        ("observed", false),
        ("output", false),
    ];
    let row = |job: &Job| {
        let timing = job.timing.as_ref();
        vec![
            job.id.clone(),
            job.state.clone(),
            job.kind(),
            job.bound.to_string(),
            job.route.executor.to_string(),
            or_dash(timing.map(|timing| micros(timing.queue_us))),
            or_dash(timing.map(|timing| micros(timing.wall_us))),
            or_dash(timing.and_then(Timing::cpu_us).map(micros)),
            or_dash(timing.and_then(|timing| timing.observed.clone())),
            shortened(&outcome(job)),
        ]
    };
    table(&columns, jobs.into_iter().map(row))
}

/// What a job waits for, in words.
pub(super) fn waiting(waiting: &Value) -> String {
    let (text, number) =
        (|field: &str| waiting[field].as_str().unwrap_or_default(), |field: &str| waiting[field].as_u64().unwrap_or(0));
    match text("reason") {
        "time" => format!("its time, {}", text("until")),
        "quarantine" => format!("{}: {} processes in a row have died under work like it", text("until"), number("deaths")),
        "jobs" => "other jobs to end".into(),
        "node" => match waiting["requires"].as_object() {
            Some(labels) if !labels.is_empty() => format!("a node with {}", waiting["requires"]),
            _ => "a node that runs jobs".into(),
        },
        "drained" => "a node that may run it to be resumed: those that there are have been drained".into(),
        "slot" => "a slot of its executor".into(),
        "quota" => format!("another job of its owner to end: {} run, as many as its quota allows", number("running")),
        "concurrency" => format!("{}: {} of {} run", text("key"), number("running"), number("limit")),
        "rate" => format!(
            "{}: {} in {}, the next at {}",
            text("key"),
            number("limit"),
            micros(number("per_ms").saturating_mul(1_000)),
            text("until")
        ),
        other => other.into(),
    }
}

/// All of one job, one field a row.
pub(super) fn details(job: &Job) -> String {
    let mut rows = vec![
        ("id", Some(job.id.clone())),
        ("state", Some(job.state.clone())),
        ("bound", Some(job.bound.to_string())),
        ("workload", Some(cut(job.workload.get()))),
        ("executor", Some(format!("{}: {}", job.route.executor, job.route.reason))),
        ("priority", job.priority.filter(|&priority| priority != 0).map(|priority| priority.to_string())),
        ("deadline", job.deadline_ms.map(|ms| micros(ms.saturating_mul(1_000)))),
        (
            "tags",
            (!job.tags.is_empty())
                .then(|| job.tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")),
        ),
        ("owner", job.owner.clone()),
        ("waits for", job.waiting.as_ref().map(waiting)),
        ("attempt", Some(job.attempt.to_string())),
        ("accepted", Some(job.accepted_at.clone())),
        ("due", job.due_at.clone()),
        ("expires", job.expires_at.clone()),
        ("started", job.started_at.clone()),
        ("finished", job.finished_at.clone()),
    ];
    if let Some(timing) = &job.timing {
        let switches = timing.ctx_voluntary.zip(timing.ctx_involuntary);
        rows.extend([
            ("queue", Some(micros(timing.queue_us))),
            ("dispatch", Some(micros(timing.dispatch_us))),
            ("wall", Some(micros(timing.wall_us))),
            (
                "cpu",
                timing
                    .cpu_user_us
                    .zip(timing.cpu_system_us)
                    .map(|(user, system)| format!("{} user, {} system", micros(user), micros(system))),
            ),
            ("cpu share", timing.cpu_share.map(|share| share.to_string())),
            (
                "polls",
                timing
                    .polls
                    .zip(timing.longest_poll_us)
                    .map(|(polls, longest)| format!("{polls}, the longest {}", micros(longest))),
            ),
            ("peak memory", timing.max_rss_bytes.map(|bytes| HumanBytes(bytes).to_string())),
            ("waits", waits(timing)),
            ("switches", switches.map(|(voluntary, involuntary)| format!("{voluntary} voluntary, {involuntary} involuntary"))),
            ("observed", timing.observed.clone()),
            ("advice", timing.advice.clone()),
        ]);
    }
    if let Some(graph) = &job.graph {
        rows.push(("after", related(&graph.parents, graph.parent_count)));
        rows.push(("before", related(&graph.children, graph.child_count)));
    }
    // The last one is what stands above.
    if let [earlier @ .., _] = job.attempts.as_slice() {
        rows.extend(earlier.iter().map(|attempt| ("earlier", Some(tried(attempt)))));
    }
    if job.ending().is_some() {
        rows.push((if job.succeeded() { "output" } else { "error" }, Some(cut(&outcome(job)))));
        rows.push(("traceback", job.error.as_ref().and_then(traceback)));
    }
    // Further lines stand below the first, so that none of them looks like a field.
    let row = |(name, value): (&str, Option<String>)| Some(format!("{name:<12} {}", value?.replace('\n', "\n             ")));
    rows.into_iter().filter_map(row).collect::<Vec<_>>().join("\n")
}

/// The jobs that come before or after one, a line each; those of them that are told.
fn related(jobs: &[Related], all: u64) -> Option<String> {
    let line = |job: &Related| {
        let state = job.state.as_deref().unwrap_or("not kept any more");
        let name = job.name.as_ref().map(|name| format!(", {name}")).unwrap_or_default();
        format!("{} {state}{name}", job.id)
    };
    let shown = jobs.iter().take(MOST_LINES).map(line);
    let rest = all.saturating_sub(jobs.len().min(MOST_LINES) as u64);
    let lines: Vec<_> = shown.chain((rest > 0).then(|| format!("and {rest} more"))).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// What an attempt waited for while it ran, as far as that was measured.
fn waits(timing: &Timing) -> Option<String> {
    let waits = [("a core", timing.core_wait_us), ("the event loop", timing.loop_wait_us), ("the GIL", timing.gil_wait_us)];
    let waits: Vec<_> = waits.iter().filter_map(|(what, us)| Some(format!("{} for {what}", micros((*us)?)))).collect();
    (!waits.is_empty()).then(|| waits.join(", "))
}

/// A text as it is shown of one job: what people would have to scroll past is cut, what a program reads is not.
fn cut(text: &str) -> String {
    if stdout().is_terminal() { beginning(text) } else { text.to_owned() }
}

/// A text, unless it is one that nobody reads to its end.
fn beginning(text: &str) -> String {
    let by_length = text.char_indices().nth(LONGEST).map(|(end, _)| end);
    // A line break at the very end begins no line.
    let by_lines = text.trim_end().match_indices('\n').nth(MOST_LINES - 1).map(|(end, _)| end);
    match by_length.into_iter().chain(by_lines).min() {
        Some(end) => format!("{}… ({}; --json shows all of it)", &text[..end], HumanBytes(text.len() as u64)),
        None => text.to_owned(),
    }
}

/// Where a Python exception came from, if it had come from anywhere.
pub(super) fn traceback(failure: &Failure) -> Option<String> {
    #[derive(Deserialize)]
    struct Python {
        traceback: String,
    }
    let Python { traceback } = serde_json::from_str(failure.python.as_ref()?.get()).ok()?;
    let traceback = traceback.trim_end();
    (!traceback.is_empty()).then(|| traceback.to_owned())
}

/// A value that may be absent.
pub(super) fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".to_owned())
}

/// An attempt in a line.
fn tried(Attempt { number, state, started_at, error, timing }: &Attempt) -> String {
    let wall = timing.as_ref().map(|timing| format!(" after {}", micros(timing.wall_us))).unwrap_or_default();
    let said = |error: &Failure| if error.kind.as_str() == state { error.message.clone() } else { error.to_string() };
    let error = error.as_ref().map(|error| format!(": {}", shortened(&said(error)))).unwrap_or_default();
    format!("attempt {number} of {started_at}, {state}{wall}{error}")
}

fn outcome(job: &Job) -> String {
    match (&job.error, &job.output) {
        (Some(Failure { kind: FailureKind::Error, message, .. }), _) => message.clone(),
        (Some(failure), _) => failure.to_string(),
        (None, None) => or_dash(None),
        // A text without its quotes.
        (None, Some(output)) => serde_json::from_str(output.get()).unwrap_or_else(|_| output.get().to_owned()),
    }
}

/// The first line, cut to a width that leaves a row a row.
pub(super) fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(CELL) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_an_attempt_ended_is_said_once() {
        let attempt = |state: &str, kind: &str| {
            let error = serde_json::json!({ "kind": kind, "message": "so" });
            let attempt =
                serde_json::json!({ "attempt": 1, "state": state, "started_at": "now", "error": error, "timing": null });
            tried(&serde_json::from_value(attempt).unwrap())
        };
        assert_eq!(attempt("lost", "lost"), "attempt 1 of now, lost: so");
        assert_eq!(attempt("failed", "timeout"), "attempt 1 of now, failed: timeout: so");
    }

    #[test]
    fn a_wait_for_a_node_is_in_words() {
        let said = |json| waiting(&json);
        assert_eq!(said(serde_json::json!({ "reason": "node", "requires": {} })), "a node that runs jobs");
        let labels = serde_json::json!({ "reason": "node", "requires": { "gpu": "a100" } });
        assert_eq!(said(labels), "a node with {\"gpu\":\"a100\"}");
        assert!(said(serde_json::json!({ "reason": "drained" })).ends_with("have been drained"));
    }

    #[test]
    fn what_nobody_reads_to_its_end_is_cut() {
        let lines = "line\n".repeat(MOST_LINES);
        assert_eq!(beginning(&lines), lines);
        let more = format!("{lines}more");
        assert_eq!(beginning(&more), format!("{}… (124 B; --json shows all of it)", lines.trim_end()));
        let long = "é".repeat(LONGEST + 1);
        assert!(beginning(&long).starts_with(&format!("{}…", "é".repeat(LONGEST))));
        assert_eq!(beginning(&long[2..]), long[2..]);
    }
}
