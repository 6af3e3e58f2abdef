//! What a key may have the server do, and what it has it do just now.
//!
//! How fast an owner submits is counted by the store, for all nodes that share one. What waits is counted by the database, so it is right
//! also after a restart. Between two counts, what is accepted is added and what begins is not taken away: the sum may be too large, and is
//! counted again when it says no, and now and then. Only jobs that wait once more, as for a retry, are missed until then.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::auth::{Quota, QuotaPart};
use crate::job::{NewJob, Owner};
use crate::store::{MINUTE, Store, StoreError, Usage};

/// After which time what waits is counted again in any case.
const LONGEST: Duration = Duration::from_secs(1);
/// How many times as long as a count took nothing is counted again, so that one that is refused can't keep the database busy.
const REST: u32 = 20;
/// So many that wait are counted at once for whoever has cancelled some: that takes no longer than the cancellation.
const FEW: u64 = 1_000;
/// What a client is told to wait for until some of what waits may have begun.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A quota has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: its `{part}` is {most}", if retry_after.is_some() { "the quota of this key is used up" } else { "more than the quota of this key ever takes" })]
pub struct OverQuota {
    /// Which part.
    pub part: QuotaPart,
    /// How much it allows.
    pub most: u64,
    /// When there may be room; `None` if there will never be enough.
    pub retry_after: Option<Duration>,
}

/// Why something was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NoRoom {
    /// It is more than the quota allows.
    #[error(transparent)]
    Over(#[from] OverQuota),
    /// What there is can't be counted.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What something takes of a quota.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Jobs, or comparisons.
    pub jobs: u64,
    /// The bytes of their workloads.
    pub bytes: u64,
}

/// An owner's quota, and how much of it is used.
#[derive(Clone, Copy, Debug)]
pub struct QuotaStatus {
    /// The quota, with what the settings say.
    pub quota: Quota,
    /// What there is of this owner.
    pub usage: Usage,
    /// How many jobs of the last minute still count.
    pub submitted: u64,
}

/// The quotas of all keys.
pub struct Quotas {
    store: Arc<dyn Store>,
    defaults: Quota,
    accounts: RwLock<HashMap<Owner, Arc<Account>>>,
    /// Whether there are any.
    any: AtomicBool,
    /// How often something that waited was cancelled.
    freed: AtomicU64,
}

/// What is known of one owner.
struct Account {
    quota: Quota,
    ledger: Arc<Ledger>,
}

/// What an owner has used.
#[derive(Default)]
struct Ledger {
    /// Held while it is counted: others of this owner wait for the same count.
    counted: tokio::sync::Mutex<Option<Counted>>,
    /// What is being accepted.
    coming: Sum,
    /// When all that was submitted does not count any more, at the earliest: as far as the store was asked in vain.
    clear_at: Mutex<Option<Instant>>,
}

/// What waited when it was counted.
struct Counted {
    jobs: u64,
    bytes: u64,
    at: Instant,
    took: Duration,
    /// How often something had been cancelled before.
    freed: u64,
}

#[derive(Default)]
struct Sum {
    jobs: AtomicU64,
    bytes: AtomicU64,
}

/// Room that was found for what is being accepted. To be dropped once it is.
#[derive(Default)]
pub struct Taken(Option<Found>);

/// How much room was found, and whose.
struct Found {
    account: Arc<Account>,
    owner: Owner,
    wanted: Wanted,
    store: Arc<dyn Store>,
}

impl Wanted {
    /// What these jobs take.
    pub(super) fn by(jobs: &[NewJob]) -> Self {
        let bytes = jobs.iter().map(|job| job.submission.workload.json.get().len() as u64).sum();
        Self { jobs: jobs.len() as u64, bytes }
    }
}

impl Quotas {
    /// None yet but the `defaults`, for the owners that there will be.
    pub fn new(store: Arc<dyn Store>, defaults: Quota) -> Self {
        Self { store, defaults, accounts: RwLock::default(), any: AtomicBool::new(false), freed: AtomicU64::new(0) }
    }

