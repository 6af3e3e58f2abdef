//! `trine compare --guide`: work that waits and work that computes, native and Python, on all three models.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::claims::{Claim, Measured, Python, claims};
use super::{Finished, Runner};
use crate::cli::answer::{Accepted, Page, parse};
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::{print, wait};
use crate::job::JobId;

/// How long each of the comparisons may take, in milliseconds: all of them in well under two minutes.
const BUDGET_MS: u64 = 15_000;
/// How many waits are under way at once, and how many calls race.
const MANY: u32 = 16;
/// The widest table, in columns.
const WIDTH: u16 = 132;

const WAITS: &str = "import asyncio\n\nasync def main():\n    await asyncio.sleep(0.02)\n";
const COMPUTES: &str =
    "def main(steps):\n    total = 0\n    for step in range(steps):\n        total += step * step % 7\n    return total\n";
const RACES: &str = "\
import os
import time

count = 0

def main():
    global count
    seen = count
    time.sleep(0.05)
    count = seen + 1
    return [os.getpid(), count]
";

/// What is read of `GET /executors`.
#[derive(Deserialize)]
struct Programs {
    python: Interpreters,
}

#[derive(Deserialize)]
struct Interpreters {
    interpreters: Vec<Value>,
}

/// Runs all of it and shows what came of it. Whatever that is: it was measured.
pub(super) async fn show(runner: &Runner, as_json: bool) -> Result<(), CliError> {
    let client = &runner.client;
    let waits = |workload: Value| json!({ "bound": "io", "workload": workload, "tasks": 32, "concurrency": [1, MANY], "budget_ms": BUDGET_MS });
    let computes = |workload: Value| json!({ "bound": "cpu", "workload": workload, "tasks": 16, "concurrency": [1, 2], "budget_ms": BUDGET_MS });
    let native_io = runner.run(&waits(json!({ "type": "sleep", "ms": 20 })), "native, waiting: ").await?;
    let native_cpu = runner.run(&computes(json!({ "type": "primes", "below": 300_000 })), "native, computing: ").await?;
    let mut behind = vec![native_io.json.clone(), native_cpu.json.clone()];
    let programs: Programs = client.get("/executors", &()).await?;
    let python = if programs.python.interpreters.is_empty() {
        None
    } else {
        let io = runner.run(&waits(json!({ "type": "python", "source": WAITS })), "Python, waiting: ").await?;
        let workload = json!({ "type": "python", "source": COMPUTES, "args": [200_000] });
        let cpu = runner.run(&computes(workload), "Python, computing: ").await?;
        behind.extend([io.json.clone(), cpu.json.clone()]);
        let (on_threads, on_processes) = (race(client, "threads").await?, race(client, "processes").await?);
        Some(Python { io: io.report, cpu: cpu.report, on_threads, on_processes })
    };
    let Finished { report: native_cpu, .. } = native_cpu;
    let measured = Measured { native_io: native_io.report, native_cpu, python };
    let claims = claims(&measured);
    if as_json { in_json(&claims, &behind) } else { print::line(in_table(&claims, &measured)) }
}

/// Calls that all read a variable, wait, and write one more back; the process of each and what it wrote.
async fn race(client: &Client, executor: &str) -> Result<Vec<(u64, u64)>, CliError> {
    let workload = json!({ "type": "python", "source": races() });
    let job = json!({ "bound": "cpu", "workload": workload, "executor": executor });
    let page: Page<Accepted> = client.post("/jobs/batch", &vec![job; MANY as usize]).await?;
    let ids: Vec<String> = page.items.into_iter().map(|job| job.id).collect();
    let ended = wait::all(client, &ids).await?;
    let outcome = |output: &Value| Some((output.get(0)?.as_u64()?, output.get(1)?.as_u64()?));
    Ok(ended.iter().filter_map(|ended| outcome(&parse(ended.job.output.as_deref()?).ok()?)).collect())
}

/// A host keeps the modules that it has run, with their variables: each race has a module of its own.
fn races() -> String {
    format!("{RACES}\n# {}\n", JobId::new())
}

fn in_json(claims: &[Claim], behind: &[Box<RawValue>]) -> Result<(), CliError> {
    let both = json!({ "claims": claims, "comparisons": behind });
    print::json(&serde_json::value::to_raw_value(&both).map_err(CliError::Json)?)
}

fn in_table(claims: &[Claim], measured: &Measured) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::DynamicFullWidth)
        .set_width(WIDTH)
        .set_header(["MODEL", "THE GUIDE SAYS", "HERE", "MEASURED"]);
    table.add_rows(claims.iter().map(|claim| [claim.about, claim.says, claim.held.in_words(), &claim.measured]));
    let of = |held| claims.iter().filter(|claim| claim.held == held).count();
    let others = [&measured.native_io, &measured.native_cpu].map(|report| report.pressure.others_share.unwrap_or(0.0));
    let others = others.into_iter().fold(0.0, f64::max);
    let busy = if others >= 0.1 {
        format!(" Other programs used up to {:.0} % of the machine meanwhile, which blurs the figures.", others * 100.0)
    } else {
        String::new()
    };
    format!(
        "{table}\n\nOn this machine of {} cores, {} of {} claims hold, {} do not, {} can't be told.{busy}",
        measured.native_cpu.cores,
        of(super::claims::Held::Holds),
        claims.len(),
        of(super::claims::Held::DoesNot),
        of(super::claims::Held::CantTell),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_race_begins_with_a_variable_of_its_own() {
        assert_ne!(races(), races());
        assert!(races().starts_with(RACES));
    }
}
