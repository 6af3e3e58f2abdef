use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::super::answer::parse;
use super::super::client::Server;
use super::super::error::CliError;
use super::super::print;
use super::quota::Numbers;
use crate::app::AppError;
use crate::auth::{Key, Quota, Scope, wrong_name};
use crate::clock::Timestamp;
use crate::config::{Database, LoadError, without_flags};
use crate::own;
use crate::store::{postgres, sqlite};

const DAY: Duration = Duration::from_hours(24);

/// Makes a key. The first one of a server is made in its database, since nobody has a key yet to ask the server with.
#[derive(Args, Debug)]
pub(super) struct Create {
    #[command(flatten)]
    server: Server,
    /// What people call it
    name: String,
    /// What it may do: submit, read, cancel, functions or admin, which is everything; separated by commas
    #[arg(long, required = true, value_delimiter = ',', value_name = "SCOPES")]
    scopes: Vec<Scope>,
    /// Days after which it is good for nothing [default: never]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    expires_in_days: Option<u32>,
    #[command(flatten)]
    quota: Numbers,
    /// Make it in this database instead of asking a server: in sqlite:PATH of a server that does not run, or in a
    /// `postgres://USER:PASSWORD@HOST/DATABASE`; without a URL, in the one that `TRINE_DATABASE` or the settings' file names, as `trine config`
    /// shows it
    #[arg(long, value_name = "URL")]
    #[expect(clippy::option_option, reason = "it is how clap has a flag whose value may be left out")]
    database: Option<Option<Database>>,
    /// Schema of the PostgreSQL [default: as the settings have it]
    #[arg(long, value_name = "NAME", requires = "database")]
    database_schema: Option<String>,
    /// JSON, as the API has it
    #[arg(long)]
    json: bool,
}

/// What the server answers, as far as it is shown.
#[derive(Deserialize)]
struct Created {
    key: String,
    id: String,
    name: String,
    scopes: Vec<String>,
}

impl Create {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let expires_at = self.expires_in_days.map(|days| Timestamp::now().after(DAY.saturating_mul(days)));
        let quota = Quota::from(self.quota);
        let created: Box<RawValue> = match self.database {
            None => {
                let wanted = json!({ "name": self.name, "scopes": self.scopes, "expires_at": expires_at, "quota": quota });
                self.server.client()?.post("/keys", &wanted).await?
            }
            Some(named) => {
                check(&self.name, quota)?;
                let (database, schema) = place(named, self.database_schema)?;
                let (key, secret) = Key::new(self.name, self.scopes.into_iter().collect(), expires_at)
                    .map_err(|error| CliError::Prepare("make a random key", error.into()))?;
                let key = Key { quota, ..key };
                match database {
                    Database::Sqlite(path) => {
                        own::keep_private();
                        let there = path.exists();
                        sqlite::keep_key(&path, &key).await.map_err(AppError::from)?;
                        // As it has to be before a first start; or the path is a wrong one, and no server will know the key.
                        if !there {
                            print::aside(format_args!("Made a new database at {}, since there was none.", path.display()));
                        }
                    }
                    Database::Postgres(url) => {
                        let hosts = url.of_each_host();
                        postgres::keep_key(&hosts, &schema, &key).await.map_err(AppError::from)?;
                    }
                }
                let created = json!({
                    "key": secret.reveal(), "id": key.id, "name": key.name, "scopes": key.scopes, "expires_at": key.expires_at,
                });
                to_raw_value(&created).map_err(CliError::Json)?
            }
        };
        show(&created, self.json)
    }
}

/// Refuses what a server would refuse, where none is asked.
fn check(name: &str, quota: Quota) -> Result<(), CliError> {
    if let Some(message) = wrong_name(name) {
        return Err(CliError::Usage(format!("the name of a key {message}")));
    }
    match quota.fault() {
        Some((part, message)) => Err(CliError::Usage(format!("--{}: {message}", part.replace('_', "-")))),
        None => Ok(()),
    }
}

/// Where keys are kept: as the settings have it, as far as it is not named.
fn place(database: Option<Database>, schema: Option<String>) -> Result<(Database, String), CliError> {
    match without_flags() {
        Ok(config) => Ok((database.unwrap_or_else(|| config.database()), schema.unwrap_or(config.database_schema))),
        Err(LoadError::Usage(error)) => error.exit(),
        Err(LoadError::File(error)) => Err(error.into()),
    }
}

/// The text of a key goes to standard output alone, so that a script can take it.
pub(super) fn show(created: &RawValue, as_json: bool) -> Result<(), CliError> {
    if as_json {
        return print::json(created);
    }
    let Created { key, id, name, scopes } = parse(created)?;
    print::aside(format_args!("Key {id} ({name}) may: {}. Its text is shown this once:", scopes.join(", ")));
    print::line(key)
}
