use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer;
use super::client::{Server, segment};
use super::error::CliError;
use super::table::{or_dash, shortened, table};
use crate::job::JobId;

/// `trine deliveries`
#[derive(Args, Debug)]
pub(super) struct Deliveries {
    #[command(flatten)]
    server: Server,
    /// Only those of this job
    job: Option<JobId>,
    /// Only those that stand so
    #[arg(long, value_parser = PossibleValuesParser::new(["pending", "delivered", "failed", "gone"]))]
    state: Option<String>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Deliver the message with this id again, whatever came of it
    #[arg(long, value_name = "ID", conflicts_with_all = ["job", "state", "limit"])]
    redeliver: Option<String>,
    /// One JSON object a line, as the API has it
    #[arg(long)]
    json: bool,
}

/// What people are shown of a delivery.
#[derive(Deserialize)]
struct Row {
    id: String,
    job: String,
    r#type: String,
    url: String,
    state: String,
    due_at: Option<String>,
    attempts: Vec<Attempt>,
}

#[derive(Deserialize)]
struct Attempt {
    status: Option<u16>,
    error: Option<String>,
}

impl Deliveries {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.server.client()?;
        if let Some(id) = &self.redeliver {
            let path = format!("/webhooks/deliveries/{}/redeliver", segment(id));
            return self.show(&[client.order::<Box<RawValue>>(&path).await?]);
        }
        let path = self.job.map_or_else(|| "/webhooks/deliveries".to_owned(), |job| format!("/jobs/{job}/deliveries"));
        self.show(&client.first(&path, &[("state", self.state.as_deref())], self.limit as usize).await?)
    }

    fn show(&self, items: &[Box<RawValue>]) -> Result<(), CliError> {
        let columns = ["id", "job", "about", "state", "attempts", "latest answer", "next attempt", "to"];
        let row = |delivery: Row| {
            let latest = delivery.attempts.last();
            let status = latest.and_then(|latest| latest.status).map(|status| status.to_string());
            vec![
                delivery.id,
                delivery.job,
                delivery.r#type,
                delivery.state,
                delivery.attempts.len().to_string(),
                or_dash(status.or_else(|| latest.and_then(|latest| latest.error.as_deref()).map(shortened))),
                or_dash(delivery.due_at),
                shortened(&delivery.url),
            ]
        };
        let columns = columns.map(|name| (name, name == "attempts"));
        answer::show(items, self.json, |rows| table(&columns, rows.into_iter().map(row)))
    }
}
