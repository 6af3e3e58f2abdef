//! The disk fails at the n-th call, for every n of a short run: once, and for ever. Nobody panics, nothing that was answered is lost, and
//! the store goes on by itself when the disk is well.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use tokio::task::JoinSet;
use trine::job::Queue;
use trine::store::Store;

use super::disk::{Disk, Fault, Left, Replay, Trouble};
use super::work::{Known, SUCCEEDS, work, wrong};
use crate::sqlite::Folder;
use crate::{PATIENCE, Place, io_job, succeeded};

/// Runs side by side: mostly they wait.
const AT_ONCE: u64 = 16;
/// How long a claim waits on a disk that may be broken for ever.
const CLAIM: Duration = Duration::from_millis(100);

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Counts panics of the threads that belong to stores.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name().is_some_and(|name| name == "trine-writer" || name.starts_with("sqlx")) {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            before(info);
        }));
    });
}

/// A run on a disk that fails; whether it came that far.
async fn run(template: Arc<Folder>, fault: Fault) -> bool {
    let folder = template.crashed().light();
    let disk = Disk::watch(folder.path());
    disk.record(folder.path());
    let known = Known::new(&disk);
    disk.fail(fault);
    let opened = tokio::time::timeout(PATIENCE, folder.try_open()).await.expect("an answer");
    let failed = match opened {
        Ok(store) => {
            let store: Arc<dyn Store> = Arc::new(store);
            let steps = tokio::time::timeout(PATIENCE, work(&store, &known, CLAIM)).await;
            steps.unwrap_or_else(|_| panic!("{fault:?}: an answer does not come"));
            let failed = disk.heal();
            goes_on(&store, &known).await.unwrap_or_else(|error| panic!("{fault:?}: it does not go on: {error}"));
            if fault.call.is_multiple_of(2) {
                store.close().await;
            }
            failed
        }
        Err(error) => {
            // An operator has to hear where.
            let path = folder.options().path.display().to_string();
            assert!(error.to_string().contains(&path), "{fault:?}: {error}");
            disk.heal()
        }
    };
    // Now the power goes off, so that nobody relies on what a failed sync has not written.
    let (entries, left) = (disk.recorded(), Folder::new().light());
    let mut replay = Replay::new(&entries);
    while replay.step().is_some() {}
    replay.lose_power(Left::Nothing, &mut fastrand::Rng::new(), left.path());
    if let Some(wrong) = wrong(&left, &known.all()).await {
        panic!("{fault:?}: {wrong}");
    }
    failed > 0
}

/// A store whose disk is well again takes, runs and ends a job, without being opened anew.
async fn goes_on(store: &Arc<dyn Store>, known: &Known) -> Result<(), String> {
    let said = |error: trine::store::StoreError| error.to_string();
    let job = store.accept(vec![io_job()]).await.map_err(said)?.remove(0);
    // A disk that was full is taken to be so for a while, or until a job has found room.
    store.check().await.map_err(said)?;
    loop {
        let claimed = tokio::time::timeout(PATIENCE, store.claim(Queue::Async, 8)).await;
        for claimed in claimed.map_err(|_| "nothing is claimed".to_owned())?.map_err(said)? {
            known.settle(store, claimed.lease, succeeded(), SUCCEEDS).await.map_err(said)?;
            if claimed.lease.id == job.id {
                store.job(job.id).await.map_err(said)?;
                return Ok(());
            }
        }
    }
}

/// Every call of a run, from the first until the run ends without coming to it.
async fn every_call(for_ever: bool, trouble: Trouble) {
    count_panics();
    // Each run begins with what a crash has left.
    let folder = Folder::new().light();
    let store = folder.open().await;
    assert_eq!(work(&store, &Known::new(&Disk::watch(folder.path())), PATIENCE).await, 0, "the disk is well");
    let template = Arc::new(folder.crashed());
    store.close().await;
    let mut runs = JoinSet::new();
    let mut calls = 1..;
    loop {
        while (runs.len() as u64) < AT_ONCE {
            runs.spawn(run(Arc::clone(&template), Fault { call: calls.next().unwrap(), for_ever, trouble }));
        }
        if !runs.join_next().await.unwrap().unwrap() {
            break;
        }
    }
    runs.join_all().await;
    assert!(calls.start > 100, "{} calls are a short run", calls.start);
    assert_eq!(PANICS.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_that_fails_loses_nothing() {
    every_call(false, Trouble::Error).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_short_write_on_a_full_disk_loses_nothing() {
    every_call(false, Trouble::Short).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_for_ever_loses_nothing() {
    every_call(true, Trouble::Error).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_stays_full_loses_nothing() {
    every_call(true, Trouble::Full).await;
}
