use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{Page, parse, show};
use super::client::{Client, Server, segment};
use super::error::CliError;
use super::human::{micros, moment};
use super::print;
use super::table::{or_dash, table};
use crate::clock::Timestamp;

/// `trine profile`
#[derive(Args, Debug)]
pub(super) struct ShowProfiles {
    #[command(flatten)]
    server: Server,
    /// Show all of this profile, such as primes:below~2^20
    key: Option<String>,
    /// Only those of this type of workload, such as primes
    #[arg(long, value_name = "TYPE")]
    workload: Option<String>,
    /// What speaks against how workloads are tagged or run, instead
    #[arg(long, conflicts_with_all = ["key", "what_if"])]
    findings: bool,
    /// What measured routing would have changed, instead
    #[arg(long, conflicts_with = "key")]
    what_if: bool,
    /// From when on, as RFC 3339 or as in 3d for three days ago; a week ago if it is not said
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "what_if")]
    since: Option<Timestamp>,
    /// One JSON object a line, as the API has it
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Profile {
    key: String,
    runs: u64,
    learned: Learned,
    executors: Vec<Summary>,
    findings: Vec<Finding>,
}

#[derive(Deserialize)]
struct Learned {
    observed: Option<String>,
    demand: f64,
}

#[derive(Deserialize)]
struct Summary {
    executor: String,
    runs: u64,
    failures: std::collections::BTreeMap<String, u64>,
    wall_us: Option<Quantiles>,
    cpu_percent: Option<Quantiles>,
    longest_poll_us: Option<Quantiles>,
}

#[derive(Deserialize)]
struct Quantiles {
    p50: u64,
    p99: u64,
}

#[derive(Deserialize)]
struct Finding {
    kind: String,
    key: String,
    executor: String,
    jobs: u64,
    last_seen: String,
    evidence: String,
    advice: String,
}

#[derive(Deserialize)]
struct WhatIf {
    key: String,
    bound: String,
    executor: String,
    runs: u64,
    held_runs: u64,
    held_us: u64,
    observed: Option<String>,
    would: String,
    gain_loop_us: u64,
    gain_slot_us: u64,
    gain_wall_us: Option<u64>,
}

impl ShowProfiles {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.server.client()?;
        let workload = ("workload", self.workload.clone());
        if let Some(key) = &self.key {
            let profile: Box<RawValue> = client.get(&format!("/profiles/{}", segment(key)), &()).await?;
            return if self.json { print::json(&profile) } else { print::line(details(&parse(&profile)?)) };
        }
        if self.findings {
            let items = items(&client, "/findings", &[workload]).await?;
            return show(&items, self.json, |items: Vec<Finding>| findings(&items));
        }
        if self.what_if {
            let since = ("since", self.since.map(|since| since.to_string()));
            let items = items(&client, "/profiles/what-if", &[workload, since]).await?;
            return show(&items, self.json, |items: Vec<WhatIf>| what_ifs(&items));
        }
        let items = client.first("/profiles", &[workload], usize::MAX).await?;
        show(&items, self.json, |items: Vec<Profile>| list(&items))
    }
}

async fn items(client: &Client, path: &str, query: &[(&str, Option<String>)]) -> Result<Vec<Box<RawValue>>, CliError> {
    Ok(client.get::<Page<Box<RawValue>>>(path, &query).await?.items)
}

fn list(profiles: &[Profile]) -> String {
    let columns = [
        ("profile", false),
        ("observed", false),
        ("executor", false),
        ("runs", true),
        ("failed", true),
        ("wall p50", true),
        ("p99", true),
        ("cpu p50", true),
        ("longest poll", true),
        ("findings", false),
    ];
    let row = |profile: &Profile, summary: &Summary| {
        let time = |figure: Option<u64>| or_dash(figure.map(micros));
        let found: Vec<_> = profile.findings.iter().map(|finding| finding.kind.as_str()).collect();
        vec![
            profile.key.clone(),
            or_dash(profile.learned.observed.clone()),
            summary.executor.clone(),
            summary.runs.to_string(),
            summary.failures.values().sum::<u64>().to_string(),
            time(summary.wall_us.as_ref().map(|wall| wall.p50)),
            time(summary.wall_us.as_ref().map(|wall| wall.p99)),
            or_dash(summary.cpu_percent.as_ref().map(|share| format!("{} %", share.p50))),
            time(summary.longest_poll_us.as_ref().map(|longest| longest.p99)),
            found.join(" "),
        ]
    };
    table(&columns, profiles.iter().flat_map(|profile| profile.executors.iter().map(move |summary| row(profile, summary))))
}

fn details(profile: &Profile) -> String {
    let Learned { observed, demand } = &profile.learned;
    let observed = match observed {
        Some(observed) => format!("{observed}, {:.0} % of a core while it can run", demand * 100.0),
        None => "not known yet".to_owned(),
    };
    let head = format!("{} ({} runs)\nobserved: {observed}\n", profile.key, profile.runs);
    let found =
        |Finding { kind, executor, evidence, advice, .. }: &Finding| format!("\n{kind} on {executor}: {evidence}\n{advice}");
    let findings = profile.findings.iter().map(found);
    [head, list(std::slice::from_ref(profile))].into_iter().chain(findings).collect::<Vec<_>>().join("\n")
}

fn findings(findings: &[Finding]) -> String {
    let columns = [
        ("kind", false),
        ("profile", false),
        ("executor", false),
        ("jobs", true),
        ("last seen", false),
        ("evidence", false),
        ("advice", false),
    ];
    let row = |finding: &Finding| {
        let Finding { kind, key, executor, jobs, last_seen, evidence, advice } = finding;
        let text = [kind, key, executor].map(Clone::clone);
        text.into_iter().chain([jobs.to_string(), last_seen.clone(), evidence.clone(), advice.clone()]).collect()
    };
    table(&columns, findings.iter().map(row))
}

fn what_ifs(items: &[WhatIf]) -> String {
    let columns = [
        ("profile", false),
        ("bound", false),
        ("executor", false),
        ("runs", true),
        ("held the loop", true),
        ("for", true),
        ("observed", false),
        ("would", false),
        ("frees the loop", true),
        ("frees slots", true),
        ("is faster by", true),
    ];
    let row = |item: &WhatIf| {
        let time = |us: u64| or_dash((us > 0).then(|| micros(us)));
        vec![
            item.key.clone(),
            item.bound.clone(),
            item.executor.clone(),
            item.runs.to_string(),
            item.held_runs.to_string(),
            time(item.held_us),
            or_dash(item.observed.clone()),
            item.would.clone(),
            time(item.gain_loop_us),
            time(item.gain_slot_us),
            or_dash(item.gain_wall_us.map(micros)),
        ]
    };
    table(&columns, items.iter().map(row))
}
