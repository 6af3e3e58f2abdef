//! The SQL of the edges between jobs: what is written of them inside the writer's transaction, and what is read.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use sqlx::{SqliteConnection, SqlitePool};

use super::codes::Code;
use super::moves::{self, hex_id};
use super::rows::Cells;
use crate::clock::Timestamp;
use crate::job::{Dependency, JobId, NewJob, Owner, Queue};
use crate::store::kept::edge::{Ended, read_child, read_counts, read_dependency, read_ended, read_parent, read_state};
use crate::store::kept::{json, number};
use crate::store::{Graph, StateFilter, StoreError};

/// A job that waits for no other any more.
pub(super) struct Unblocked {
    pub(super) queue: Queue,
    /// Not before this moment.
    pub(super) due_at: Timestamp,
    pub(super) state: i16,
    pub(super) lane: Option<String>,
}

/// Those of these jobs that there are not.
pub(super) async fn unknown(connection: &mut SqliteConnection, jobs: &[JobId]) -> Result<Vec<JobId>, StoreError> {
    let text = "SELECT unhex(value) FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE id = unhex(value)) \
                AND NOT EXISTS (SELECT 1 FROM results WHERE id = unhex(value))";
    let rows = sqlx::query(text).bind(moves::array(jobs)).fetch_all(connection).await?;
    rows.iter().map(|row| Cells::new(row).id()).collect()
}

/// Keeps what new jobs come after. Those of them that come after a job that has ended already are returned.
pub(super) async fn link(connection: &mut SqliteConnection, jobs: &[&NewJob]) -> Result<Vec<JobId>, StoreError> {
    let edges: Vec<_> = jobs
        .iter()
        .flat_map(|job| {
            job.after.iter().map(|after| (hex_id(after.parent), hex_id(job.id), after.on_failure.code(), &after.name))
        })
        .collect();
    let text = "INSERT INTO edges (parent, child, rule, name, open) \
                SELECT unhex(value ->> 0), unhex(value ->> 1), value ->> 2, value ->> 3, \
                       EXISTS (SELECT 1 FROM jobs WHERE id = unhex(value ->> 0)) FROM json_each(?) WHERE true \
                ON CONFLICT DO NOTHING RETURNING child, open";
    let rows = sqlx::query(text).bind(json(&edges)).fetch_all(&mut *connection).await?;
    let mut past = Vec::new();
    for row in &rows {
        let mut cells = Cells::new(row);
        let child = cells.id()?;
        if cells.take::<i64>()? == 0 && past.last() != Some(&child) {
            past.push(child);
        }
    }
    let parents: Vec<_> = edges.iter().map(|edge| edge.0).collect();
    let text = "UPDATE jobs SET children = 1 WHERE children = 0 AND id IN (SELECT unhex(value) FROM json_each(?))";
    sqlx::query(text).bind(json(&parents)).execute(connection).await?;
    Ok(past)
}

/// Edges of parents that have ended, of which the children have not heard: `most` at most.
pub(super) async fn unheard(connection: &mut SqliteConnection, parents: &[JobId], most: usize) -> Result<Vec<Ended>, StoreError> {
    let text = "SELECT edges.parent, edges.child, edges.rule, edges.name, results.ending FROM json_each(?) \
                CROSS JOIN results ON results.id = unhex(value) CROSS JOIN edges ON edges.parent = results.id AND edges.open = 1 LIMIT ?";
    let query = sqlx::query(text).bind(moves::array(parents)).bind(number(most));
    query.fetch_all(connection).await?.iter().map(read_ended).collect()
}

/// Edges of these children whose parents had ended before.
pub(super) async fn past(connection: &mut SqliteConnection, children: &[JobId]) -> Result<Vec<Ended>, StoreError> {
    let text = "SELECT edges.parent, edges.child, edges.rule, edges.name, results.ending FROM json_each(?) \
                CROSS JOIN edges ON edges.child = unhex(value) AND edges.open = 0 CROSS JOIN results ON results.id = edges.parent";
    sqlx::query(text).bind(moves::array(children)).fetch_all(connection).await?.iter().map(read_ended).collect()
}

/// The children have heard of it.
pub(super) async fn close(connection: &mut SqliteConnection, edges: &[Ended]) -> Result<(), StoreError> {
    let edges: Vec<_> = edges.iter().map(|edge| (hex_id(edge.parent), hex_id(edge.child))).collect();
    let text = "UPDATE edges SET open = 0 FROM json_each(?) \
                WHERE edges.parent = unhex(value ->> 0) AND edges.child = unhex(value ->> 1)";
    sqlx::query(text).bind(json(&edges)).execute(connection).await?;
    Ok(())
}

/// Lets those of these children go that wait for no job any more: now, or when they are due.
pub(super) async fn unblock(
    connection: &mut SqliteConnection,
    children: &[JobId],
    now: Timestamp,
) -> Result<Vec<Unblocked>, StoreError> {
    let text = "UPDATE jobs SET state = iif(due_at > ?1, 0, iif(lane IS NULL, 1, 4)), due_at = max(due_at, ?1) FROM json_each(?2) \
                WHERE jobs.id = unhex(value) AND jobs.state = 3 \
                AND NOT EXISTS (SELECT 1 FROM edges WHERE edges.child = jobs.id AND edges.open = 1) \
                RETURNING jobs.queue, jobs.due_at, jobs.state, jobs.lane";
    let rows = sqlx::query(text).bind(now.as_micros()).bind(moves::array(children)).fetch_all(connection).await?;
    let unblocked = |row| {
        let mut cells = Cells::new(row);
        Ok(Unblocked { queue: cells.code()?, due_at: cells.time()?, state: cells.take()?, lane: cells.take()? })
    };
    rows.iter().map(unblocked).collect()
}