    /// Goes by these quotas from here on.
    ///
    /// # Errors
    /// The store does not know of them yet.
    pub async fn set(&self, quotas: impl Iterator<Item = (Owner, Quota)> + Send) -> Result<(), StoreError> {
        let quotas: HashMap<Owner, Quota> =
            quotas.map(|(owner, quota)| (owner, quota.or(self.defaults))).filter(|(_, quota)| !quota.is_none()).collect();
        let running = quotas.iter().filter_map(|(owner, quota)| Some((*owner, quota.running?))).collect();
        {
            let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
            let mut before = std::mem::take(&mut *accounts);
            let account = |(owner, quota)| {
                let ledger = before.remove(&owner).map(|account| Arc::clone(&account.ledger)).unwrap_or_default();
                (owner, Arc::new(Account { quota, ledger }))
            };
            *accounts = quotas.into_iter().map(account).collect();
            self.any.store(!accounts.is_empty(), Ordering::Release);
        }
        self.store.allow(running).await
    }

    /// Whether a quota says how many jobs of this owner may run at once.
    pub(super) fn confines(&self, owner: Option<Owner>) -> bool {
        self.account(owner).is_some_and(|account| account.quota.running.is_some())
    }

    /// Something that waited was cancelled: whoever was refused for it may come again.
    pub fn freed(&self) {
        self.freed.fetch_add(1, Ordering::SeqCst);
    }

    /// Finds room for all of this, or for none.
    ///
    /// # Errors
    /// There is none, or the store can't tell.
    pub async fn take(&self, owner: Option<Owner>, wanted: Wanted) -> Result<Taken, NoRoom> {
        match (self.account(owner), owner) {
            (Some(account), Some(owner)) if wanted.jobs > 0 => account.take(owner, wanted, self).await,
            _ => Ok(Taken::default()),
        }
    }

    /// How many of up to `most` jobs there is room for, at least one; and that room.
    ///
    /// # Errors
    /// There is none, or the store can't tell.
    pub(super) async fn take_some(&self, owner: Option<Owner>, most: u64) -> Result<(u64, Taken), NoRoom> {
        let (Some(account), Some(owner)) = (self.account(owner), owner) else { return Ok((most, Taken::default())) };
        let mut jobs = most;
        loop {
            match Arc::clone(&account).take(owner, Wanted { jobs, bytes: 0 }, self).await {
                Err(NoRoom::Over(_)) if jobs > 1 => jobs /= 2,
                taken => return taken.map(|taken| (jobs, taken)),
            }
        }
    }

    /// How much an owner may have the server do, and what it has it do.
    ///
    /// # Errors
    /// The store can't tell.
    pub async fn status(&self, owner: Owner) -> Result<QuotaStatus, StoreError> {
        let quota = self.account(Some(owner)).map_or(self.defaults, |account| account.quota);
        let submitted = match quota.per_minute {
            Some(most) => jobs_in(self.store.spent(owner).await?, most),
            None => 0,
        };
        Ok(QuotaStatus { quota, usage: self.store.usage(owner).await?, submitted })
    }

    fn account(&self, owner: Option<Owner>) -> Option<Arc<Account>> {
        // What most servers and most requests need is no more than this.
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.accounts.read().unwrap_or_else(PoisonError::into_inner).get(&owner?).cloned()
    }
}

impl fmt::Debug for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quotas").field("defaults", &self.defaults).finish_non_exhaustive()
    }
}

