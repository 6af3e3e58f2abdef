//! Keeps comparisons and runs them, one at a time: two at once would measure each other. Of servers that share a store, each runs one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::request::{Asked, Request};
use super::run::{Progress, RunError, run};
use crate::dispatch::{Dispatcher, NoRoom, Wanted};
use crate::job::{ComparisonId, Owner};
use crate::store::{Comparison, ComparisonEnd, ComparisonState, Store, StoreError};
use crate::telemetry::Sparing;
use crate::workload::{Invalid, Stop, StopReason};

/// The wait before another try at a store that can't write.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// How often to look whether another server has ended or cancelled one.
const LOOK: Duration = Duration::from_secs(1);
/// How often to look for one that was asked of another node, or while this one was drained.
const LOOK_FOR_MORE: Duration = Duration::from_secs(5);
/// For how long a node that lacks what one takes, and sees no other that has it, leaves it to one that may be starting anew.
const FOR_OTHERS: Duration = Duration::from_mins(1);
/// Said of those that ran when the server went away.
const INTERRUPTED: &str = "it was interrupted: the server went down while it ran";

/// Why a comparison was not taken.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// It can't be run here.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The server is going down.
    #[error("the server is shutting down")]
    Draining,
    /// The owner has too much already, or what there is can't be counted.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of a comparison that is not wanted any more.
#[derive(Clone, Debug)]
pub enum Unwanted {
    /// It waited, and will not run.
    Cancelled(Comparison),
    /// It runs, and is being stopped.
    Stopping(Comparison),
    /// It had ended, and is gone.
    Removed,
    /// There is no such comparison.
    Unknown,
}

/// The comparisons of a server. Clones are handles to the same ones.
#[derive(Clone)]
pub struct Comparisons {
    shared: Arc<Shared>,
}

struct Shared {
    dispatcher: Dispatcher,
    /// Told when one was asked for.
    asked: Notify,
    /// Held while one begins, so that a cancellation finds it either waiting or live.
    beginning: tokio::sync::Mutex<()>,
    /// The one that runs.
    live: Mutex<HashMap<ComparisonId, Live>>,
    /// Counts those that have ended.
    ended: watch::Sender<u64>,
    serving: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Clone)]
struct Live {
    stop: Stop,
    progress: watch::Receiver<Progress>,
}

impl Comparisons {
    /// Those that ran when an earlier server went away have failed. To be called before any begins here.
    pub async fn interrupt(store: &dyn Store) -> Result<(), StoreError> {
        let interrupted = store.interrupt_comparisons(INTERRUPTED).await?;
        if interrupted > 0 {
            tracing::warn!(interrupted, "comparisons were interrupted when the server went down");
        }
        Ok(())
    }

    /// Takes up those that wait. Must be called on a tokio runtime.
    pub fn start(dispatcher: Dispatcher) -> Self {
        let shared = Arc::new(Shared {
            dispatcher,
            asked: Notify::new(),
            beginning: tokio::sync::Mutex::default(),
            live: Mutex::default(),
            ended: watch::Sender::new(0),
            serving: Mutex::default(),
        });
        let serving = tokio::spawn(serve(Arc::clone(&shared)));
        *shared.serving.lock().unwrap_or_else(PoisonError::into_inner) = Some(serving);
        Self { shared }
    }

    /// Checks one and keeps it; it runs when it is its turn.
    pub async fn ask(&self, owner: Option<Owner>, asked: Asked) -> Result<Comparison, CompareError> {
        if self.shared.dispatcher.is_draining() {
            return Err(CompareError::Draining);
        }
        let request = asked.complete(&self.shared.dispatcher).await?;
        let json = serde_json::value::to_raw_value(&request).map_err(|error| StoreError::Refused(error.to_string()))?;
        let wanted = Wanted { jobs: 1, bytes: json.get().len() as u64 };
        let quota = self.shared.dispatcher.quotas().take(owner, wanted).await?;
        let kept = self.store().add_comparison(ComparisonId::new(), owner, json).await;
        match &kept {
            Ok(_) => self.shared.asked.notify_one(),
            Err(error) => quota.failed(error).await,
        }
        Ok(kept?)
    }

