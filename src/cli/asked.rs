use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::answer::{Page, parse};
use super::client::Server;
use super::error::CliError;
use super::print;

/// The most items that the API puts on a page.
const PAGE: usize = 1_000;

/// The query of a page.
#[derive(Serialize)]
struct Query {
    limit: usize,
    cursor: Option<String>,
}

/// Which server is asked, and how its answer is shown.
#[derive(Args, Debug)]
pub(super) struct Asked {
    #[command(flatten)]
    pub(super) server: Server,
    /// One JSON object a line, as the API has it
    #[arg(long)]
    pub(super) json: bool,
}

impl Asked {
    /// All that the list at `path` holds, for a table; `None` if it is shown as JSON, page by page.
    pub(super) async fn all<T: DeserializeOwned>(&self, path: &str) -> Result<Option<Vec<T>>, CliError> {
        let client = self.server.client()?;
        let (mut rows, mut cursor) = (Vec::new(), None);
        loop {
            let page: Page<Box<RawValue>> = client.get(path, &Query { limit: PAGE, cursor }).await?;
            for item in &page.items {
                if self.json {
                    print::json(item)?;
                } else {
                    rows.push(parse(item)?);
                }
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok((!self.json).then_some(rows));
            }
        }
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
