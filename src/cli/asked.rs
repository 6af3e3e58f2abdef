use clap::{Arg, Args};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::answer::parse;
use super::client::Server;
use super::error::CliError;
use super::print;

/// Which server is asked, and how its answer is shown.
#[derive(Args, Debug)]
pub(super) struct Asked {
    #[command(flatten)]
    pub(super) server: Server,
    /// One JSON object a line, as the API has it
    #[arg(long)]
    pub(super) json: bool,
}

/// The argument `json` of a command whose answer is no list.
pub(super) fn one_object(json: Arg) -> Arg {
    json.help("One JSON object, as the API has it")
}

impl Asked {
    /// All that the list at `path` holds, for a table; `None` if it is shown as JSON, page by page.
    pub(super) async fn all<T: DeserializeOwned>(&self, path: &str) -> Result<Option<Vec<T>>, CliError> {
        let mut rows = Vec::new();
        let each = |item: Box<RawValue>| {
            if self.json {
                return print::json(&item);
            }
            rows.push(parse(&item)?);
            Ok(())
        };
        self.server.client()?.list(path, &(), usize::MAX, each).await?;
        Ok((!self.json).then_some(rows))
    }
}

/// What is asked of one thing.
#[derive(Args, Debug)]
pub(super) struct Named {
    #[command(flatten)]
    pub(super) asked: Asked,
    /// Its name
    pub(super) name: String,
}
