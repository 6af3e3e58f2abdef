//! What most transactions consist of: jobs that end, new ones, and the rollups of what ended.

use std::sync::LazyLock;

use serde::ser::{Serialize, SerializeTuple, Serializer};
use sqlx::SqliteConnection;

use super::codes::Code;
use super::rows::{self, OF_RESULT, SHARED};
use super::statements::{Claim, json};
use crate::clock::Timestamp;
use crate::job::{Conclusion, JobId, NewJob, Outcome};
use crate::store::{Lease, Sketches, StoreError, SummaryKey};

/// What most transactions consist of. However many rows there are, each step is one statement, prepared once, whose argument is a JSON
/// array with a row each; and all steps together are one trip to the thread that talks to SQLite.
#[derive(Default)]
pub(super) struct Script<'a> {
    /// Running jobs to move to the results.
    pub(super) ends: Vec<End<'a>>,
    /// New jobs; with a claim if they are to run at once.
    pub(super) jobs: Vec<Insertion<'a>>,
    /// Rollups to replace.
    pub(super) rollups: Vec<(SummaryKey, Sketches)>,
}

pub(super) struct End<'a> {
    pub(super) lease: Lease,
    pub(super) conclusion: &'a Conclusion,
    pub(super) started_at: Timestamp,
    pub(super) finished_at: Timestamp,
}

pub(super) struct Insertion<'a> {
    pub(super) job: &'a NewJob,
    pub(super) claim: Option<Claim>,
}

/// The steps of a script. The first takes two arguments, the rows and their ids; each of the others one.
static STEPS: LazyLock<[String; 4]> = LazyLock::new(|| {
    let shared = SHARED.split(", ").map(|column| format!("jobs.{column}")).collect::<Vec<_>>().join(", ");
    let cells = |from: usize, to: usize| (from..=to).map(|n| format!("value ->> {n}")).collect::<Vec<_>>().join(", ");
    let (of_end, of_job) = (cells(2, 7), cells(1, 8));
    [
        format!(
            "INSERT INTO results ({SHARED}, {OF_RESULT}) SELECT {shared}, {of_end} FROM jsonb_each(?) \
             CROSS JOIN jobs ON jobs.id = unhex(value ->> 0) AND jobs.token = value ->> 1 AND jobs.state = 2; \
             DELETE FROM jobs WHERE id IN (SELECT unhex(value) FROM jsonb_each(?)) \
             AND EXISTS (SELECT 1 FROM results WHERE results.id = jobs.id);"
        ),
        format!(
            "INSERT INTO jobs (id, queue, rule, bound, choice, type, workload, priority, options, \
                               accepted_at, due_at, token, claimed_at, state, attempt, expires_at) \
             SELECT unhex(value ->> 0), {of_job}, value ->> 9, coalesce(value ->> 12, value ->> 9), value ->> 10, value ->> 11, \
                    iif(value ->> 10 IS NULL, value ->> 12 IS NULL, 2), value ->> 10 IS NOT NULL, value ->> 13 \
             FROM jsonb_each(?);"
        ),
        "INSERT INTO tags (key, value, id) SELECT value ->> 0, value ->> 1, unhex(value ->> 2) FROM jsonb_each(?);".into(),
        "INSERT INTO rollups (type, bound, executor, ending, sketches) \
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, unhex(value ->> 4) FROM jsonb_each(?) WHERE true \
         ON CONFLICT DO UPDATE SET sketches = excluded.sketches;"
            .into(),
    ]
});

/// Every script there can be: for each choice of steps its text, inside a transaction and as one of its own.
static SCRIPTS: LazyLock<[[String; 2]; 16]> = LazyLock::new(|| {
    std::array::from_fn(|choice| {
        let steps: Vec<&str> = (0..4).filter(|step| choice & 1 << step != 0).map(|step| &*STEPS[step]).collect();
        let text = steps.join(" ");
        // A single statement is a transaction by itself.
        let alone = if text.matches(';').count() == 1 { text.clone() } else { format!("BEGIN IMMEDIATE; {text} COMMIT") };
        [text, alone]
    })
});

