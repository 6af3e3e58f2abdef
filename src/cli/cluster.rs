//! `trine cluster`: the servers that share a database.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::parse;
use super::asked::{self, Asked, Named};
use super::client::segment;
use super::error::CliError;
use super::human::micros;
use super::print;
use super::table::table;

/// `trine cluster`
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, mut_arg("json", asked::one_object))]
pub(super) struct Cluster {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Have a node claim nothing more; what runs there goes on to its end
    #[command(mut_arg("json", asked::one_object))]
    Drain(Named),
    /// Have a node that was drained claim jobs again
    #[command(mut_arg("json", asked::one_object))]
    Resume(Named),
}

#[derive(Deserialize)]
struct Answer {
    items: Vec<Row>,
    database: Option<Database>,
}

#[derive(Deserialize)]
struct Database {
    alarms: Vec<String>,
}

/// What people are shown of a node.
#[derive(Deserialize)]
struct Row {
    name: String,
    #[serde(rename = "self")]
    is_self: bool,
    state: String,
    role: String,
    version: String,
    leases: u64,
    started_at: String,
    heartbeat_age_ms: u64,
}

impl Cluster {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let (asked, answer) = match self.command {
            None => {
                let answer = self.asked.server.client()?.get("/cluster", &()).await?;
                (self.asked, answer)
            }
            Some(Command::Drain(node)) => order(node, "drain").await?,
            Some(Command::Resume(node)) => order(node, "resume").await?,
        };
        if asked.json {
            return print::json(&answer);
        }
        let columns = [
            ("node", false),
            ("state", false),
            ("role", false),
            ("jobs", true),
            ("heard of", false),
            ("up since", false),
            ("version", false),
        ];
        let row = |row: &Row| {
            vec![
                if row.is_self { format!("{} *", row.name) } else { row.name.clone() },
                row.state.clone(),
                row.role.clone(),
                row.leases.to_string(),
                format!("{} ago", micros(row.heartbeat_age_ms.saturating_mul(1_000))),
                row.started_at.clone(),
                row.version.clone(),
            ]
        };
        let Answer { items, database } = parse(&answer)?;
        print::line(table(&columns, items.iter().map(row)))?;
        database
            .iter()
            .flat_map(|database| &database.alarms)
            .try_for_each(|alarm| print::line(format_args!("Look at this: {alarm}.")))
    }
}

async fn order(Named { asked, name }: Named, what: &str) -> Result<(Asked, Box<RawValue>), CliError> {
    let answer = asked.server.client()?.order(&format!("/cluster/nodes/{}/{what}", segment(&name))).await?;
    Ok((asked, answer))
}
