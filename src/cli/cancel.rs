use super::error::CliError;
use super::order::Order;

/// Ends jobs that wait, and asks running ones to stop.
pub(super) async fn run(order: Order) -> Result<(), CliError> {
    let in_words = |state: &str| if state == "cancelled" { "cancelled" } else { "is being stopped" };
    order.run(async |client, id| client.delete(&format!("/jobs/{id}")).await, in_words).await
}
