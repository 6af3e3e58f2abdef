use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::answer::parse;
use super::super::client::Server;
use super::super::error::CliError;
use super::super::print;
use super::super::table::{or_dash, table};
use super::path;
use crate::auth::Quota;

/// The numbers of a quota.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Numbers {
    /// Jobs and comparisons that may wait at once
    #[arg(long, value_name = "N")]
    queued: Option<u64>,
    /// Jobs that may run at once; the others wait
    #[arg(long, value_name = "N")]
    running: Option<u32>,
    /// Jobs and comparisons that may be submitted in a minute
    #[arg(long, value_name = "N")]
    per_minute: Option<u32>,
    /// Bytes that the workloads of all that waits may have together
    #[arg(long, value_name = "BYTES")]
    bytes: Option<u64>,
}

/// Shows how much of a quota is used, or gives a key another one.
#[derive(Args, Debug)]
pub(super) struct ShowOrSet {
    #[command(flatten)]
    server: Server,
    /// The key's id; that of the key with which this is asked, if it is not given
    id: Option<String>,
    /// Replace the quota by these numbers; where none is given, the settings of the server hold
    #[arg(long, requires = "id")]
    set: bool,
    #[command(flatten)]
    numbers: Numbers,
    /// JSON, as the API has it
    #[arg(long)]
    json: bool,
}

/// What is shown of a quota.
#[derive(Deserialize)]
struct Shown {
    queued: Part,
    running: Part,
    per_minute: Part,
    bytes: Part,
}

#[derive(Deserialize)]
struct Part {
    most: Option<u64>,
    used: u64,
}

impl From<Numbers> for Quota {
    fn from(Numbers { queued, running, per_minute, bytes }: Numbers) -> Self {
        Self { queued, running, per_minute, bytes }
    }
}

impl ShowOrSet {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.server.client()?;
        let path = self.id.map_or_else(|| "/quota".to_owned(), |id| format!("{}/quota", path(&id)));
        let quota = Quota::from(self.numbers);
        if self.set || !quota.is_none() {
            let body = serde_json::to_vec(&quota).map_err(CliError::Json)?;
            let _: Box<RawValue> = client.put(&path, &(), "application/json", body).await?;
        }
        let shown: Box<RawValue> = client.get(&path, &()).await?;
        if self.json {
            return print::json(&shown);
        }
        let Shown { queued, running, per_minute, bytes } = parse(&shown)?;
        let row = |(name, Part { most, used }): (&str, Part)| {
            vec![name.to_owned(), used.to_string(), or_dash(most.map(|most| most.to_string()))]
        };
        let rows = [("queued", queued), ("running", running), ("per minute", per_minute), ("bytes", bytes)].map(row);
        print::line(table(&[("", false), ("used", true), ("most", true)], rows))
    }
}