impl Account {
    async fn take(self: Arc<Self>, owner: Owner, wanted: Wanted, quotas: &Quotas) -> Result<Taken, NoRoom> {
        self.ever_fits(wanted)?;
        let store = &*quotas.store;
        let coming = &self.ledger.coming;
        let mut counted = self.ledger.counted.lock().await;
        if self.quota.queued.is_some() || self.quota.bytes.is_some() {
            let is_old = counted.as_ref().is_none_or(|counted| counted.at.elapsed() >= LONGEST);
            let over = counted.as_ref().and_then(|counted| self.over(counted, wanted));
            // Before it is counted as well: what is cancelled meanwhile may not have been seen.
            let freed = quotas.freed.load(Ordering::SeqCst);
            let has_rested = |counted: &Counted| counted.at.elapsed() >= counted.took * REST;
            let may = counted.as_ref().is_none_or(|counted| has_rested(counted) || counted.freed < freed && counted.jobs <= FEW);
            if (is_old || over.is_some()) && may {
                let begun = Instant::now();
                // What comes to be there meanwhile is rather counted twice than not at all.
                let (jobs, bytes) = (coming.jobs.load(Ordering::SeqCst), coming.bytes.load(Ordering::SeqCst));
                let usage = store.usage(owner).await?;
                let (jobs, bytes) = (usage.queued + jobs, usage.bytes + bytes);
                *counted = Some(Counted { jobs, bytes, at: Instant::now(), took: begun.elapsed(), freed });
            }
            if let Some(counted) = &mut *counted {
                if let Some(over) = self.over(counted, wanted) {
                    return Err(over.into());
                }
                counted.jobs += wanted.jobs;
                counted.bytes += wanted.bytes;
            }
        }
        coming.jobs.fetch_add(wanted.jobs, Ordering::SeqCst);
        coming.bytes.fetch_add(wanted.bytes, Ordering::SeqCst);
        drop(counted);
        let taken = Taken(Some(Found { account: Arc::clone(&self), owner, wanted, store: Arc::clone(&quotas.store) }));
        if let Err(error) = self.submit(owner, wanted.jobs, store).await {
            self.give_back(wanted);
            return Err(error);
        }
        Ok(taken)
    }

    /// Counts that so many are submitted, if there have not been too many.
    async fn submit(&self, owner: Owner, jobs: u64, store: &dyn Store) -> Result<(), NoRoom> {
        let Some(most) = self.quota.per_minute else { return Ok(()) };
        let over = |wait| OverQuota { part: QuotaPart::PerMinute, most: most.into(), retry_after: Some(wait) };
        let span = span(jobs, most);
        // Others can only have added to it: whoever does not wait as long as told is told again, and the store not asked.
        let clear_at = *self.ledger.clear_at.lock().unwrap_or_else(PoisonError::into_inner);
        let left = clear_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        if let Some(wait) = (left + span).checked_sub(MINUTE).filter(|wait| !wait.is_zero()) {
            return Err(over(wait).into());
        }
        let Some(wait) = store.spend(owner, span).await? else { return Ok(()) };
        let clear_at = Instant::now() + (wait + MINUTE).saturating_sub(span);
        *self.ledger.clear_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(clear_at);
        Err(over(wait).into())
    }

    /// Refuses what has no room though nothing else is there.
    fn ever_fits(&self, wanted: Wanted) -> Result<(), OverQuota> {
        let Quota { queued, per_minute, bytes, .. } = self.quota;
        let parts = [
            (QuotaPart::Queued, queued, wanted.jobs),
            (QuotaPart::PerMinute, per_minute.map(u64::from), wanted.jobs),
            (QuotaPart::Bytes, bytes, wanted.bytes),
        ];
        let over = parts.into_iter().find_map(|(part, most, wanted)| Some((part, most.filter(|most| wanted > *most)?)));
        over.map_or(Ok(()), |(part, most)| Err(OverQuota { part, most, retry_after: None }))
    }

