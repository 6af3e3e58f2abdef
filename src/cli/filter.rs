use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answer::Page;
use super::client::Client;
use super::error::CliError;
use super::human::moment;
use super::parameter::tag;
use crate::clock::Timestamp;
use crate::job::{Bound, Executor};

/// The most items that the API puts on a page.
const PAGE: usize = 1_000;

/// Which jobs or results a list shows: those that pass every condition.
#[derive(Args, Debug)]
pub(super) struct Filter {
    /// Only those in this state
    #[arg(long, value_parser = PossibleValuesParser::new(["scheduled", "queued", "running", "succeeded", "failed", "cancelled", "lost"]))]
    state: Option<String>,
    /// Only those with this tag of what they do
    #[arg(long, value_parser = PossibleValuesParser::new(Bound::ALL.map(Bound::as_str)))]
    bound: Option<String>,
    /// Only those on this executor
    #[arg(long, value_parser = PossibleValuesParser::new(Executor::ALL.map(Executor::as_str)))]
    executor: Option<String>,
    /// Only those of this type, such as primes
    #[arg(long, value_name = "TYPE")]
    workload: Option<String>,
    /// Only those with this label
    #[arg(long, value_name = "KEY=VALUE", value_parser = tag)]
    tag: Option<(String, String)>,
    /// Only those accepted since, as RFC 3339 or as in 10m for ten minutes ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only those accepted before, written alike
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// The oldest first
    #[arg(long)]
    oldest: bool,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// All of them
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

/// The query of a list.
#[derive(Serialize)]
struct Query<'a> {
    state: Option<&'a str>,
    bound: Option<&'a str>,
    executor: Option<&'a str>,
    workload: Option<&'a str>,
    tag: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    order: &'a str,
    limit: usize,
    cursor: Option<String>,
}

/// The query of a summary.
#[derive(Serialize)]
pub(super) struct SummaryQuery<'a> {
    by: String,
    state: Option<&'a str>,
    bound: Option<&'a str>,
    executor: Option<&'a str>,
    workload: Option<&'a str>,
}

impl Filter {
    /// The query of a summary by these fields of the results that pass.
    pub(super) fn of_summary(&self, by: &[String]) -> SummaryQuery<'_> {
        SummaryQuery {
            by: by.join(","),
            state: self.state.as_deref(),
            bound: self.bound.as_deref(),
            executor: self.executor.as_deref(),
            workload: self.workload.as_deref(),
        }
    }

    /// Fetches the list at `path` page by page. Returns whether there would be more.
    pub(super) async fn fetch<T: DeserializeOwned>(
        &self,
        client: &Client,
        path: &str,
        mut each: impl FnMut(T) -> Result<(), CliError>,
    ) -> Result<bool, CliError> {
        let mut left = if self.all { usize::MAX } else { self.limit as usize };
        let mut cursor = None;
        loop {
            let query = Query {
                state: self.state.as_deref(),
                bound: self.bound.as_deref(),
                executor: self.executor.as_deref(),
                workload: self.workload.as_deref(),
                tag: self.tag.as_ref().map(|(name, value)| format!("{name}:{value}")),
                since: self.since,
                until: self.until,
                order: if self.oldest { "oldest" } else { "newest" },
                limit: left.min(PAGE),
                cursor,
            };
            let page: Page<T> = client.get(path, &query).await?;
            for item in page.items.into_iter().take(left) {
                left -= 1;
                each(item)?;
            }
            cursor = page.next_cursor;
            if cursor.is_none() || left == 0 {
                return Ok(cursor.is_some());
            }
        }
    }
}
