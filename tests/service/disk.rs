//! The disk is full, the database is in other hands, or it is damaged: what clients see of it, and what becomes of their jobs.

use std::collections::HashSet;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use sqlx::Connection as _;
use tokio::sync::Mutex;
use trine::telemetry::Sparing;

use crate::crash::is_sound;
use crate::server::{PATIENCE, Server, client, database, folder, log, program, raw, refusal, sleep, trine, until, until_said};

/// A disk of its own, as large as this, that is gone with the server: only root may mount one.
const MOUNT: &str = "mount -t tmpfs -o size=24m tmpfs \"$0\" && exec \"$@\"";
/// What stands in the way until there is room again.
const IN_THE_WAY: usize = 12 << 20;
/// How many requests are refused before there is room.
const REFUSED: usize = 300;

/// A job that fills some kilobytes.
fn large(n: usize) -> Value {
    let tags: serde_json::Map<_, _> = (0..16).map(|tag| (format!("tag{tag}"), json!("x".repeat(250)))).collect();
    let executor = ["async", "threads", "processes"][n % 3];
    json!({"bound": "io", "workload": {"type": "sleep", "ms": n % 3}, "executor": executor, "tags": tags})
}

#[derive(Default)]
struct Load {
    accepted: Mutex<HashSet<String>>,
    refused: AtomicUsize,
}

