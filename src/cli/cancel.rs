use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::parse;
use super::client::Client;
use super::error::CliError;
use super::order::Order;

/// How many jobs were cancelled.
#[derive(Deserialize)]
struct Cancelled {
    cancelled: u64,
    stopping: u64,
}

/// Ends jobs that wait, and asks running ones to stop.
pub(super) async fn run(order: Order) -> Result<(), CliError> {
    let in_words = |state: &str| if state == "cancelled" { "cancelled" } else { "is being stopped" };
    let counted = |count: &RawValue| {
        parse(count).map(|Cancelled { cancelled, stopping }| format!("{cancelled} cancelled, {stopping} being stopped"))
    };
    let one = async |client: &Client, id| client.delete(&format!("/jobs/{id}")).await;
    order.run(one, in_words, "/jobs/cancel", counted).await
}