/// Jobs that had ended have come back: they wait again for those of their parents that have not ended. Which of them do.
pub(super) async fn reopen(connection: &mut SqliteConnection, children: &str) -> Result<HashSet<JobId>, StoreError> {
    let text = "UPDATE edges SET open = EXISTS (SELECT 1 FROM jobs WHERE jobs.id = edges.parent) \
                WHERE child IN (SELECT unhex(value) FROM jsonb_each(?)) RETURNING child, open";
    let mut waiting = HashSet::new();
    for row in &sqlx::query(text).bind(children).fetch_all(&mut *connection).await? {
        let mut cells = Cells::new(row);
        let child = cells.id()?;
        if cells.take()? {
            waiting.insert(child);
        }
    }
    if !waiting.is_empty() {
        let text = "UPDATE jobs SET state = 3 WHERE state IN (1, 4) AND id IN (SELECT unhex(value) FROM jsonb_each(?))";
        sqlx::query(text).bind(moves::array(&waiting.iter().copied().collect::<Vec<_>>())).execute(connection).await?;
    }
    Ok(waiting)
}

/// The jobs of which the children have not all heard.
pub(super) async fn releases(connection: &mut SqliteConnection) -> Result<Vec<JobId>, StoreError> {
    let rows = sqlx::query("SELECT parent FROM releases").fetch_all(connection).await?;
    rows.iter().map(|row| Cells::new(row).id()).collect()
}

/// Replaces some of the jobs of which the children have not all heard.
pub(super) async fn keep_releases(connection: &mut SqliteConnection, remove: &[JobId], add: &[JobId]) -> Result<(), StoreError> {
    if !remove.is_empty() {
        let text = "DELETE FROM releases WHERE parent IN (SELECT unhex(value) FROM json_each(?))";
        sqlx::query(text).bind(moves::array(remove)).execute(&mut *connection).await?;
    }
    if !add.is_empty() {
        let text = "INSERT INTO releases (parent) SELECT unhex(value) FROM json_each(?) WHERE true ON CONFLICT DO NOTHING";
        sqlx::query(text).bind(moves::array(add)).execute(connection).await?;
    }
    Ok(())
}

/// What a job comes after.
pub(super) async fn dependencies(readers: &SqlitePool, child: JobId) -> Result<Vec<Dependency>, StoreError> {
    let text = "SELECT parent, name, rule FROM edges WHERE child = ?";
    let rows = sqlx::query(text).bind(&child.as_bytes()[..]).fetch_all(readers).await?;
    rows.iter().map(read_dependency).collect()
}

/// Where jobs are.
pub(super) async fn states(readers: &SqlitePool, jobs: &[JobId]) -> Result<HashMap<JobId, StateFilter>, StoreError> {
    let text = "SELECT id, (SELECT state FROM jobs WHERE jobs.id = asked.id), (SELECT ending FROM results WHERE results.id = asked.id) \
                FROM (SELECT unhex(value) AS id FROM json_each(?)) AS asked";
    let rows = sqlx::query(text).bind(moves::array(jobs)).fetch_all(readers).await?;
    rows.iter().filter_map(read_state).collect()
}

/// A job's parents and children: the first `most` of each, those that it waits for before the others; of an owner's children alone, if
/// there is one.
pub(super) async fn graph(readers: &SqlitePool, id: JobId, owner: Option<Owner>, most: usize) -> Result<Graph, StoreError> {
    const OWNED: &str = "parent = ?1 AND (?2 IS NULL OR EXISTS (SELECT 1 FROM jobs WHERE jobs.id = child AND jobs.owner = ?2) \
                         OR EXISTS (SELECT 1 FROM results WHERE results.id = child AND results.owner = ?2))";
    const STATES: &str = "(SELECT state FROM jobs WHERE id = other), (SELECT ending FROM results WHERE id = other)";
    static PARENTS: LazyLock<String> = LazyLock::new(|| {
        format!(
            "SELECT other, name, rule, {STATES} FROM \
             (SELECT parent AS other, name, rule FROM edges WHERE child = ? ORDER BY open DESC, parent LIMIT ?)"
        )
    });
    static CHILDREN: LazyLock<String> = LazyLock::new(|| {
        format!("SELECT other, {STATES} FROM (SELECT child AS other FROM edges WHERE {OWNED} ORDER BY child LIMIT ?3)")
    });
    static COUNT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "SELECT (SELECT count(*) FROM edges WHERE child = ?1), (SELECT count(*) FROM edges WHERE {OWNED}), \
                    (SELECT count(*) FROM edges WHERE child = ?1 AND open = 1)"
        )
    });
    let (key, owner, most) = (&id.as_bytes()[..], owner.map(Owner::code), number(most));
    let mut snapshot = readers.begin().await?;
    let row = sqlx::query(COUNT.as_str()).bind(key).bind(owner).fetch_one(&mut *snapshot).await?;
    let mut graph = read_counts(&row)?;
    if graph.parent_count > 0 {
        let rows = sqlx::query(PARENTS.as_str()).bind(key).bind(most).fetch_all(&mut *snapshot).await?;
        graph.parents = rows.iter().map(read_parent).collect::<Result<_, _>>()?;
    }
    if graph.child_count > 0 {
        let rows = sqlx::query(CHILDREN.as_str()).bind(key).bind(owner).bind(most).fetch_all(&mut *snapshot).await?;
        graph.children = rows.iter().map(read_child).collect::<Result<_, _>>()?;
    }
    snapshot.commit().await?;
    Ok(graph)
}
