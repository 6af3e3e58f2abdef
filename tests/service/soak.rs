//! Faults at random under load, for as long as one likes; what has to be true is asked of the API alone.
//!
//! `TRINE_SOAK_SECONDS=600 cargo test --test service soak -- --nocapture` is a long one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::time::sleep;

use crate::load::Load;
use crate::server::{Server, client, folder, number, program, trine};

/// How long it goes on, in seconds.
const SECONDS: usize = 15;
/// A disk of its own, which outlives the servers on it.
const MOUNT: &str = "mount -t tmpfs -o size=2g tmpfs \"$0\" && echo mounted && exec sleep infinity";

/// The disk that the data is on.
struct Disk {
    holder: Child,
    /// As it is seen from outside.
    inside: PathBuf,
}

impl Disk {
    fn mount(folder: &Path) -> Self {
        let data = folder.join("data");
        std::fs::create_dir(&data).unwrap();
        let mut holder = Command::new("unshare");
        holder.args(["--mount", "sh", "-c", MOUNT]).arg(&data).stdout(Stdio::piped());
        let mut holder = holder.spawn().unwrap();
        let mut said = [0; 7];
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut said).unwrap();
        let inside = PathBuf::from(format!("/proc/{}/root{}", holder.id(), data.display()));
        Self { holder, inside }
    }

    /// A server on it.
    async fn serve(&self, folder: &Path) -> Server {
        let mut command = program("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg(format!("--wd={}", folder.display()));
        command.arg(trine().get_program());
        Server::start_by(command, folder, &[("TRINE_MAX_LOSSES", "1000")]).await
    }

    /// No room is left on it for so long.
    async fn fill(&self, time: Duration) {
        let path = self.inside.join("in the way");
        let file = std::fs::File::create(&path).unwrap();
        let mut size = 0;
        // As much as there is, in ever smaller pieces.
        for piece in [64 << 20, 1 << 20, 4 << 10] {
            while nix::fcntl::posix_fallocate(&file, size, piece).is_ok() {
                size += piece;
            }
        }
        sleep(time).await;
        std::fs::remove_file(path).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A process of the server's that runs jobs, if there is any.
fn worker(server: Pid) -> Option<Pid> {
    let threads = std::fs::read_dir(format!("/proc/{server}/task")).ok()?;
    let children = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("children")).ok());
    let children: Vec<i32> =
        children.flat_map(|ids| ids.split(' ').filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect();
    fastrand::choice(children).map(Pid::from_raw)
}

/// Stops a process for a while; it may be gone by then.
async fn pause(process: Pid) {
    if kill(process, Signal::SIGSTOP).is_ok() {
        sleep(Duration::from_millis(fastrand::u64(50..1_000))).await;
        let _ = kill(process, Signal::SIGCONT);
    }
}

/// Asks for jobs at random: whatever was accepted is there, and what has ended stays as it ended.
async fn watch(load: Arc<Load>) {
    let (client, mut ended) = (client(), HashMap::<String, Value>::new());
    while !load.enough.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(2)).await;
        let Some(id) = fastrand::choice(load.accepted.lock().await.iter().take(5_000).cloned().collect::<Vec<_>>()) else {
            continue;
        };
        let url = load.url.lock().await.clone();
        let Ok(answer) = client.get(format!("{url}/jobs/{id}")).send().await else { continue };
        assert!(answer.status() == 200 || answer.status().is_server_error(), "{id}: {}", answer.status());
        if answer.status() != 200 {
            continue;
        }
        let Ok(job) = answer.json::<Value>().await else { continue };
        if let Some(before) = ended.get(&id) {
            assert_eq!(&job["finished_at"], before, "{job} has ended twice");
        } else if job["finished_at"].is_string() {
            ended.insert(id, job["finished_at"].clone());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak() {
    let seconds = number("TRINE_SOAK_SECONDS", SECONDS);
    let folder = folder();
    let disk = Disk::mount(folder.path());
    let mut server = disk.serve(folder.path()).await;
    let (load, mut clients) = Load::start(&server.url, &[1, 1, 1, 10, 50]);
    clients.spawn(watch(Arc::clone(&load)));
    let end = Instant::now() + Duration::from_secs(seconds.try_into().unwrap());
    let mut done = [0; 5];
    while Instant::now() < end {
        sleep(Duration::from_millis(fastrand::u64(100..1_500))).await;
        let fault = fastrand::usize(..done.len());
        match fault {
            0 => {
                server.crash();
                server = disk.serve(folder.path()).await;
                *load.url.lock().await = server.url.clone();
            }
            1 => drop(worker(server.pid()).map(|worker| kill(worker, Signal::SIGKILL))),
            2 => pause(server.pid()).await,
            3 => {
                if let Some(worker) = worker(server.pid()) {
                    pause(worker).await;
                }
            }
            _ => disk.fill(Duration::from_millis(fastrand::u64(100..2_000))).await,
        }
        done[fault] += 1;
        // In between, it must be well again by itself.
        server.until_ready(true).await;
    }
    load.end(&mut clients).await;
    let results = load.check(&server).await;
    let [crashes, workers, stops, slow, full] = done;
    println!(
        "{seconds} s: {} accepted, {results} results; server killed {crashes} times and stopped {stops} times, \
         workers killed {workers} times and stopped {slow} times, disk full {full} times",
        load.accepted.lock().await.len()
    );
}
