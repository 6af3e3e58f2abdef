//! `trine executors`: what runs jobs, and how busy it is.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::answer::parse;
use super::asked::Asked;
use super::error::CliError;
use super::print;
use super::table::{or_dash, table};

#[derive(Deserialize)]
struct Answer {
    items: Vec<Executor>,
    quarantined: Vec<Quarantined>,
}

#[derive(Deserialize)]
struct Executor {
    name: String,
    queues: Vec<Queue>,
}

/// What people are shown of a queue.
#[derive(Deserialize)]
struct Queue {
    name: String,
    slots: u64,
    running: u64,
    queued: u64,
    scheduled: u64,
    blocked: u64,
    workers: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct Quarantined {
    key: String,
    deaths: u32,
    until: String,
}

pub(super) async fn run(asked: &Asked) -> Result<(), CliError> {
    let answer: Box<RawValue> = asked.server.client()?.get("/executors", &()).await?;
    if asked.json {
        return print::json(&answer);
    }
    let Answer { items, quarantined } = parse(&answer)?;
    let columns = ["executor", "queue", "slots", "running", "queued", "scheduled", "blocked", "processes"];
    let rows = items.iter().flat_map(|Executor { name, queues }| queues.iter().map(move |queue| (name, queue)));
    let row = |(executor, queue): (&String, &Queue)| {
        let Queue { name, slots, running, queued, scheduled, blocked, workers } = queue;
        let counts = [slots, running, queued, scheduled, blocked].map(u64::to_string);
        let processes = or_dash((!workers.is_empty()).then(|| workers.len().to_string()));
        [executor.clone(), name.clone()].into_iter().chain(counts).chain([processes]).collect()
    };
    print::line(table(&columns.map(|name| (name, !matches!(name, "executor" | "queue"))), rows.map(row)))?;
    quarantined.iter().try_for_each(|Quarantined { key, deaths, until }| {
        print::line(format_args!("{key} is kept out until {until}: {deaths} processes in a row have died under it."))
    })
}