impl Script<'_> {
    /// The steps inside a transaction.
    pub(super) async fn run(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        self.execute(connection, |[inside, _]| inside).await
    }

    /// The steps as a transaction of their own.
    pub(super) async fn run_and_commit(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        self.execute(connection, |[_, alone]| alone).await
    }

    async fn execute(
        &self,
        connection: &mut SqliteConnection,
        which: fn(&'static [String; 2]) -> &'static str,
    ) -> Result<(), StoreError> {
        let tags: Vec<_> = self
            .jobs
            .iter()
            .flat_map(|Insertion { job, .. }| job.submission.tags.iter().map(move |(key, value)| (key, value, hex_id(job.id))))
            .collect();
        let rollups: Vec<_> = self
            .rollups
            .iter()
            .map(|(key, sketches)| {
                (&*key.workload, key.bound.code(), key.executor.code(), key.ending.code(), hex(&sketches.to_bytes()))
            })
            .collect();
        let ended: Vec<_> = self.ends.iter().map(|end| hex_id(end.lease.id)).collect();
        let arguments = [[rows(&self.ends), rows(&ended)], [rows(&self.jobs), None], [rows(&tags), None], [rows(&rollups), None]];
        let choice =
            arguments.iter().enumerate().filter(|(_, [rows, _])| rows.is_some()).fold(0, |choice, (step, _)| choice | 1 << step);
        if choice == 0 {
            return Ok(());
        }
        let script = sqlx::query(which(&SCRIPTS[choice]));
        arguments.into_iter().flatten().flatten().fold(script, sqlx::query::Query::bind).execute(connection).await?;
        Ok(())
    }
}

/// Rows as the argument of a step, if there are any.
fn rows(rows: &[impl Serialize]) -> Option<String> {
    (!rows.is_empty()).then(|| json(rows))
}

impl Serialize for End<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { lease, conclusion, started_at, finished_at } = self;
        let (output, error) = match &conclusion.outcome {
            Outcome::Output(output) => (Some(output.get()), None),
            Outcome::Error(failure) => (None, Some(json(failure))),
        };
        let mut row = serializer.serialize_tuple(8)?;
        row.serialize_element(&hex_id(lease.id))?;
        row.serialize_element(&lease.token)?;
        row.serialize_element(&conclusion.ending.code())?;
        row.serialize_element(&started_at.as_micros())?;
        row.serialize_element(&finished_at.as_micros())?;
        row.serialize_element(&output)?;
        row.serialize_element(&error)?;
        row.serialize_element(&conclusion.timing.as_ref().map(|timing| json(&rows::figures(timing))))?;
        row.end()
    }
}

impl Serialize for Insertion<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { job, claim } = self;
        let submission = &job.submission;
        let scheduled_for = submission.scheduled_for(job.accepted_at);
        // What most jobs don't have is left out.
        let further = scheduled_for.is_some() || submission.expires_at.is_some();
        let mut row = serializer.serialize_tuple(if further { 14 } else { 12 })?;
        row.serialize_element(&hex_id(job.id))?;
        row.serialize_element(&job.route.queue.code())?;
        row.serialize_element(&job.route.rule.code())?;
        row.serialize_element(&submission.bound.code())?;
        row.serialize_element(&submission.executor.code())?;
        row.serialize_element(&submission.workload.kind)?;
        row.serialize_element(submission.workload.json.get())?;
        row.serialize_element(&submission.priority)?;
        row.serialize_element(&rows::Options::of(submission).map(|options| json(&options)))?;
        row.serialize_element(&job.accepted_at.as_micros())?;
        row.serialize_element(&claim.map(|claim| claim.token))?;
        row.serialize_element(&claim.map(|claim| claim.at.as_micros()))?;
        if further {
            row.serialize_element(&scheduled_for.map(Timestamp::as_micros))?;
            row.serialize_element(&submission.expires_at.map(Timestamp::as_micros))?;
        }
        row.end()
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// As SQLite's `unhex` reads it.
pub(super) fn hex_id(id: JobId) -> uuid::fmt::Simple {
    uuid::Uuid::from_bytes(*id.as_bytes()).simple()
}