    /// One of them, and how far it is if it runs.
    pub async fn get(&self, id: ComparisonId) -> Result<Option<(Comparison, Option<Progress>)>, StoreError> {
        let progress = self.shared.live().get(&id).map(|live| live.progress.borrow().clone());
        Ok(self.store().comparison(id).await?.map(|comparison| (comparison, progress)))
    }

    /// The same once it has ended, or when `limit` is over.
    pub async fn wait(&self, id: ComparisonId, limit: Duration) -> Result<Option<(Comparison, Option<Progress>)>, StoreError> {
        let until = tokio::time::Instant::now() + limit;
        // Subscribed before looking: an end in between is seen.
        let mut ended = self.shared.ended.subscribe();
        loop {
            let found = self.get(id).await?;
            let open = found.as_ref().is_some_and(|(found, _)| is_open(found.state));
            let draining = self.shared.dispatcher.drained();
            let more = tokio::time::timeout_at(until, async {
                tokio::select! {
                    changed = ended.changed() => changed.is_ok(),
                    () = self.shared.others_may_have(LOOK) => true,
                    () = draining => false,
                }
            });
            if !open || !more.await.unwrap_or(false) {
                return if open { self.get(id).await } else { Ok(found) };
            }
        }
    }

    /// Up to `limit` of them, the latest first.
    pub async fn list(
        &self,
        owner: Option<Owner>,
        after: Option<ComparisonId>,
        limit: usize,
    ) -> Result<Vec<Comparison>, StoreError> {
        self.store().comparisons(owner, after, limit).await
    }

    /// Cancels one that waits; stops the one that runs; removes one that has ended.
    pub async fn discard(&self, id: ComparisonId) -> Result<Unwanted, StoreError> {
        let _beginning = self.shared.beginning.lock().await;
        let Some(found) = self.store().comparison(id).await? else { return Ok(Unwanted::Unknown) };
        if !is_open(found.state) {
            let removed = self.store().remove_comparison(id).await?;
            return Ok(if removed { Unwanted::Removed } else { Unwanted::Unknown });
        }
        if let Some(live) = self.shared.live().get(&id) {
            live.stop.stop(StopReason::Cancelled);
            return Ok(Unwanted::Stopping(found));
        }
        self.store().end_comparison(id, ComparisonEnd::Cancelled).await?;
        self.shared.dispatcher.quotas().freed();
        self.shared.ended.send_modify(|ended| *ended += 1);
        let found = self.store().comparison(id).await?;
        Ok(found.map_or(Unwanted::Unknown, Unwanted::Cancelled))
    }

    /// Stops the one that runs, which says so, and begins no other: the dispatcher has to be draining.
    pub async fn shut_down(&self) {
        // One that is just beginning is live after that.
        drop(self.shared.beginning.lock().await);
        for live in self.shared.live().values() {
            live.stop.stop(StopReason::HandBack);
        }
        let serving = self.shared.serving.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(serving) = serving {
            // It ends early only if it panics, and then there is nothing to wait for.
            let _ = serving.await;
        }
    }

    fn store(&self) -> &dyn Store {
        self.shared.dispatcher.store()
    }
}

impl Shared {
    /// Waits for so long before looking what other servers have done; for ever where there are no others.
    async fn others_may_have(&self, wait: Duration) {
        if self.dispatcher.store().is_shared() {
            tokio::time::sleep(wait).await;
        } else {
            std::future::pending::<()>().await;
        }
    }

    /// Stops one that runs here once another server has cancelled it, or removed it after that.
    async fn stop_if_cancelled(&self, id: ComparisonId, stop: &Stop) {
        loop {
            self.others_may_have(LOOK).await;
            let found = self.dispatcher.store().comparison(id).await;
            if let Ok(None | Some(Comparison { state: ComparisonState::Cancelled, .. })) = found {
                stop.stop(StopReason::Cancelled);
            }
        }
    }

    fn live(&self) -> MutexGuard<'_, HashMap<ComparisonId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn is_open(state: ComparisonState) -> bool {
    matches!(state, ComparisonState::Queued | ComparisonState::Running)
}

