//! What most transactions consist of: jobs that end, and new ones.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use sqlx::SqliteConnection;

use super::codes::Code;
use super::many::{MOST, Many, Values, make, marks};
use super::rollups::{self, Count};
use super::rows::{RESULT, SHARED};
use super::statements::Claim;
use crate::clock::Timestamp;
use crate::job::{Conclusion, FindingKinds, JobId, NewJob, Outcome};
use crate::store::StoreError;
use crate::store::kept::state::first;
use crate::store::kept::{Options, figures, json};

/// What most transactions consist of, in few statements for many rows, and few trips to the thread that talks to SQLite.
#[derive(Default)]
pub(super) struct Script<'a> {
    /// Queued jobs that were claimed.
    pub(super) begins: Vec<(JobId, Claim)>,
    /// Running jobs to move to the results.
    pub(super) ends: Vec<End<'a>>,
    /// New jobs; with a claim if they are to run at once.
    pub(super) jobs: Vec<Insertion<'a>>,
}

pub(super) struct End<'a> {
    /// Its lease has been found valid.
    pub(super) id: JobId,
    pub(super) conclusion: &'a Conclusion,
    /// Its output, or its error.
    pub(super) outcome: Cow<'a, str>,
    /// Where that is to stand, if it is too long for its row.
    pub(super) payload: Option<i64>,
    pub(super) started_at: Timestamp,
    pub(super) finished_at: Timestamp,
    pub(super) count: Count,
    pub(super) findings: FindingKinds,
}

pub(super) struct Insertion<'a> {
    pub(super) job: &'a NewJob,
    pub(super) claim: Option<Claim>,
    /// Where its workload is to stand, if that is too long for its row.
    pub(super) payload: Option<i64>,
}

/// Such jobs are few, and are found by their ids: the plus keeps SQLite from going through all that are queued.
static BEGIN: LazyLock<Many> = LazyLock::new(|| {
    Many::new(|rows| {
        format!(
            "UPDATE jobs SET state = 2, attempt = attempt + 1, token = column2, claimed_at = column3 \
             FROM (VALUES {}) WHERE id = column1 AND +state = 1;",
            marks(BEGIN_COLUMNS, rows)
        )
    })
});
const BEGIN_COLUMNS: usize = 3;

/// The first two statements take the same jobs: none that is not put into `results` is taken away.
static END: LazyLock<Many> = LazyLock::new(|| {
    let shared = SHARED.split(", ").map(|column| format!("jobs.{column}")).collect::<Vec<_>>().join(", ");
    // That a job runs may be written as late as its end: then it has no token, and its attempt was not counted.
    let shared = shared.replace("jobs.attempt", "jobs.attempt + (jobs.token IS NULL)");
    Many::new(|rows| {
        format!(
            "INSERT INTO results ({SHARED}, {RESULT}) \
             SELECT {shared}, column2, column3, column4, column5, column6, column7, column8, column9 \
             FROM (VALUES {}) CROSS JOIN jobs ON jobs.id = column1; \
             DELETE FROM jobs WHERE id IN ({}); \
             INSERT INTO counted (results) VALUES (?);",
            marks(END_COLUMNS, rows),
            vec!["?"; rows].join(", ")
        )
    })
});
const END_COLUMNS: usize = 9;

static PAYLOAD: LazyLock<Many> = LazyLock::new(|| {
    Many::new(|rows| {
        format!(
            "INSERT INTO payloads (n, text) SELECT * FROM (VALUES {}) WHERE column1 IS NOT NULL;",
            marks(PAYLOAD_COLUMNS, rows)
        )
    })
});
const PAYLOAD_COLUMNS: usize = 2;

static INSERT: LazyLock<Many> = LazyLock::new(|| {
    Many::new(|rows| {
        format!(
            "INSERT INTO jobs (id, queue, rule, bound, choice, type, workload, payload, priority, options, \
                               accepted_at, due_at, token, claimed_at, state, attempt, expires_at, lane) \
             SELECT * FROM (VALUES {}) WHERE column1 IS NOT NULL;",
            marks(INSERT_COLUMNS, rows)
        )
    })
});
const INSERT_COLUMNS: usize = 18;

static TAG: LazyLock<Many> = LazyLock::new(|| {
    Many::new(|rows| {
        format!(
            "INSERT INTO tags (key, value, id) SELECT * FROM (VALUES {}) WHERE column1 IS NOT NULL;",
            marks(TAG_COLUMNS, rows)
        )
    })
});
const TAG_COLUMNS: usize = 3;

