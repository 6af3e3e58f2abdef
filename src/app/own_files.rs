//! Whether the files that the server has open are still there. It could go on without them, and promise what ends with it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{AppError, LOCK};
use crate::config::Config;
use crate::own::Seen;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(5);

/// Stops the server, without a hand-over, once its lock file or its database was removed or replaced. The task gives the path of that file,
/// or `None` once `closed` is cancelled.
pub(super) fn watch(
    config: &Config,
    asked: CancellationToken,
    closed: CancellationToken,
) -> Result<JoinHandle<Option<PathBuf>>, AppError> {
    let files = [config.data_dir.join(LOCK)]
        .into_iter()
        .chain(config.database().into_file())
        .map(Seen::of)
        .collect::<io::Result<Vec<_>>>();
    let files = files.map_err(|error| AppError::DataFolder { path: config.data_dir.clone(), error })?;
    Ok(tokio::spawn(async move {
        let path = closed.run_until_cancelled(gone(&files)).await?;
        let file = path.display();
        tracing::error!("{file} was removed or replaced: what is taken now would be gone with this server, so it stops");
        closed.cancel();
        asked.cancel();
        Some(path)
    }))
}

/// Waits until one of them is gone.
async fn gone(files: &[Seen]) -> PathBuf {
    loop {
        tokio::time::sleep(LOOK).await;
        for file in files {
            if file.is_gone().await {
                return file.path().into();
            }
        }
    }
}
