use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::material::{self, FOLDER, IMAGE_SIZE, Text};
use super::pages;
use crate::cli::answer::{Job, parse};
use crate::cli::error::CliError;
use crate::cli::table::shortened;

/// Counts of primes that are known, from tables.
const PRIMES: [(u32, u32); 3] = [(200_000, 17_984), (500_000, 41_538), (1_000_000, 78_498)];
const WAIT_MS: u64 = 200;
const TEXTS: usize = 4;
const IMAGES: u8 = 4;

/// A job of the demo.
pub(super) struct Planned {
    /// What is submitted.
    pub(super) submission: Value,
    check: Check,
}

/// Whether an output is what the job should give.
type Check = Box<dyn Fn(&Value) -> bool + Send + Sync>;

impl Planned {
    fn new(bound: &str, executor: &str, workload: &Value, check: impl Fn(&Value) -> bool + Send + Sync + 'static) -> Self {
        let submission = json!({ "bound": bound, "executor": executor, "workload": workload, "tags": { "batch": "demo" } });
        Self { submission, check: Box::new(check) }
    }

    /// What is wrong with how the job ended; `None` if it did what it should.
    pub(super) fn wrong(&self, job: &Job) -> Option<String> {
        let asked = &self.submission["executor"];
        match &job.output {
            _ if asked != "auto" && asked != job.route.executor.as_str() => Some(format!("it was to run on {asked}")),
            Some(output) if job.succeeded() && parse(output).is_ok_and(|output| (self.check)(&output)) => None,
            Some(output) => Some(format!("wrong output: {}", shortened(output.get()))),
            None => Some(job.error.as_ref().map_or_else(|| job.state.clone(), ToString::to_string)),
        }
    }
}

/// Plans real work of every kind for every executor, in rounds that don't compete for cores: where the router puts it and on
/// threads, then in worker processes, last on the event loop, which it holds. Writes the files that it is about.
pub(super) fn plan(workspace: &Path, pages: &str) -> Result<[Vec<Planned>; 3], CliError> {
    let texts = material::texts(workspace, TEXTS)?;
    let images = material::images(workspace, IMAGES)?;
    let fetch = |(number, executor)| fetch(pages, number, executor);
    let read = |(number, executor): (usize, _)| read(&texts[number % texts.len()], number, executor);
    let resize = |(number, executor): (usize, _)| resize(workspace, &images[number % images.len()], number, executor);
    let routed = spread([("auto", 40), ("threads", 6)])
        .map(fetch)
        .chain(spread([("auto", 60), ("threads", 10)]).map(sleep))
        .chain(spread([("auto", 24)]).map(read))
        .chain(spread([("auto", 9)]).map(primes))
        .chain(spread([("auto", 6)]).map(resize));
    let isolated = spread([("processes", 4)])
        .map(fetch)
        .chain(spread([("processes", 2)]).map(sleep))
        .chain(spread([("processes", 6)]).map(read))
        .chain(spread([("processes", 6)]).map(primes))
        .chain(spread([("processes", 4)]).map(resize));
    let held =
        spread([("async", 6)]).map(read).chain(spread([("async", 3)]).map(primes)).chain(spread([("async", 2)]).map(resize));
    Ok([routed.collect(), isolated.collect(), held.collect()])
}

/// So many jobs for each executor, numbered throughout.
fn spread<const N: usize>(counts: [(&'static str, usize); N]) -> impl Iterator<Item = (usize, &'static str)> {
    counts.into_iter().flat_map(|(executor, count)| std::iter::repeat_n(executor, count)).enumerate()
}

fn fetch(pages: &str, number: usize, executor: &str) -> Planned {
    let workload = json!({ "type": "http", "url": format!("{pages}{number}"), "expect_status": 200 });
    Planned::new("io", executor, &workload, move |output| output["body"] == pages::page(number))
}

fn read(text: &Text, number: usize, executor: &str) -> Planned {
    let (op, field, expected) = match number % 3 {
        0 => ("read", "text", json!(text.content)),
        1 => ("digest", "sha256", json!(text.sha256)),
        _ => ("count_lines", "lines", json!(text.lines)),
    };
    let workload = json!({ "type": "file", "path": text.path, "op": op });
    Planned::new("io", executor, &workload, move |output| output[field] == expected)
}

fn sleep((_, executor): (usize, &'static str)) -> Planned {
    let workload = json!({ "type": "sleep", "ms": WAIT_MS });
    Planned::new("io", executor, &workload, |output| output["slept_ms"] == WAIT_MS)
}

fn primes((number, executor): (usize, &'static str)) -> Planned {
    let (below, count) = PRIMES[number % PRIMES.len()];
    let workload = json!({ "type": "primes", "below": below });
    Planned::new("cpu", executor, &workload, move |output| output["count"] == count)
}

/// The result is looked at where it was written.
fn resize(workspace: &Path, image: &str, number: usize, executor: &str) -> Planned {
    let (width, height) = (IMAGE_SIZE.0 / 3, IMAGE_SIZE.1 / 3);
    let to = format!("{FOLDER}/resized-{number}.png");
    let written: PathBuf = workspace.join(&to);
    let workload = json!({ "type": "image", "path": image, "resize": { "width": width }, "to": to });
    Planned::new("cpu", executor, &workload, move |output| {
        output["height"] == height && image::image_dimensions(&written).is_ok_and(|size| size == (width, height))
    })
}
