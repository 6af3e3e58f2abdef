//! `trine limits`: the limits that jobs share by a key.

use serde::Deserialize;

use super::asked::Asked;
use super::error::CliError;
use super::human::micros;
use super::print;
use super::table::{or_dash, table};

/// What people are shown of a limit; the last two are of a rate.
#[derive(Deserialize)]
struct Row {
    kind: String,
    key: String,
    limit: u64,
    #[serde(alias = "started")]
    running: u64,
    waiting: u64,
    per_ms: Option<u64>,
    opens_at: Option<String>,
}

pub(super) async fn run(asked: &Asked) -> Result<(), CliError> {
    let Some(rows) = asked.all::<Row>("/limits").await? else { return Ok(()) };
    let columns = ["limit", "key", "at most", "in", "now", "queued", "next start"];
    let row = |Row { kind, key, limit, running, waiting, per_ms, opens_at }: Row| {
        let period = or_dash(per_ms.map(|ms| micros(ms.saturating_mul(1_000))));
        vec![kind, key, limit.to_string(), period, running.to_string(), waiting.to_string(), or_dash(opens_at)]
    };
    let is_number = |name| matches!(name, "at most" | "now" | "queued");
    print::line(table(&columns.map(|name| (name, is_number(name))), rows.into_iter().map(row)))
}