impl Script<'_> {
    /// The steps; `alone`, as a transaction of their own.
    pub(super) async fn run(&self, connection: &mut SqliteConnection, alone: bool) -> Result<(), StoreError> {
        let tags = self.jobs.iter().flat_map(|Insertion { job, .. }| job.submission.tags.iter().map(|tag| (job.id, tag)));
        let tags: Vec<_> = tags.collect();
        let outcomes = self.ends.iter().filter_map(|end| Some((end.payload?, &*end.outcome)));
        let workloads =
            self.jobs.iter().filter_map(|insertion| Some((insertion.payload?, insertion.job.submission.workload.json.get())));
        let payloads: Vec<_> = outcomes.chain(workloads).collect();
        let begins = self.begins.chunks(MOST).map(|begins| {
            BEGIN.trip(begins.len(), move |values, size| {
                values.rows(begins, size, BEGIN_COLUMNS, |values, (id, claim)| {
                    values.push(&id.as_bytes()[..])?;
                    values.push(claim.token)?;
                    values.push(claim.at.as_micros())
                })
            })
        });
        let ends = self.ends.chunks(MOST).map(|ends| {
            END.trip(ends.len(), move |values, size| {
                values.rows(ends, size, END_COLUMNS, |values, end| end.push_to(values))?;
                values.rows(ends, size, 1, |values, end| values.push(&end.id.as_bytes()[..]))?;
                values.push(rollups::logged(ends.iter().map(|end| &end.count)))
            })
        });
        let payloads = payloads.chunks(MOST).map(|payloads| {
            PAYLOAD.trip(payloads.len(), move |values, size| {
                values.rows(payloads, size, PAYLOAD_COLUMNS, |values, (n, text)| {
                    values.push(*n)?;
                    values.text(text)
                })
            })
        });
        let jobs = self.jobs.chunks(MOST).map(|jobs| {
            INSERT
                .trip(jobs.len(), move |values, size| values.rows(jobs, size, INSERT_COLUMNS, |values, job| job.push_to(values)))
        });
        let tags = tags.chunks(MOST).map(|tags| {
            TAG.trip(tags.len(), move |values, size| {
                values.rows(tags, size, TAG_COLUMNS, |values, (id, (key, value))| {
                    values.text(key.as_str())?;
                    values.text(value.as_str())?;
                    values.push(&id.as_bytes()[..])
                })
            })
        });
        make(connection, begins.chain(ends).chain(payloads).chain(jobs).chain(tags).collect(), alone).await
    }
}

impl End<'_> {
    fn push_to(&self, values: &mut Values) -> Result<(), StoreError> {
        let Self { id, conclusion, outcome, payload, started_at, finished_at, findings, .. } = self;
        let inside = Arc::<str>::from(if payload.is_some() { "" } else { outcome });
        let (output, error) = match &conclusion.outcome {
            Outcome::Output(_) => (Some(inside), None),
            Outcome::Error(_) => (None, Some(inside)),
        };
        values.push(&id.as_bytes()[..])?;
        values.push(conclusion.ending.code())?;
        values.push(started_at.as_micros())?;
        values.push(finished_at.as_micros())?;
        values.push(*payload)?;
        values.push(output)?;
        values.push(error)?;
        values.push(conclusion.timing.as_ref().map(|timing| json(&figures(timing))))?;
        values.push((!findings.is_empty()).then_some(i64::from(findings.bits())))
    }
}

impl Insertion<'_> {
    /// Where the job is to begin with.
    pub(super) fn state(&self) -> i16 {
        first(self.job, self.claim.is_some())
    }

    fn push_to(&self, values: &mut Values) -> Result<(), StoreError> {
        let Self { job, claim, payload } = self;
        let submission = &job.submission;
        values.push(&job.id.as_bytes()[..])?;
        values.push(job.route.queue.code())?;
        values.push(job.route.rule.code())?;
        values.push(submission.bound.code())?;
        values.push(submission.executor.code())?;
        values.text(submission.workload.kind.as_str())?;
        values.text(if payload.is_some() { "" } else { submission.workload.json.get() })?;
        values.push(*payload)?;
        values.push(submission.priority)?;
        values.push(Options::of(submission, &job.route).map(|options| json(&options)))?;
        values.push(job.accepted_at.as_micros())?;
        values.push(job.due_at.unwrap_or(job.accepted_at).as_micros())?;
        values.push(claim.map(|claim| claim.token))?;
        values.push(claim.map(|claim| claim.at.as_micros()))?;
        values.push(self.state())?;
        values.push(i64::from(claim.is_some()))?;
        values.push(submission.expires_at.map(Timestamp::as_micros))?;
        values.push(submission.lane())
    }
}
