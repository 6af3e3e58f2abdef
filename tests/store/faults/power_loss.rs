//! The power goes off: what was not synced is gone, or is there in part. Whatever was answered has to be there.
//!
//! One run is recorded, and the power goes off after each of its writes and syncs.

use tokio::task::JoinSet;

use super::disk::{Disk, Entry, Left, Replay};
use super::work::{Known, work, wrong};
use crate::sqlite::Folder;
use crate::{PATIENCE, Place};

/// Databases that are looked at side by side.
const AT_ONCE: usize = 8;

/// A life of a store with two ends and a beginning: what was written, and what was known when.
async fn recorded(careless: bool) -> (Vec<Entry>, Known) {
    let folder = Folder::new().light();
    let disk = Disk::watch(folder.path());
    disk.record(folder.path());
    if careless {
        disk.be_careless();
    }
    let known = Known::new(&disk);
    for _ in 0..2 {
        let store = folder.open().await;
        assert_eq!(work(&store, &known, PATIENCE).await, 0, "the disk is well");
        // In the middle of a run, the journal is folded in.
        sqlx::query("PRAGMA wal_checkpoint").execute(&mut folder.raw().await).await.unwrap();
        assert_eq!(work(&store, &known, PATIENCE).await, 0, "the disk is well");
        store.close().await;
    }
    (disk.recorded(), known)
}

/// What is wrong after the power went off, at the first moment at which anything is.
async fn first_wrong(entries: &[Entry], known: &Known, left: &[Left]) -> Option<String> {
    let mut replay = Replay::new(entries);
    let mut random = fastrand::Rng::with_seed(7);
    let mut looks = JoinSet::new();
    let mut at = 0;
    while let Some(entry) = replay.step() {
        at += 1;
        // To know one thing more changes no file, but what has to be in it: it is looked at with what comes next.
        if matches!(entry, Entry::Told) && at < entries.len() {
            continue;
        }
        for left in left {
            let folder = Folder::new().light();
            replay.lose_power(*left, &mut random, folder.path());
            let (left, places) = (*left, known.first(replay.told));
            looks.spawn(async move { wrong(&folder, &places).await.map(|wrong| format!("entry {at}, {left:?} left: {wrong}")) });
        }
        while looks.len() >= AT_ONCE {
            if let Some(wrong) = looks.join_next().await.unwrap().unwrap() {
                return Some(wrong);
            }
        }
    }
    looks.join_all().await.into_iter().flatten().next()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_loss_at_any_write_loses_nothing_that_was_answered() {
    let (entries, known) = recorded(false).await;
    let wrong = first_wrong(&entries, &known, &[Left::Nothing, Left::Some]).await;
    assert_eq!(wrong, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_write_loses_nothing_that_was_answered() {
    let (entries, known) = recorded(false).await;
    assert_eq!(first_wrong(&entries, &known, &[Left::Everything]).await, None);
}

/// It shows that the test above would see it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_sync_at_each_commit_a_power_loss_loses_jobs() {
    let (entries, known) = recorded(true).await;
    let wrong = first_wrong(&entries, &known, &[Left::Nothing]).await;
    assert!(wrong.is_some_and(|wrong| wrong.contains("should be")), "with synchronous=NORMAL nothing was lost");
}
