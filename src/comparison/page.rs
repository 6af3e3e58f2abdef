//! A report as one page of HTML that stands alone.

use askama::Template;
use indicatif::HumanBytes;

use super::picture::{self, DrawError, Figure};
use super::report::{Choice, Control, GilRelease, Report, Row, Verdict};
use super::request::Request;
use super::verdict::sentence;
use crate::clock::{Timestamp, readable};
use crate::job::{ComparisonId, Executor};

/// There is no page.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// A chart can't be drawn.
    #[error(transparent)]
    Chart(#[from] DrawError),
    /// The template can't be filled in.
    #[error("the page can't be written: {0}")]
    Template(#[from] askama::Error),
}

#[derive(Template)]
#[template(path = "comparison.html")]
struct Page<'a> {
    id: ComparisonId,
    workload: String,
    bound: &'a str,
    finished_at: Option<String>,
    headline: String,
    colour: String,
    report: &'a Report,
    charts: Vec<String>,
    rows: Vec<Line>,
    controls: Vec<Line>,
    gil: Vec<String>,
    machine: String,
    inline: String,
    json: String,
}

/// A row of a table.
struct Line {
    name: String,
    cells: Vec<String>,
    best: bool,
}

/// The page of a comparison.
pub fn html(id: ComparisonId, finished_at: Option<Timestamp>, request: &Request, report: &Report) -> Result<String, PageError> {
    let charts = [Figure::Speedup, Figure::Latency, Figure::Bystander];
    let (red, green, blue) = report.verdict.executor.colour();
    let page = Page {
        id,
        workload: request.kind(),
        bound: request.bound.as_str(),
        finished_at: finished_at.map(|at| at.to_string()),
        headline: headline(report),
        colour: format!("#{red:02x}{green:02x}{blue:02x}"),
        report,
        charts: charts.map(|figure| picture::svg(report, figure).map(|svg| inner(&svg))).into_iter().collect::<Result<_, _>>()?,
        rows: report.matrix.iter().map(|row| line(report, row)).collect(),
        controls: controls(report),
        gil: report.gil.iter().map(on_threads).collect(),
        machine: machine(report),
        inline: inline(report),
        json: pretty(request),
    };
    Ok(page.render()?)
}

/// The verdict in a line.
pub fn headline(report: &Report) -> String {
    let verdict = &report.verdict;
    let name = match &verdict.interpreter {
        Some(interpreter) => format!("{} of {interpreter}", verdict.executor.in_words()),
        None => verdict.executor.in_words().to_owned(),
    };
    let name = sentence(&name);
    match (verdict.speedup, report.matrix.iter().find(|row| is_best(verdict, row))) {
        (Some(speedup), Some(row)) => format!("{name}: {speedup:.2} times as fast, {} at once", row.at_once),
        _ => name,
    }
}

/// Whether it is the row that the verdict is about.
fn is_best(verdict: &Verdict, row: &Row) -> bool {
    Choice::from(row.executor) == verdict.executor
        && Some(row.concurrency) == verdict.concurrency
        && (verdict.interpreter.is_none() || verdict.interpreter == row.interpreter)
}

/// Where a workload is on threads of an interpreter, between pure computing and pure waiting. What follows of its lock the verdict says:
/// that knows how sure it is.
pub fn on_threads(gil: &GilRelease) -> String {
    let GilRelease { interpreter, gil, concurrency, speedup, computing, waiting, released } = gil;
    let untold = match released {
        _ if !gil => " This interpreter has no global lock.",
        Some(_) => "",
        None => " That is too close together to tell how much of the lock it releases.",
    };
    format!(
        "{concurrency} threads of {interpreter} ran it {speedup:.2} times as fast; pure computing {computing:.2} times, pure waiting \
         {waiting:.2} times.{untold}"
    )
}

fn line(report: &Report, row: &Row) -> Line {
    let dash = || "-".to_owned();
    let figure = |value: Option<String>| value.unwrap_or_else(dash);
    Line {
        name: report.series(row.executor, row.interpreter.as_deref()),
        best: is_best(&report.verdict, row),
        cells: vec![
            row.concurrency.to_string(),
            figure(row.speedup.map(|speedup| format!("{speedup:.2}"))),
            figure(row.spread.map(|spread| format!("{:.2} - {:.2}", spread.low, spread.high))),
            figure(row.throughput_per_s.map(|throughput| format!("{throughput:.1}"))),
            figure(row.latency_us.map(|spans| readable(spans.p50))),
            figure(row.latency_us.map(|spans| readable(spans.p99))),
            figure(row.cpu_share.map(|share| format!("{:.0} %", share * 100.0))),
            figure(row.handover.map(|handover| readable(handover.cost_us))),
            figure(row.longest_poll_us.map(readable)),
            figure(row.bystander_us.map(|bystander| readable(bystander.p99))),
            figure(row.runners_pss_bytes.map(|bytes| HumanBytes(bytes).to_string())),
            row.failures.to_string(),
        ],
    }
}

