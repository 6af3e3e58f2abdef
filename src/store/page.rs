//! How much a page of a list, or a transaction, holds in memory: what users write and give back may be long.

use futures_util::{Stream, TryStreamExt as _};

use super::{Comparison, Page, Settlement, StoreError};
use crate::job::{Failure, Job, JobId, Outcome};
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
        let outcome = self.state.finished().map_or(0, |finished| finished.outcome.weight());
        self.submission.workload.json.get().len() + outcome
    }
}

impl Weight for Outcome {
    fn weight(&self) -> usize {
        match self {
            Self::Output(output) => output.get().len(),
            Self::Error(failure) => failure.weight(),
        }
    }
}

impl Weight for Failure {
    fn weight(&self) -> usize {
        self.message.len() + self.python.as_ref().map_or(0, |python| python.get().len())
    }
}

impl Weight for Settlement {
    fn weight(&self) -> usize {
        match self {
            Self::Finish(conclusion) => conclusion.outcome.weight(),
            Self::Again { error, .. } => error.weight(),
            Self::Release { .. } | Self::Later { .. } => 0,
        }
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

impl<T: Weight> Weight for Option<T> {
    fn weight(&self) -> usize {
        self.as_ref().map_or(0, Weight::weight)
    }
}

/// What is on a page so far.
#[derive(Default)]
pub(super) struct Held {
    items: usize,
    bytes: usize,
}

impl Held {
    /// Whether the next one fits, which is `weight` bytes.
    pub(super) fn takes(&mut self, weight: usize) -> bool {
        self.items += 1;
        self.bytes += weight;
        self.items == 1 || self.bytes <= PAGE_BYTES
    }
}

/// The ids of a page.
#[derive(Default)]
pub(super) struct Ids {
    pub(super) all: Vec<JobId>,
    /// The last of them; `None` if there are no more behind it.
    pub(super) last: Option<JobId>,
    held: Held,
}

impl Ids {
    /// Takes the next one, if what has to be done with it fits, which is `weight` bytes. Whether it did.
    pub(super) fn takes(&mut self, id: JobId, weight: usize, page: Page) -> bool {
        let fits = self.held.takes(weight);
        if fits {
            self.all.push(id);
        }
        if !fits || self.all.len() == page.limit {
            self.last = self.all.last().copied();
        }
        fits
    }
}

/// How many of these, in their order, are on a page that has up to `limit`.
pub fn on_page(limit: usize, all: &[impl Weight]) -> usize {
    let mut held = Held::default();
    all.iter().take(limit).take_while(|one| held.takes(one.weight())).count()
}

/// Reads the rows of a page, and the first one that does not fit: by that it is known that there is another page.
pub(super) async fn read<R, T: Weight>(
    rows: impl Stream<Item = Result<R, sqlx::Error>>,
    read: impl Fn(&R) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut rows = std::pin::pin!(rows);
    let (mut all, mut held) = (Vec::new(), Held::default());
    while let Some(row) = rows.try_next().await? {
        let one = read(&row)?;
        let fits = held.takes(one.weight());
        all.push(one);
        if !fits {
            break;
        }
    }
    Ok(all)
}
