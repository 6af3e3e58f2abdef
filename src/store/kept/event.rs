//! What happened to jobs.

use futures_util::{Stream, TryStreamExt};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::job::{finished, outcome};
use super::{Cells, Figures, Row, corrupt, figures, timing};
use crate::clock::Timestamp;
use crate::job::{Event, EventKind, Failure, Finished, JobId, LogStream, Note, Outcome, Queue, Timing, What};
use crate::store::codes::Code;
use crate::store::{EventFilter, EventPage, StoreError};

/// Events that are looked at for one page, and about how many bytes of them it holds.
pub(in crate::store) const PAGE: (usize, usize) = (4_096, 1 << 20);

// Values of `kind`. They are there to stay.
pub(in crate::store) const ACCEPTED: i16 = 0;
pub(in crate::store) const RUNNING: i16 = 1;
pub(in crate::store) const PROGRESS: i16 = 2;
pub(in crate::store) const STDOUT: i16 = 3;
pub(in crate::store) const STDERR: i16 = 4;
pub(in crate::store) const RETRYING: i16 = 5;
pub(in crate::store) const REQUEUED: i16 = 6;
pub(in crate::store) const FINISHED: i16 = 7;

/// A row of `events`.
pub(in crate::store) struct EventRow {
    pub(in crate::store) at: Timestamp,
    pub(in crate::store) job: JobId,
    pub(in crate::store) attempt: u32,
    pub(in crate::store) kind: i16,
    pub(in crate::store) data: Option<String>,
}

/// The data of an attempt that is followed by another.
#[derive(Serialize, Deserialize)]
struct Retried {
    error: Failure,
    due_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timing: Option<Figures>,
}

/// The data of an end that was taken away: ending, start, output, error and timing, as they stood in `results`.
type Taken = (i64, Option<i64>, Option<String>, Option<String>, Option<String>);

impl EventRow {
    /// What an attempt says.
    pub(in crate::store) fn note(at: Timestamp, job: JobId, attempt: u32, note: &Note) -> Self {
        let (kind, data) = match note {
            Note::Progress(value) => (PROGRESS, value.get()),
            Note::Log(LogStream::Stdout, line) => (STDOUT, line.as_str()),
            Note::Log(LogStream::Stderr, line) => (STDERR, line.as_str()),
        };
        Self { at, job, attempt, kind, data: Some(data.to_owned()) }
    }

    /// An attempt ended and is followed by another.
    pub(in crate::store) fn retrying(
        at: Timestamp,
        job: JobId,
        attempt: u32,
        error: &Failure,
        timing: Option<&Timing>,
        due_at: Timestamp,
    ) -> Self {
        let data = Retried { error: error.clone(), due_at: due_at.as_micros(), timing: timing.map(figures) };
        Self { at, job, attempt, kind: RETRYING, data: serde_json::to_string(&data).ok() }
    }
}

/// The values of `kind` that may pass.
pub(in crate::store) fn kinds(filter: &EventFilter) -> Vec<i16> {
    let all = EventKind::ALL;
    let kinds = if filter.kinds.is_empty() { &all[..] } else { &filter.kinds[..] };
    kinds
        .iter()
        .flat_map(|kind| match kind {
            EventKind::Accepted => &[ACCEPTED][..],
            EventKind::Running => &[RUNNING],
            EventKind::Progress => &[PROGRESS],
            EventKind::Log => &[STDOUT, STDERR],
            EventKind::Retrying => &[RETRYING],
            EventKind::Requeued => &[REQUEUED],
            EventKind::Finished => &[FINISHED],
        })
        .copied()
        .collect()
}

/// Whether something is asked of the jobs, besides which ones they are.
pub(in crate::store) const fn has_conditions(filter: &EventFilter) -> bool {
    filter.owner.is_some()
        || filter.bound.is_some()
        || filter.executor.is_some()
        || filter.workload.is_some()
        || !filter.tags.is_empty()
}

/// A page of what was found after `after`, in its order.
pub(in crate::store) async fn page<R: Row>(
    mut found: impl Stream<Item = Result<R, sqlx::Error>> + Unpin,
    filter: &EventFilter,
    after: Timestamp,
) -> Result<EventPage, StoreError> {
    let (mut events, mut bytes, mut looked_at, mut last) = (Vec::new(), 0, 0, after);
    while let Some(row) = found.try_next().await? {
        let (event, size) = read(&row)?;
        looked_at += 1;
        bytes += size;
        last = event.at;
        if filter.takes(&event) {
            events.push(event);
        }
        if bytes > PAGE.1 {
            break;
        }
    }
    let more = (looked_at == PAGE.0 || bytes > PAGE.1).then_some(last);
    Ok(EventPage { events, more })
}

/// An event, and about how many bytes it takes up: from the moment, the job, its tag and queue, the kind, the attempt, the data, and the
/// columns of a result, where they still stand among the results.
fn read(row: &impl Row) -> Result<(Event, usize), StoreError> {
    let mut cells = Cells::new(row);
    let (at, job, bound) = (cells.time()?, cells.id()?, cells.code()?);
    let queue: Queue = cells.code()?;
    let (kind, attempt): (i16, u32) = (cells.take()?, cells.number()?);
    let data: Option<String> = cells.take()?;
    let mut size = size_of::<Event>() + data.as_ref().map_or(0, String::len);
    let text = || data.clone().unwrap_or_default();
    let what = match kind {
        ACCEPTED => What::Accepted,
        RUNNING => What::Running { attempt },
        PROGRESS => What::Progress { attempt, value: RawValue::from_string(text()).map_err(corrupt)? },
        STDOUT => What::Log { attempt, stream: LogStream::Stdout, line: text() },
        STDERR => What::Log { attempt, stream: LogStream::Stderr, line: text() },
        RETRYING => {
            let Retried { error, due_at, timing: figures } = serde_json::from_str(&text()).map_err(corrupt)?;
            let due_at = Timestamp::from_micros(due_at);
            What::Retrying { attempt, error, timing: figures.map(timing).map(Box::new), due_at }
        }
        REQUEUED => What::Requeued,
        FINISHED => {
            let finished = match finished(&mut cells, job)? {
                Some(finished) => finished,
                None => taken(serde_json::from_str(&text()).map_err(corrupt)?, at, job)?,
            };
            size += match &finished.outcome {
                Outcome::Output(output) => output.get().len(),
                Outcome::Error(failure) => failure.message.len(),
            };
            What::Finished { attempt, finished: Box::new(finished) }
        }
        other => return Err(StoreError::Corrupt(format!("{other} is no kind of event"))),
    };
    Ok((Event { at, job, bound, executor: queue.executor(), what }, size))
}

/// An end that was taken away.
fn taken((ending, started_at, output, error, figures): Taken, at: Timestamp, job: JobId) -> Result<Finished, StoreError> {
    let figures: Option<Figures> = figures.map(|text| serde_json::from_str(&text)).transpose().map_err(corrupt)?;
    Ok(Finished {
        ending: Code::from_code(ending)?,
        outcome: outcome(output, error.as_deref(), job)?,
        timing: figures.map(timing),
        started_at: started_at.map(Timestamp::from_micros),
        finished_at: at,
    })
}
