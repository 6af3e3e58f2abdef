//! A short run of all that a store does, and what has to be true of it afterwards, whatever happens to the disk.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use serde_json::value::to_raw_value;
use trine::clock::Timestamp;
use trine::job::{Dependency, Failure, JobId, LogStream, NewJob, Note, OnFailure, Queue};
use trine::store::{
    Cancellation, Claimed, EventFilter, Filter, Lease, Order, Page, Requeue, Settled, Settlement, Store, StoreError,
};

use super::disk::Disk;
use crate::sqlite::Folder;
use crate::{apart, failed, io_job, settle, state, succeeded};

/// Where a job may be after the store was opened again.
type Places = &'static [&'static str];

const WAITING: Places = &["queued", "scheduled"];
/// While a job ends well, and then.
pub(super) const SUCCEEDS: (Places, Places) = (&["queued", "scheduled", "succeeded"], &["succeeded"]);

/// What the test was told, in its order: of each job the last counts.
pub(super) struct Known {
    disk: Arc<Disk>,
    places: Mutex<Vec<(JobId, Places)>>,
    /// Jobs that others come after: they have to succeed.
    parents: Mutex<HashSet<JobId>>,
}

impl Known {
    pub(super) fn new(disk: &Arc<Disk>) -> Self {
        Self { disk: Arc::clone(disk), places: Mutex::default(), parents: Mutex::default() }
    }

    /// From here on, the job is in one of these places.
    fn is(&self, id: JobId, places: Places) {
        self.places.lock().unwrap().push((id, places));
        self.disk.told();
    }

    /// What was known after so many things were told.
    pub(super) fn first(&self, told: usize) -> BTreeMap<JobId, Places> {
        self.places.lock().unwrap()[..told].iter().copied().collect()
    }

    /// Ends an attempt: what may be so meanwhile is known before, what is so then afterwards.
    pub(super) async fn settle(
        &self,
        store: &Arc<dyn Store>,
        lease: Lease,
        settlement: Settlement,
        (during, after): (Places, Places),
    ) -> Result<(), StoreError> {
        // What comes without having been told of was accepted all the same.
        let told = self.all().contains_key(&lease.id);
        if told {
            self.is(lease.id, during);
        }
        if settle(store, lease, settlement).await? != Settled::Stale && told {
            self.is(lease.id, after);
        }
        Ok(())
    }

    pub(super) fn all(&self) -> BTreeMap<JobId, Places> {
        let told = self.places.lock().unwrap().len();
        self.first(told)
    }
}

/// Works with the store; how many steps failed. A claim that gets nothing for so long is given up.
pub(super) async fn work(store: &Arc<dyn Store>, known: &Known, claim: Duration) -> usize {
    Work { store, known, claim, failed: 0 }.run().await
}

struct Work<'a> {
    store: &'a Arc<dyn Store>,
    known: &'a Known,
    claim: Duration,
    failed: usize,
}