impl Load {
    /// Submits jobs until enough were refused: so many at once.
    async fn run(self: Arc<Self>, url: String, batch: usize) {
        let client = client();
        while self.refused.load(Ordering::SeqCst) < REFUSED {
            let request = if batch == 1 {
                client.post(format!("{url}/jobs")).json(&large(self.refused.load(Ordering::SeqCst)))
            } else {
                client.post(format!("{url}/jobs/batch")).json(&(0..batch).map(large).collect::<Vec<_>>())
            };
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let body: Value = answer.json().await.unwrap();
            if status == 202 {
                let items = body["items"].as_array().cloned().unwrap_or_else(|| vec![body]);
                self.accepted.lock().await.extend(items.iter().map(|job| job["id"].as_str().unwrap().to_owned()));
            } else {
                assert!(status == 429 || status == 503, "{status}: {body}");
                self.refused.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_jobs_and_loses_none_and_all_goes_on_when_there_is_room() {
    let folder = folder();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let mut command = program("unshare");
    command.args(["--mount", "sh", "-c", MOUNT]).arg(&data).arg(trine().get_program());
    let server = Server::start_by(command, folder.path(), &[]).await;
    // The disk as the server sees it.
    let inside = PathBuf::from(format!("/proc/{}/root{}", server.pid(), data.display()));
    let began = Instant::now();
    std::fs::write(inside.join("in the way"), vec![1; IN_THE_WAY]).unwrap();

    let load = Arc::new(Load::default());
    let clients: Vec<_> =
        [1, 1, 1, 20, 100].into_iter().map(|batch| tokio::spawn(Arc::clone(&load).run(server.url.clone(), batch))).collect();
    for client in clients {
        tokio::time::timeout(PATIENCE, client).await.expect("the disk to be full").unwrap();
    }
    // It says that it can't take work, lives, and can be looked at. What is too much for the journal leaves room in it, for those who only look.
    load.refused.store(REFUSED - 1, Ordering::SeqCst);
    tokio::time::timeout(PATIENCE, Arc::clone(&load).run(server.url.clone(), 1_000)).await.expect("the disk to be full");
    for _ in 0..20 {
        assert_eq!(server.client.get(format!("{}/readyz", server.url)).send().await.unwrap().status(), 503);
    }
    server.get("/healthz").await;
    assert_eq!(server.get("/jobs?limit=1").await["items"].as_array().unwrap().len(), 1);

    std::fs::remove_file(inside.join("in the way")).unwrap();
    let one_more = server.submit(&large(0)).await;
    server.until_ready(true).await;
    server.until_state(&one_more, "succeeded").await;
    let accepted = load.accepted.lock().await.clone();
    assert!(accepted.len() > 100, "{} jobs found room", accepted.len());
    for id in &accepted {
        server.until_state(id, "succeeded").await;
    }
    let results = server.results().await;
    let ids: HashSet<&str> = results.iter().map(|result| result["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), results.len(), "a job has two results");
    assert!(accepted.iter().all(|id| ids.contains(id.as_str())));
    // What is on that disk now, as a crash would leave it.
    is_sound(&inside).await;
    server.stop();
    // What happens over and over is told now and then.
    let log = log(folder.path());
    for words in ["the rollups can't be written", "the profiles can't be written"] {
        let told = log.matches(words).count() as u64;
        assert!(told <= 1 + began.elapsed().as_secs() / Sparing::APART.as_secs(), "{log}");
    }
}

#[tokio::test]
async fn while_another_program_holds_the_database_writes_are_refused_and_reads_go_on() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let id = server.submit(&sleep(0)).await;
    server.until_state(&id, "succeeded").await;
    let mut other = raw(&database(folder.path())).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let submission = sleep(0);
    let refused = server.client.post(format!("{}/jobs", server.url)).json(&submission).send().await.unwrap();
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    // Why is in the log.
    let said = refused.text().await.unwrap();
    assert!(said.contains("the store is not available now") && !said.contains("locked"), "{said}");
    until_said(folder.path(), "locked").await;
    assert_eq!(server.get(&format!("/jobs/{id}")).await["state"], "succeeded");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    server.until_ready(true).await;
    let id = server.submit(&submission).await;
    server.until_state(&id, "succeeded").await;
    // What became of an attempt is refused, and at first also that it can't be stored. It is tried again, and no job stays as if it ran.
    let refuse = "CREATE TRIGGER no_event BEFORE INSERT ON events WHEN NEW.kind <> 0 BEGIN SELECT RAISE(ABORT, 'no event'); END; \
                  CREATE TRIGGER no_result BEFORE INSERT ON results BEGIN SELECT RAISE(ABORT, 'no result'); END";
    sqlx::raw_sql(refuse).execute(&mut other).await.unwrap();
    let retry = json!({"attempts": 3, "backoff_ms": 1});
    let late = json!({"bound": "io", "workload": {"type": "sleep", "ms": 60_000}, "deadline_ms": 10, "retry": retry});
    let id = server.submit(&late).await;
    until_said(folder.path(), "no result").await;
    sqlx::raw_sql("DROP TRIGGER no_result; DROP TRIGGER no_event").execute(&mut other).await.unwrap();
    let job = server.until_state(&id, "failed").await;
    let error = job["error"]["message"].as_str().unwrap_or_default();
    assert!(error.starts_with("what became of this attempt can't be stored: "), "{job}");
    server.stop();

    // A server that can't get at its database says why it does not start.
    sqlx::query("PRAGMA locking_mode = EXCLUSIVE").execute(&mut other).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    sqlx::query("CREATE TABLE held (n)").execute(&mut other).await.unwrap();
    let said = refusal(folder.path(), &[]).await;
    assert!(said.contains("another program holds"), "{said}");
}

#[tokio::test]
async fn a_damaged_page_is_reported_and_not_served() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    // A server that starts looks at the latest ten thousand results.
    let noop = sleep(0);
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.extend(server.submit_all(&vec![noop.clone(); 6_000]).await);
    }
    until("all jobs end", async || (server.count().await == 12_000).then_some(())).await;
    server.stop();
    damage(&database(folder.path())).await;

    let server = Server::start(folder.path(), &[]).await;
    for path in ["/results?order=oldest".to_owned(), format!("/jobs/{}", ids[0])] {
        let answer = server.client.get(format!("{}{path}", server.url)).send().await.unwrap();
        assert_eq!(answer.status(), 500, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
    until_said(folder.path(), "malformed").await;
    // What is not damaged is served, and work goes on.
    assert_eq!(server.get(&format!("/jobs/{}", ids[11_999])).await["state"], "succeeded");
    let id = server.submit(&noop).await;
    server.until_state(&id, "succeeded").await;
}

/// Writes over the first page of results.
async fn damage(database: &Path) {
    let mut raw = raw(database).await;
    let text = "SELECT pageno FROM dbstat WHERE name = 'results' AND pagetype = 'leaf' ORDER BY path LIMIT 1";
    let page: u32 = sqlx::query_scalar(text).fetch_one(&mut raw).await.unwrap();
    let size: u32 = sqlx::query_scalar("PRAGMA page_size").fetch_one(&mut raw).await.unwrap();
    raw.close().await.unwrap();
    let mut file = std::fs::File::options().read(true).write(true).open(database).unwrap();
    let at = u64::from(page - 1) * u64::from(size);
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&vec![0xa5; size as usize]).unwrap();
}
