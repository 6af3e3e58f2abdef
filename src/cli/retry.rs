use super::error::CliError;
use super::order::Order;

/// Runs finished jobs again. They keep their ids; their results are replaced.
pub(super) async fn run(order: Order) -> Result<(), CliError> {
    order.run(async |client, id| client.order(&format!("/jobs/{id}/retry")).await, |_| "waits to run again").await
}
