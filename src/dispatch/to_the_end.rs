//! What is done to its end, whether or not whoever asked for it still waits.

use std::panic::resume_unwind;

use tracing::Instrument as _;

/// Does something in a task of its own. The client of a request may hang up at any moment, and with it goes the future that serves the
/// request; but what the store has already been told happens all the same, and the rest of the server has to hear of that. `None` if the
/// runtime ends before.
pub async fn to_the_end<T: Send + 'static>(doing: impl Future<Output = T> + Send + 'static) -> Option<T> {
    match tokio::spawn(doing.in_current_span()).await {
        Ok(done) => Some(done),
        Err(error) => error.try_into_panic().map_or(None, |panic| resume_unwind(panic)),
    }
}
