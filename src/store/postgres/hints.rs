//! Hints between nodes that there is something to do, so that nobody has to wait for the next look. They may be lost: looking is the truth.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::connect::in_time;
use super::pool::Pool;

/// Hints are at least so far apart: many together are one.
const APART: Duration = Duration::from_millis(50);
/// How long nothing may have been heard before the database is asked whether it is there.
const QUIET: Duration = Duration::from_secs(30);
/// How long to wait before listening is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Tells other nodes whenever there is something, outside the transactions that bring it about.
pub(super) async fn tell(pool: Pool, channel: String, told: Arc<Notify>, end: CancellationToken) {
    while end.run_until_cancelled(told.notified()).await.is_some() {
        if let Err(error) = sqlx::query("SELECT pg_notify($1, '')").bind(&channel).execute(&pool).await {
            tracing::debug!(%error, "other nodes can't be told; they look by themselves");
        }
        if end.run_until_cancelled(tokio::time::sleep(APART)).await.is_none() {
            return;
        }
    }
}

/// Passes on what other nodes tell.
pub(super) async fn listen(pool: Pool, channel: String, hint: Arc<Notify>, end: CancellationToken) {
    let listening = async {
        loop {
            if let Err(error) = listen_once(&pool, &channel, &hint).await {
                tracing::debug!(%error, "other nodes can't be heard; this one looks by itself");
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    end.run_until_cancelled(Box::pin(listening)).await;
}

async fn listen_once(pool: &Pool, channel: &str, hint: &Notify) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(&pool.all).await?;
    in_time(listener.listen(channel)).await?;
    loop {
        match tokio::time::timeout(QUIET, listener.recv()).await {
            Ok(told) => {
                told?;
                hint.notify_one();
            }
            // Where all is quiet, a connection that is broken looks like one that is not.
            Err(_) => {
                in_time(sqlx::query("SELECT 1").execute(&mut listener)).await?;
            }
        }
    }
}
