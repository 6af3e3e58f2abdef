use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::parse;
use super::client::Client;
use super::error::CliError;
use super::order::Order;

/// How many jobs wait again.
#[derive(Deserialize)]
struct Retried {
    retried: u64,
    #[serde(default)]
    more: bool,
}

/// Runs finished jobs again. They keep their ids; their results are replaced.
pub(super) async fn run(order: Order) -> Result<(), CliError> {
    let one = async |client: &Client, id| client.order(&format!("/jobs/{id}/retry")).await;
    let counted = |count: &RawValue| {
        let rest = |more| if more { "; for more, the quota has no room now" } else { "" };
        parse(count).map(|Retried { retried, more }| format!("{retried} wait to run again{}", rest(more)))
    };
    order.run(one, |_| "waits to run again", "/jobs/retry", counted).await
}
