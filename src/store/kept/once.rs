//! What is accepted once: requests with a key, and unique jobs.

use super::{Cells, Row};
use crate::job::JobId;
use crate::store::{Answered, Digest, StoreError, Twin};

/// How long it is remembered that there was a unique job, at least; and after which it is looked again whether it has ended.
pub(in crate::store) const REMEMBERED_US: i64 = 7 * 24 * 3_600_000_000;
/// The most rows of a kind that are forgotten by one transaction.
pub(in crate::store) const MOST_FORGOTTEN: i64 = 500;
/// Bytes of a job in the answer to a request: its id, and whether it was there before.
const ANSWERED: usize = 17;

/// An answer that is still kept, by its key.
pub(in crate::store) const ONE: &str = "SELECT digest, jobs, until FROM answers WHERE key = $1 AND until > $2";
/// One that is not kept any more may still be there.
pub(in crate::store) const ADD: &str = "INSERT INTO answers (key, digest, jobs, until) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (key) DO UPDATE SET digest = $2, jobs = $3, until = $4";
pub(in crate::store) const FORGET: &str =
    "DELETE FROM answers WHERE until <= $1 AND key IN (SELECT key FROM answers WHERE until <= $1 ORDER BY until LIMIT $2)";
pub(in crate::store) const ADD_UNIQUE: &str = "INSERT INTO uniques (digest, job, at, look_at) SELECT $1, id, accepted_at, accepted_at + $3 FROM jobs WHERE id = $2 \
     ON CONFLICT (digest) DO UPDATE SET job = excluded.job, at = excluded.at, look_at = excluded.look_at";

/// Jobs of an answer as they are stored.
pub(in crate::store) fn bytes_of(jobs: &[(JobId, bool)]) -> Vec<u8> {
    jobs.iter().flat_map(|(id, before)| id.as_bytes().iter().copied().chain([u8::from(*before)])).collect()
}

pub(in crate::store) fn read(key: &str, row: &impl Row) -> Result<Answered, StoreError> {
    let mut cells = Cells::new(row);
    let (digest, jobs) = (digest(cells.take()?)?, jobs(cells.take()?));
    Ok(Answered { key: key.to_owned(), digest, jobs, until: cells.time()? })
}

/// From the digest, the job, the moment of its acceptance, and whether it has not ended.
pub(in crate::store) fn read_twin(row: &impl Row) -> Result<(Digest, Twin), StoreError> {
    let mut cells = Cells::new(row);
    let digest = digest(cells.take()?)?;
    Ok((digest, Twin { job: cells.id()?, accepted_at: cells.time()?, unfinished: cells.take()? }))
}

fn digest(bytes: &[u8]) -> Result<Digest, StoreError> {
    bytes.try_into().map_err(|_| StoreError::Corrupt("a digest is not 32 bytes long".into()))
}

fn jobs(bytes: &[u8]) -> Vec<(JobId, bool)> {
    let job = |bytes: &[u8]| Some((JobId::from_bytes(bytes[..ANSWERED - 1].try_into().ok()?), bytes[ANSWERED - 1] != 0));
    bytes.chunks_exact(ANSWERED).filter_map(job).collect()
}