impl Work<'_> {
    async fn run(mut self) -> usize {
        let parent = self.accept(vec![io_job()], WAITING).await;
        if let Some(&parent) = parent.first() {
            let after = vec![Dependency { parent, name: None, on_failure: OnFailure::Cancel }];
            self.known.parents.lock().unwrap().insert(parent);
            self.accept(vec![NewJob { after, ..io_job() }], &["blocked", "queued", "scheduled"]).await;
        }
        let mut batch: Vec<NewJob> = (0..4).map(|_| io_job()).collect();
        batch[1].submission.workload.json = to_raw_value(&json!({"type": "sleep", "ms": 1, "note": "long".repeat(300)})).unwrap();
        batch[2].submission.tags = [("team".into(), "search".into())].into();
        batch[3].submission.run_at = Some(Timestamp::now().after(Duration::from_secs(3_600)));
        let later = self.accept(batch, WAITING).await;
        self.accept((0..3).map(|_| apart(io_job())).collect(), WAITING).await;
        for queue in [Queue::Async, Queue::Processes] {
            self.claim_and_settle(queue).await;
        }
        if let Some(id) = later.last() {
            self.known.is(*id, &["queued", "scheduled", "cancelled"]);
            let cancelled = self.store.cancel(*id, &[]).await;
            if self.went(cancelled).is_some_and(|cancellation| cancellation == Cancellation::Cancelled) {
                self.known.is(*id, &["cancelled"]);
            }
        }
        if let Some(id) = later.first() {
            let before = self.known.all()[id];
            self.known.is(*id, &["queued", "scheduled", "succeeded", "failed"]);
            let requeued = self.store.requeue(*id).await;
            match self.went(requeued) {
                Some(Requeue::Queued) => self.known.is(*id, WAITING),
                Some(_) => self.known.is(*id, before),
                None => {}
            }
        }
        self.look(&later).await;
        self.failed
    }

    async fn accept(&mut self, jobs: Vec<NewJob>, places: Places) -> Vec<JobId> {
        let accepted = self.store.accept(jobs).await;
        let ids: Vec<JobId> = self.went(accepted).unwrap_or_default().iter().map(|job| job.id).collect();
        for id in &ids {
            self.known.is(*id, places);
        }
        ids
    }

    async fn claim_and_settle(&mut self, queue: Queue) {
        let Ok(claimed) = tokio::time::timeout(self.claim, self.store.claim(queue, 8)).await else {
            self.failed += 1;
            return;
        };
        let claimed = self.went(claimed).unwrap_or_default();
        for (n, Claimed { lease, .. }) in claimed.into_iter().enumerate() {
            self.store.note(lease, Note::log(LogStream::Stdout, "so far")).await;
            let now = Timestamp::now();
            let again = Settlement::Again { due_at: now, lost: false, error: Failure::error("not yet"), timing: None };
            let parent = self.known.parents.lock().unwrap().contains(&lease.id);
            let (settlement, places): (_, (Places, Places)) = match n % 4 {
                2 => (again, (WAITING, WAITING)),
                3 if !parent => (failed("no"), (&["queued", "scheduled", "failed"], &["failed"])),
                _ => (succeeded(), SUCCEEDS),
            };
            let settled = self.known.settle(self.store, lease, settlement, places).await;
            self.went(settled);
        }
    }

    /// Reads whatever can be read.
    async fn look(&mut self, ids: &[JobId]) {
        let page = Page { order: Order::OldestFirst, after: None, limit: 100 };
        let (filter, events) = (Filter::default(), EventFilter::default());
        for id in ids {
            let job = self.store.job(*id).await;
            self.went(job);
        }
        let jobs = self.store.jobs(&filter, page).await;
        self.went(jobs);
        let results = self.store.results(&filter, page).await;
        self.went(results);
        let events = self.store.events(&events, Timestamp::from_micros(0)).await;
        self.went(events);
        let check = self.store.check().await;
        self.went(check);
    }

    fn went<T>(&mut self, result: Result<T, StoreError>) -> Option<T> {
        self.failed += usize::from(result.is_err());
        result.ok()
    }
}

/// What is wrong in a folder that is opened again: in the store, or in the database itself.
pub(super) async fn wrong(folder: &Folder, known: &BTreeMap<JobId, Places>) -> Option<String> {
    let store: Arc<dyn Store> = match folder.try_open().await {
        Ok(store) => Arc::new(store),
        Err(error) => return Some(error.to_string()),
    };
    for (id, places) in known {
        let state = state(&store, *id).await;
        if !places.contains(&state) {
            return Some(format!("{id} is {state}, and should be {places:?}"));
        }
    }
    if let Err(error) = store.accept(vec![io_job()]).await {
        return Some(format!("it takes no job: {error}"));
    }
    store.close().await;
    let mut raw = folder.raw().await;
    let verdict: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut raw).await.unwrap();
    let twice = "SELECT count(*) FROM jobs JOIN results USING (id)";
    let twice: i64 = sqlx::query_scalar(twice).fetch_one(&mut raw).await.unwrap();
    (verdict != "ok" || twice > 0).then(|| format!("{verdict}; {twice} jobs have a result and run"))
}
