//! How much a page of a list holds in memory: what users write and give back may be long.

use futures_util::{Stream, TryStreamExt as _};

use super::{Comparison, StoreError};
use crate::job::{Job, Outcome, State};
use crate::schedule::Schedule;

/// How much the items of a page may weigh together: one of any weight fits alone.
pub const PAGE_BYTES: usize = 8 << 20;

/// What may be long.
pub trait Weight {
    /// About how much memory it takes, in bytes: of that which may be long.
    fn weight(&self) -> usize;
}

impl Weight for Job {
    fn weight(&self) -> usize {
        let outcome = match &self.state {
            State::Finished(finished) => match &finished.outcome {
                Outcome::Output(output) => output.get().len(),
                Outcome::Error(failure) => failure.message.len() + failure.python.as_ref().map_or(0, |python| python.get().len()),
            },
            _ => 0,
        };
        self.submission.workload.json.get().len() + outcome
    }
}

impl Weight for Comparison {
    fn weight(&self) -> usize {
        self.request.get().len() + self.report.as_ref().map_or(0, |report| report.get().len())
    }
}

impl Weight for Schedule {
    fn weight(&self) -> usize {
        self.job.get().len()
    }
}

/// How many of these, in their order, are on a page that has up to `limit`.
pub fn on_page(limit: usize, all: &[impl Weight]) -> usize {
    let mut bytes = 0;
    let fits = |(at, one): &(usize, &_)| {
        bytes += Weight::weight(*one);
        *at == 0 || bytes <= PAGE_BYTES
    };
    all.iter().take(limit).enumerate().take_while(fits).count()
}

/// Reads the rows of a page, up to the first one that does not fit.
pub(super) async fn read<R, T: Weight>(
    rows: impl Stream<Item = Result<R, sqlx::Error>>,
    read: impl Fn(&R) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut rows = std::pin::pin!(rows);
    let (mut all, mut bytes) = (Vec::new(), 0);
    while bytes <= PAGE_BYTES
        && let Some(row) = rows.try_next().await?
    {
        let one = read(&row)?;
        bytes += one.weight();
        all.push(one);
    }
    Ok(all)
}