fn controls(report: &Report) -> Vec<Line> {
    let of = |control: &Control, executor: Executor, interpreter: Option<&str>| {
        let row = control.rows.iter().find(|row| row.executor == executor && row.interpreter.as_deref() == interpreter);
        row.map_or_else(|| "-".to_owned(), |row| format!("{:.2} ({:.2} - {:.2})", row.speedup, row.spread.low, row.spread.high))
    };
    let line = |row: &super::report::ControlRow| {
        let interpreter = row.interpreter.as_deref();
        let same = |own: &&Row| {
            own.executor == row.executor
                && own.interpreter.as_deref() == interpreter
                && own.concurrency == report.controls.concurrency
        };
        let own = report.matrix.iter().find(same).and_then(|own| own.speedup);
        Line {
            name: report.series(row.executor, interpreter),
            best: false,
            cells: vec![
                of(&report.controls.waiting, row.executor, interpreter),
                of(&report.controls.computing, row.executor, interpreter),
                own.map_or_else(|| "-".to_owned(), |speedup| format!("{speedup:.2}")),
            ],
        }
    };
    report.controls.computing.rows.iter().map(line).collect()
}

fn machine(report: &Report) -> String {
    let share =
        |share: Option<f64>| share.map_or_else(|| "an unknown part".to_owned(), |share| format!("{:.0} %", share * 100.0));
    let mut said =
        format!("{} cores; other programs used {} of them meanwhile", report.cores, share(report.pressure.others_share));
    if let Some(stolen) = report.pressure.stolen_share.filter(|stolen| *stolen > 0.0) {
        said += ", a hypervisor kept ";
        said += &share(Some(stolen));
    }
    if report.pressure.jobs > 0 {
        said += "; jobs of this server ran meanwhile";
    }
    said + "."
}

fn inline(report: &Report) -> String {
    let one = |inline: &super::report::Inline| {
        let by = inline.interpreter.as_ref().map_or_else(String::new, |name| format!("{name}: "));
        let share = inline.cpu_share.map_or_else(String::new, |share| format!(", {:.0} % of a core", share * 100.0));
        format!("{by}half of the tasks take {} at most{share}", readable(inline.wall_us.p50))
    };
    format!("One after the other: {}.", report.inline.iter().map(one).collect::<Vec<_>>().join("; "))
}

fn pretty(request: &Request) -> String {
    let value: serde_json::Value = serde_json::from_str(request.workload.get()).unwrap_or_default();
    serde_json::to_string_pretty(&value).unwrap_or_default()
}

/// SVG as a part of HTML, where it has no size of its own.
fn inner(svg: &str) -> String {
    svg.find("<svg").map_or_else(String::new, |start| svg[start..].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::example_report;
    use crate::job::Bound;
    use serde_json::json;

    #[test]
    fn the_page_stands_alone_and_escapes_what_it_is_given() {
        let workload = json!({ "type": "python", "source": "<script>alert(1)</script> & \"more\"" });
        let request = Request {
            bound: Bound::Cpu,
            workload: serde_json::value::to_raw_value(&workload).unwrap(),
            tasks: 64,
            concurrency: vec![1, 2],
            executors: Executor::ALL.to_vec(),
            interpreters: Vec::new(),
            budget_ms: 30_000,
        };
        let page = html(ComparisonId::new(), None, &request, &example_report()).unwrap();
        assert!(page.contains("Threads: 1.96 times as fast, 2 at once") && page.contains("Confidence: high"));
        assert_eq!(page.matches("<svg").count(), 3);
        assert_eq!(page.matches("class=\"best\"").count(), 1);
        assert!(page.contains("&lt;script&gt;") || page.contains("&#60;script&#62;"), "{page}");
        let icon = "<link rel=\"icon\" href=\"data:,\">";
        assert!(page.contains(icon), "a browser asks for one otherwise");
        let without_icon = page.replace(icon, "");
        for external in ["<script", "<link", "<img", "@import", "src=", "href=", "http://www.example"] {
            assert!(!without_icon.contains(external), "{external}");
        }
        for in_the_dark in
            ["fill=\"#FFFFFF\"", "fill=\"#212529\"", "stroke=\"#212529\"", "fill=\"#6C757D\"", "stroke=\"#E2E6EA\""]
        {
            assert!(page.matches(in_the_dark).count() > 1, "the charts have it, and the style another colour: {in_the_dark}");
        }
    }

    #[test]
    fn the_headline_says_how_many_ran_at_once_not_how_many_were_asked_for() {
        let mut report = example_report();
        report.verdict.concurrency = Some(8);
        for row in report.matrix.iter_mut().filter(|row| row.concurrency == 2) {
            (row.concurrency, row.at_once) = (8, 2);
        }
        assert_eq!(headline(&report), "Threads: 1.96 times as fast, 2 at once");
    }

    #[test]
    fn the_lock_is_told_of_in_words() {
        let gil = GilRelease {
            interpreter: "python3".into(),
            gil: true,
            concurrency: 2,
            speedup: 1.02,
            computing: 0.98,
            waiting: 1.97,
            released: Some(0.04),
        };
        assert!(
            on_threads(&gil).ends_with("pure computing 0.98 times, pure waiting 1.97 times."),
            "the verdict says what follows"
        );
        assert!(on_threads(&GilRelease { released: None, ..gil.clone() }).contains("too close together"));
        assert!(on_threads(&GilRelease { gil: false, ..gil }).ends_with("has no global lock."));
    }
}