    /// Which part of the quota has no room for this among what waits.
    fn over(&self, counted: &Counted, wanted: Wanted) -> Option<OverQuota> {
        let over = |part, most: Option<u64>, sum| {
            let most = most.filter(|most| sum > *most)?;
            Some(OverQuota { part, most, retry_after: Some(LOOK_AGAIN) })
        };
        over(QuotaPart::Queued, self.quota.queued, counted.jobs + wanted.jobs)
            .or_else(|| over(QuotaPart::Bytes, self.quota.bytes, counted.bytes + wanted.bytes))
    }

    /// So many of those that room was found for did not come.
    fn give_back(&self, missing: Wanted) {
        // While somebody counts, this is found out by that.
        if let Ok(mut counted) = self.ledger.counted.try_lock()
            && let Some(counted) = &mut *counted
        {
            counted.jobs = counted.jobs.saturating_sub(missing.jobs);
            counted.bytes = counted.bytes.saturating_sub(missing.bytes);
        }
    }
}

/// How long it takes until so many do not count any more.
fn span(jobs: u64, per_minute: u32) -> Duration {
    let nanos = MINUTE.as_nanos() * u128::from(jobs) / u128::from(per_minute.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// How many jobs it takes so long until they do not count.
fn jobs_in(span_left: Duration, per_minute: u32) -> u64 {
    u64::try_from(span_left.as_nanos().div_ceil(span(1, per_minute).as_nanos().max(1))).unwrap_or(u64::MAX)
}

impl Taken {
    /// Whether there is no quota for it.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// No more than so many jobs came of those that room was found for.
    pub(super) async fn came(&self, jobs: u64) {
        let Some(Found { account, owner, wanted, store }) = &self.0 else { return };
        let missing = wanted.jobs.saturating_sub(jobs);
        // Of some of them it is not known how long they are.
        account.give_back(Wanted { jobs: missing, bytes: if jobs == 0 { wanted.bytes } else { 0 } });
        let Some(most) = account.quota.per_minute.filter(|_| missing > 0) else { return };
        *account.ledger.clear_at.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Err(error) = store.give_back(*owner, span(missing, most)).await {
            tracing::warn!(%error, missing, "jobs that were not submitted count against a quota until their minute is over");
        }
    }

    /// Nothing came of what the store did not take. What it may have taken after all counts.
    pub async fn failed(&self, error: &StoreError) {
        if !error.may_pass() || matches!(error, StoreError::Taken) {
            self.came(0).await;
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(Found { account, wanted, .. }) = &self.0 {
            account.ledger.coming.jobs.fetch_sub(wanted.jobs, Ordering::SeqCst);
            account.ledger.coming.bytes.fetch_sub(wanted.bytes, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(quota: Quota) -> Account {
        Account { quota, ledger: Arc::default() }
    }

    #[test]
    fn what_never_fits_is_not_told_to_come_back() {
        let quota = Quota { queued: Some(3), per_minute: Some(9), bytes: Some(100), running: Some(1) };
        let account = account(quota);
        let refused = |jobs, bytes| account.ever_fits(Wanted { jobs, bytes }).unwrap_err();
        assert_eq!((refused(4, 0).part, refused(3, 101).part), (QuotaPart::Queued, QuotaPart::Bytes));
        assert_eq!(refused(4, 0).retry_after, None);
        account.ever_fits(Wanted { jobs: 3, bytes: 100 }).unwrap();
    }

    #[test]
    fn what_waits_is_held_against_the_quota() {
        let account = account(Quota { queued: Some(3), bytes: Some(100), ..Quota::default() });
        let counted = Counted { jobs: 2, bytes: 90, at: Instant::now(), took: Duration::ZERO, freed: 0 };
        assert_eq!(account.over(&counted, Wanted { jobs: 1, bytes: 10 }), None);
        assert_eq!(account.over(&counted, Wanted { jobs: 2, bytes: 0 }).unwrap().part, QuotaPart::Queued);
        assert_eq!(account.over(&counted, Wanted { jobs: 1, bytes: 11 }).unwrap().part, QuotaPart::Bytes);
    }
}
