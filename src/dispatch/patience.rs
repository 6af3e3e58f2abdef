//! Reads that a job can't do without: a store that can't be read just now is no failure of the job.

use std::time::Duration;

use crate::store::StoreError;

/// The waits between two tries to reach a store.
pub(super) const STORE_RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Reads until the store can be read, or says what will not pass. Whoever waits for it stops when the job is to stop.
pub(super) async fn until_read<T, F: Future<Output = Result<T, StoreError>>>(read: impl Fn() -> F) -> Result<T, StoreError> {
    let mut wait = STORE_RETRY.0;
    loop {
        match read().await {
            // One that is shut is not opened again.
            Err(error) if error.may_pass() && !matches!(error, StoreError::Closed) => {
                tracing::debug!(%error, "the store can't be read; what needs it waits until it can");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(STORE_RETRY.1);
            }
            read => return read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn what_may_pass_is_waited_for_and_all_else_is_told() {
        let busy = || Err(StoreError::Unavailable("busy".into()));
        let answers = Mutex::new(vec![Err(StoreError::Closed), Ok(7), busy(), busy()]);
        let read = || async { answers.lock().unwrap().pop().unwrap() };
        assert!(matches!(until_read(read).await, Ok(7)));
        assert!(matches!(until_read(read).await, Err(StoreError::Closed)));
    }
}