/// Runs one after the other until the server drains.
async fn serve(shared: Arc<Shared>) {
    let store = shared.dispatcher.store();
    let failures = Sparing::default();
    while !shared.dispatcher.is_draining() {
        let (next, stop, progress) = match begin(&shared).await {
            Ok(Some(begun)) => begun,
            Ok(None) => {
                tokio::select! {
                    () = shared.asked.notified() => continue,
                    () = tokio::time::sleep(LOOK_FOR_MORE) => continue,
                    () = shared.dispatcher.drained() => return,
                }
            }
            Err(StoreError::Closed) => return,
            Err(error) => {
                if let Some(more) = failures.tell() {
                    tracing::error!(%error, more, "can't begin a comparison");
                }
                tokio::time::sleep(STORE_RETRY).await;
                continue;
            }
        };
        let id = next.id;
        let mut end = tokio::select! {
            end = one(&shared.dispatcher, next, &stop, &progress) => end,
            () = shared.stop_if_cancelled(id, &stop) => ComparisonEnd::Cancelled,
        };
        while let Err(error) = store.end_comparison(id, end.clone()).await {
            tracing::warn!(%id, %error, "what a comparison found can't be kept yet");
            if shared.dispatcher.is_draining() {
                break;
            }
            // The store would give it out again and again if it never ended.
            if !error.may_pass() {
                end = ComparisonEnd::Failed("what it found can't be kept".into());
            }
            tokio::time::sleep(STORE_RETRY).await;
        }
        shared.live().remove(&id);
        shared.ended.send_modify(|ended| *ended += 1);
    }
}

/// Whether it can't be run here, and another node is there, or may still come, that can.
async fn is_for_others(dispatcher: &Dispatcher, next: &Comparison) -> Result<bool, StoreError> {
    // What can't be read ends here.
    let Ok(request) = serde_json::from_str::<Request>(next.request.get()) else { return Ok(false) };
    let Some(nodes) = request.elsewhere(dispatcher).await? else { return Ok(false) };
    let has_just_come = dispatcher.store().now().since(next.requested_at) < FOR_OTHERS;
    Ok(has_just_come || nodes.iter().any(|node| node.role.works()))
}

/// Begins the one that waits longest, but leaves to other nodes what takes an interpreter that is not here. With it comes how to stop it and where
/// it tells of its progress.
async fn begin(shared: &Shared) -> Result<Option<(Comparison, Stop, watch::Sender<Progress>)>, StoreError> {
    let store = shared.dispatcher.store();
    let mut after = None;
    while let Some(next) = store.waiting_comparison(after).await? {
        after = Some(next.id);
        if is_for_others(&shared.dispatcher, &next).await? {
            continue;
        }
        let _beginning = shared.beginning.lock().await;
        // Looked at behind the lock, which a shut-down takes after it began to drain.
        if !shared.dispatcher.begins_work() {
            return Ok(None);
        }
        if let Some(begun) = store.begin_comparison(next.id).await? {
            let (sender, progress) = watch::channel(Progress { share: 0.0, doing: "beginning".into() });
            let stop = Stop::default();
            shared.live().insert(begun.id, Live { stop: stop.clone(), progress });
            return Ok(Some((begun, stop, sender)));
        }
    }
    Ok(None)
}

async fn one(dispatcher: &Dispatcher, next: Comparison, stop: &Stop, progress: &watch::Sender<Progress>) -> ComparisonEnd {
    let request: Request = match serde_json::from_str(next.request.get()) {
        Ok(request) => request,
        Err(error) => return ComparisonEnd::Failed(format!("this server can't read what was asked: {error}")),
    };
    tracing::info!(id = %next.id, "a comparison begins");
    match run(dispatcher, &request, stop, progress).await {
        Ok(report) => serde_json::value::to_raw_value(&report)
            .map_or_else(|error| ComparisonEnd::Failed(error.to_string()), ComparisonEnd::Finished),
        Err(RunError::Stopped) if stop.reason() == Some(StopReason::Cancelled) => ComparisonEnd::Cancelled,
        Err(RunError::Stopped) => ComparisonEnd::Failed(INTERRUPTED.into()),
        Err(error) => ComparisonEnd::Failed(error.to_string()),
    }
}
