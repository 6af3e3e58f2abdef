//! A report as text: the verdict, and bars.

use indicatif::HumanBytes;

use super::Comparison;
use crate::cli::human::micros;
use crate::cli::table::{or_dash, table};
use crate::comparison::page::{headline, on_threads};
use crate::comparison::report::{ControlRow, Report, Row};

/// The most columns of text, and of a bar.
const WIDTH: usize = 110;
const BAR: usize = 24;
/// From nothing to a whole column in eighths.
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// All of it.
pub(super) fn report(head: &Comparison, report: &Report) -> String {
    let kind = head.workload["type"].as_str().unwrap_or("?");
    let asked = format!(
        "{kind}, tagged {}: {} repetitions of {} tasks on {} cores; one task inline takes {}.",
        head.bound,
        report.repetitions,
        report.tasks_per_repetition,
        report.cores,
        or_dash(report.inline.first().map(|inline| micros(inline.wall_us.p50)))
    );
    let verdict = format!("{}  (confidence: {})", headline(report), report.verdict.confidence.as_str());
    let mut parts = vec![asked, format!("{verdict}\n{}", wrapped(&report.verdict.because)), matrix(report), controls(report)];
    parts.extend(report.gil.iter().map(|gil| wrapped(&on_threads(gil))));
    parts.join("\n\n")
}

fn matrix(report: &Report) -> String {
    let interpreters = report.inline.len() > 1;
    let columns = [
        ("executor", false),
        ("at once", true),
        ("times as fast as one after the other", false),
        ("between", false),
        ("latency p50", true),
        ("p99", true),
        ("cpu", true),
        ("hand-over", true),
        ("longest poll", true),
        ("neighbour p99", true),
        ("memory", true),
    ];
    let most = report.matrix.iter().filter_map(|row| row.speedup).fold(1.0, f64::max);
    let row = |row: &Row| {
        let name = match &row.interpreter {
            Some(interpreter) if interpreters => format!("{} {interpreter}", row.executor),
            _ => row.executor.to_string(),
        };
        let failed = || row.failure.as_ref().map(|failure| format!("{} of {} failed: {failure}", row.failures, row.tasks));
        vec![
            name,
            row.concurrency.to_string(),
            or_dash(row.speedup.map(|speedup| format!("{:<BAR$} {speedup:.2}", bar(speedup / most))).or_else(failed)),
            or_dash(row.spread.map(|spread| format!("{:.2} - {:.2}", spread.low, spread.high))),
            or_dash(row.latency_us.map(|spans| micros(spans.p50))),
            or_dash(row.latency_us.map(|spans| micros(spans.p99))),
            or_dash(row.cpu_share.map(|share| format!("{:.0} %", share * 100.0))),
            or_dash(row.handover.map(|handover| micros(handover.cost_us))),
            or_dash(row.longest_poll_us.map(micros)),
            or_dash(row.bystander_us.map(|bystander| micros(bystander.p99))),
            or_dash(row.runners_pss_bytes.map(|bytes| HumanBytes(bytes).to_string())),
        ]
    };
    table(&columns, report.matrix.iter().map(row))
}

fn controls(report: &Report) -> String {
    let gains = |rows: &[ControlRow]| {
        rows.iter().map(|row| format!("{} {:.2}", row.executor, row.speedup)).collect::<Vec<_>>().join(", ")
    };
    let controls = &report.controls;
    format!(
        "Controls, {} at once: pure waiting {}; pure computing {}.",
        controls.concurrency,
        gains(&controls.waiting.rows),
        gains(&controls.computing.rows)
    )
}

/// A bar of this share of its full length.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a few columns")]
fn bar(share: f64) -> String {
    let eighths = (share.clamp(0.0, 1.0) * (BAR * 8) as f64).round() as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

/// Text in lines.
pub(super) fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::example_report;
    use crate::job::Bound;
    use serde_json::json;

    #[test]
    fn a_report_is_text_with_bars() {
        let head = Comparison {
            id: "01".into(),
            state: "finished".into(),
            error: None,
            workload: json!({ "type": "primes" }),
            bound: Bound::Cpu,
            progress: None,
        };
        let text = report(&head, &example_report());
        for expected in
            ["primes, tagged cpu", "Threads: 1.96 times as fast", "████████████████████████ 1.96", "pure waiting async 1.98"]
        {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let because = text.lines().filter(|line| line.starts_with("Threads ran") || line.starts_with("It computes"));
        assert!(because.into_iter().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn bars_have_eighths() {
        assert_eq!((bar(0.0).as_str(), bar(1.0).chars().count(), bar(0.5).chars().count()), ("", BAR, BAR / 2));
        assert_eq!(bar(1.0 / 192.0), "▏");
    }
}
