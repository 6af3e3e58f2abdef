//! Reads that a job can't do without: a store that can't be read just now is no failure of the job.

use std::time::{Duration, Instant};

use crate::store::StoreError;

/// The waits between two tries to reach a store.
pub(super) const STORE_RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How long a disk may fail: what stands on a part of it that is broken can never be read, and whoever waits for that keeps a slot.
const OF_DISK: Duration = Duration::from_mins(2);

/// Reads until the store can be read, or says what will not pass. Whoever waits for it stops when the job is to stop.
pub(super) async fn until_read<T, F: Future<Output = Result<T, StoreError>>>(read: impl Fn() -> F) -> Result<T, StoreError> {
    until_read_or_broken(OF_DISK, read).await
}

async fn until_read_or_broken<T, F: Future<Output = Result<T, StoreError>>>(
    of_disk: Duration,
    read: impl Fn() -> F,
) -> Result<T, StoreError> {
    let (mut wait, mut failing_since) = (STORE_RETRY.0, None);
    loop {
        match read().await {
            Err(error) if error.is_of_disk() && failing_since.get_or_insert_with(Instant::now).elapsed() >= of_disk => {
                return Err(error);
            }
            // One that is shut is not opened again.
            Err(error) if error.may_pass() && !matches!(error, StoreError::Closed) => {
                if !error.is_of_disk() {
                    failing_since = None;
                }
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
    use sqlx::{Connection as _, Executor as _, SqliteConnection};
    use std::sync::Mutex;

    #[tokio::test]
    async fn what_may_pass_is_waited_for_and_all_else_is_told() {
        let busy = || Err(StoreError::Unavailable("busy".into()));
        let answers = Mutex::new(vec![Err(StoreError::Closed), Ok(7), busy(), busy()]);
        let read = || async { answers.lock().unwrap().pop().unwrap() };
        assert!(matches!(until_read(read).await, Ok(7)));
        assert!(matches!(until_read(read).await, Err(StoreError::Closed)));
    }

    #[tokio::test]
    async fn a_disk_that_fails_is_waited_for_for_a_while() {
        // The first bytes of a process are not there, and the kernel says what a broken disk does.
        let broken = || async {
            let mut connection = SqliteConnection::connect("sqlite:/proc/self/mem?mode=ro").await?;
            Ok(connection.execute("SELECT * FROM sqlite_schema").await.map(drop)?)
        };
        let error = until_read_or_broken(Duration::ZERO, broken).await.unwrap_err();
        assert!(error.is_of_disk(), "{error}");
        let answers = Mutex::new(vec![Ok(()), Err(error)]);
        let read = || async { answers.lock().unwrap().pop().unwrap() };
        until_read(read).await.unwrap();
    }
}
