//! `trine keys`: who may do what.

mod create;
mod quota;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::answer::{self, Page};
use super::asked::Asked;
use super::client::segment;
use super::error::CliError;
use super::table::{or_dash, table};

/// `trine keys`
#[derive(Args, Debug)]
pub(super) struct Keys {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Make a key and print it, this once
    Create(create::Create),
    /// Show all keys
    List(Asked),
    /// Make a key like another one, which stays good for a while
    Rotate(Rotate),
    /// Show how much of its quota a key has used, or give it another quota
    Quota(quota::ShowOrSet),
    /// Make a key good for nothing, at once
    Revoke(Named),
    /// Show what administrators did
    Audit(Audit),
}

#[derive(Args, Debug)]
struct Named {
    #[command(flatten)]
    asked: Asked,
    /// The key's id: 12 hexadecimal digits, the first part of its text
    id: String,
}

#[derive(Args, Debug)]
struct Rotate {
    #[command(flatten)]
    named: Named,
    /// How long the old key stays good, in seconds [default: a day]
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u64>,
}

#[derive(Args, Debug)]
struct Audit {
    #[command(flatten)]
    asked: Asked,
    /// How many at most, the latest first
    #[arg(long, default_value_t = 50)]
    limit: usize,
}

/// What people are shown of a key.
#[derive(Deserialize)]
struct Row {
    id: String,
    name: String,
    scopes: Vec<String>,
    state: String,
    created_at: String,
    expires_at: Option<String>,
    last_used_at: Option<String>,
}

/// What people are shown of an act.
#[derive(Deserialize)]
struct Act {
    at: String,
    key: Option<String>,
    operation: String,
    target: String,
    status: Option<u16>,
}

impl Keys {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self.command {
            Command::Create(create) => create.run().await,
            Command::List(asked) => list(&asked).await,
            Command::Quota(quota) => quota.run().await,
            Command::Rotate(Rotate { named: Named { asked, id }, grace }) => {
                let body = json!({ "grace_seconds": grace });
                let created: Box<RawValue> = asked.server.client()?.post(&format!("{}/rotate", path(&id)), &body).await?;
                create::show(&created, asked.json)
            }
            Command::Revoke(Named { asked, id }) => {
                let key: Box<RawValue> = asked.server.client()?.delete(&path(&id)).await?;
                show(&[key], asked.json)
            }
            Command::Audit(audit) => audit.run().await,
        }
    }
}

async fn list(asked: &Asked) -> Result<(), CliError> {
    let page: Page<Box<RawValue>> = asked.server.client()?.get("/keys", &()).await?;
    show(&page.items, asked.json)
}

fn show(keys: &[Box<RawValue>], as_json: bool) -> Result<(), CliError> {
    let columns = ["id", "name", "scopes", "state", "created", "expires", "last used"].map(|name| (name, false));
    let row = |key: Row| {
        let Row { id, name, scopes, state, created_at, expires_at, last_used_at } = key;
        vec![id, name, scopes.join(","), state, created_at, or_dash(expires_at), or_dash(last_used_at)]
    };
    answer::show(keys, as_json, |keys| table(&columns, keys.into_iter().map(row)))
}

impl Audit {
    async fn run(self) -> Result<(), CliError> {
        let acts: Vec<Box<RawValue>> = self.asked.server.client()?.first("/audit", &(), self.limit).await?;
        let columns = ["at", "key", "operation", "target", "status"].map(|name| (name, false));
        let row = |Act { at, key, operation, target, status }| {
            vec![at, or_dash(key), operation, target, or_dash(status.map(|status| status.to_string()))]
        };
        answer::show(&acts, self.asked.json, |acts| table(&columns, acts.into_iter().map(row)))
    }
}

fn path(id: &str) -> String {
    format!("/keys/{}", segment(id))
}
