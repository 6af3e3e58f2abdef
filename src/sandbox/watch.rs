//! Looks after what no limit of the kernel covers: what a whole group uses. A group that exceeds a limit is killed; one whose leader was stopped is told
//! to go on, since nobody else would.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Limits;
use super::group::kill;

/// The shortest and the longest pause between two rounds. In between it is so many times as long as the round took, so that watching
/// does not take much of a core.
const PAUSE: (Duration, Duration) = (Duration::from_millis(150), Duration::from_secs(1));
const SHARE: u32 = 10;
/// Where processes may be started: how often to look how many there are, and how many more are a reason not to wait for the next round.
const GLANCE: Duration = Duration::from_millis(10);
const SURGE: u64 = 64;
/// So few files or threads that are left are little.
const FEW: u64 = 64;
/// What a file takes besides its content.
const ENTRY_BYTES: u64 = 512;

/// A limit that a program has exceeded. As text, a sentence about the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Resident memory of the whole group.
    #[error("it used {} of memory; its limit is {}", size(*used), size(*limit))]
    Memory {
        /// In bytes.
        used: u64,
        /// In bytes.
        limit: u64,
    },
    /// Processes in the group.
    #[error("it started {started} processes; its limit is {limit}")]
    Processes {
        /// Besides the first one.
        started: u64,
        /// Besides the first one.
        limit: u64,
    },
    /// Threads in the group.
    #[error("it ran {running} threads; its limit is {limit}")]
    Threads {
        /// How many.
        running: u64,
        /// How many.
        limit: u64,
    },
    /// What is in the scratch folder.
    #[error("it kept {} in its scratch folder; its limit is {}", size(*used), size(*limit))]
    Scratch {
        /// In bytes.
        used: u64,
        /// In bytes.
        limit: u64,
    },
    /// The length of one file.
    #[error("it wrote a file longer than its limit of {}", size(*limit))]
    File {
        /// In bytes.
        limit: u64,
    },
}

impl Limits {
    /// The violation for which the kernel itself has ended a program.
    pub(super) fn violated_by(&self, status: ExitStatus) -> Option<Violation> {
        (status.signal() == Some(Signal::SIGXFSZ as i32)).then_some(Violation::File { limit: self.file_bytes })
    }
}

/// Watches groups, on one thread for all of them. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub(super) struct Watch(Arc<Handle>);

#[derive(Debug)]
struct Handle(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    groups: BTreeMap<i32, Watching>,
    closed: bool,
}

#[derive(Clone, Debug)]
struct Watching {
    limits: Limits,
    scratch: Arc<Path>,
    /// Whether it was short of anything when it was looked at last.
    is_short: Arc<AtomicBool>,
    /// Why it was killed.
    violation: Option<Violation>,
}

/// A group that is watched. Its number must stay its own until this has ended.
#[derive(Debug)]
pub(super) struct Watched {
    group: i32,
    is_short: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

impl Watch {
    /// Starts the thread; it ends with the last handle.
    pub(super) fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let watching = Arc::clone(&shared);
        thread::Builder::new().name("trine-watch".into()).spawn(move || watching.run())?;
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// Watches a group, whose number is that of its leader, and its scratch folder. It is killed if it exceeds a limit.
    pub(super) fn group(&self, leader: Pid, limits: Limits, scratch: &Path) -> Watched {
        let (group, shared) = (leader.as_raw(), Arc::clone(&self.0.0));
        let is_short = Arc::<AtomicBool>::default();
        let watching = Watching { limits, scratch: scratch.into(), is_short: Arc::clone(&is_short), violation: None };
        shared.state().groups.insert(group, watching);
        shared.changed.notify_one();
        Watched { group, is_short, shared }
    }
}

impl Watched {
    /// Ends the watch; tells the limit for which the group was killed, if it was. From here on it is not killed any more.
    pub(super) fn end(&self) -> Option<Violation> {
        self.shared.state().groups.remove(&self.group).and_then(|group| group.violation)
    }

    /// Whether it was short of anything when it was looked at last; see [`is_short`].
    pub(super) fn is_short(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_short)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            let groups = {
                let idle = |state: &mut State| state.groups.is_empty() && !state.closed;
                let state = self.changed.wait_while(self.state(), idle).unwrap_or_else(PoisonError::into_inner);
                if state.closed {
                    return;
                }
                state.groups.clone()
            };
            let began = Instant::now();
            let running = processes(&groups);
            let mut short = BTreeSet::new();
            // What grows fastest goes first.
            for look in [of_processes, of_scratch] {
                for (id, group) in &groups {
                    match look(&running[id], group) {
                        Ok(true) => drop(short.insert(*id)),
                        Ok(false) => {}
                        Err(violation) => self.end(*id, violation),
                    }
                }
            }
            for (id, group) in &groups {
                group.is_short.store(short.contains(id), Ordering::Relaxed);
                if running[id].iter().any(|process| process.pid == *id && process.is_stopped) {
                    self.go_on(*id);
                }
            }
            let pause = (began.elapsed() * SHARE).clamp(PAUSE.0, PAUSE.1);
            if groups.values().any(|group| group.limits.processes > 0) { pause_until_surge(pause) } else { thread::sleep(pause) }
        }
    }

    /// Kills a group, unless its owner has ended the watch.
    fn end(&self, id: i32, violation: Violation) {
        let mut state = self.state();
        if let Some(group) = state.groups.get_mut(&id) {
            // Under the lock: the number is the group's as long as it is watched.
            kill(Pid::from_raw(id), Signal::SIGKILL);
            group.violation.get_or_insert(violation);
        }
    }

    /// Has a group go on that has stopped.
    fn go_on(&self, id: i32) {
        if self.state().groups.contains_key(&id) {
            // Under the lock, as above.
            kill(Pid::from_raw(id), Signal::SIGCONT);
        }
    }
}

/// Pauses until many tasks were started at once. A fork bomb doubles again and again before the next round.
fn pause_until_surge(pause: Duration) {
    let (began, before) = (Instant::now(), tasks());
    while began.elapsed() < pause && tasks() <= before + SURGE {
        thread::sleep(GLANCE);
    }
}

/// All tasks of the machine: the fourth figure of `proc_loadavg(5)`, such as `2/340`.
fn tasks() -> u64 {
    let figures = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    figures.split(' ').nth(3).and_then(|tasks| tasks.split('/').nth(1)?.parse().ok()).unwrap_or(0)
}

/// A process, as `proc_pid_stat(5)` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    /// The thread that tells of it: the first one, unless that has ended before the others.
    task: i32,
    has_ended: bool,
    is_stopped: bool,
    group: i32,
    threads: u64,
    resident_bytes: u64,
}

/// The members of each group. Where nobody may start a process, only the leader is looked at.
fn processes(groups: &BTreeMap<i32, Watching>) -> BTreeMap<i32, Vec<Process>> {
    let mut found: BTreeMap<i32, Vec<Process>> = groups.keys().map(|id| (*id, Vec::new())).collect();
    let mut add = |process: Process| {
        if let Some(members) = found.get_mut(&process.group) {
            members.push(process);
        }
    };
    if groups.values().all(|group| group.limits.processes == 0) {
        groups.keys().filter_map(|id| Process::read(*id)).for_each(&mut add);
    } else {
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        all.filter_map(|entry| Process::read(entry.file_name().to_str()?.parse().ok()?)).for_each(&mut add);
    }
    found
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let first = Self::of_task(pid, pid)?;
        if !first.has_ended || first.threads == 0 {
            return Some(first);
        }
        // Of a thread that has ended nothing is told that the process has.
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let live = tasks.filter_map(|task| Self::of_task(pid, task.file_name().to_str()?.parse().ok()?));
        Some(live.filter(|task| !task.has_ended).max_by_key(|task| task.resident_bytes).unwrap_or(first))
    }

    fn of_task(pid: i32, task: i32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/task/{task}/stat")).ok()?;
        // Its name may be anything, also no text.
        Self::parse(pid, task, &String::from_utf8_lossy(&stat))
    }

    fn parse(pid: i32, task: i32, stat: &str) -> Option<Self> {
        // The name, in brackets, may hold anything. What follows it are the fields from the third on.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            pid,
            task,
            has_ended: matches!(*fields.first()?, "Z" | "X"),
            is_stopped: *fields.first()? == "T",
            group: i32::try_from(number(5)?).ok()?,
            threads: number(20)?,
            resident_bytes: number(24)? * page_bytes(),
        })
    }

    /// The folder of what is told of it.
    fn folder(&self) -> String {
        format!("/proc/{}/task/{}", self.pid, self.task)
    }

    /// Its memory, with a fair share of what it shares with others.
    fn share_bytes(&self) -> u64 {
        let kib = |rollup: String| {
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:").map(str::trim).map(str::to_owned))?;
            line.strip_suffix("kB")?.trim().parse::<u64>().ok()
        };
        let rollup = fs::read_to_string(format!("{}/smaps_rollup", self.folder())).ok();
        rollup.and_then(kib).map_or(self.resident_bytes, |kib| kib * 1024)
    }

    /// What files take that it has open, but that have no name any more.
    fn unnamed_bytes(&self, device: u64) -> u64 {
        let open = fs::read_dir(format!("{}/fd", self.folder())).into_iter().flatten().flatten();
        let files = open.filter_map(|entry| fs::metadata(entry.path()).ok());
        files.filter(|file| file.is_file() && file.nlink() == 0 && file.dev() == device).map(|file| file.blocks() * 512).sum()
    }
}

/// How many files a process has open.
pub fn open_files(pid: i32) -> Option<u64> {
    let folder = format!("/proc/{pid}/fd");
    // Since Linux 6.2, that is the size of the folder.
    match fs::metadata(&folder).ok()?.len() {
        0 => Some(fs::read_dir(folder).ok()?.count() as u64),
        open => Some(open),
    }
}

/// Whether few files or threads are left of those that a program may have: then what comes next may fail for what was before it.
pub const fn is_short(used: u64, limit: u64) -> bool {
    limit.saturating_sub(used) < FEW
}

fn of_processes(members: &[Process], Watching { limits, .. }: &Watching) -> Result<bool, Violation> {
    let started = (members.len() as u64).saturating_sub(1);
    if started > limits.processes {
        return Err(Violation::Processes { started, limit: limits.processes });
    }
    let running = members.iter().map(|process| process.threads).sum();
    if running > limits.threads {
        return Err(Violation::Threads { running, limit: limits.threads });
    }
    let mut used = members.iter().map(|process| process.resident_bytes).sum();
    if used > limits.memory_bytes && members.len() > 1 {
        // What a fork shares with its parent was counted twice.
        used = members.iter().map(Process::share_bytes).sum();
    }
    if used > limits.memory_bytes {
        return Err(Violation::Memory { used, limit: limits.memory_bytes });
    }
    let open = members.iter().filter_map(|process| open_files(process.pid)).max().unwrap_or(0);
    Ok(is_short(running, limits.threads) || is_short(open, limits.open_files))
}

fn of_scratch(members: &[Process], Watching { limits, scratch, .. }: &Watching) -> Result<bool, Violation> {
    let device = fs::metadata(scratch).map_or(0, |folder| folder.dev());
    let unnamed: u64 = members.iter().map(|process| process.unnamed_bytes(device)).sum();
    let used = unnamed + bytes_in(scratch, limits.scratch_bytes.saturating_sub(unnamed));
    if used > limits.scratch_bytes {
        return Err(Violation::Scratch { used, limit: limits.scratch_bytes });
    }
    Ok(used > limits.scratch_bytes / 3 * 2)
}

/// What is in a folder. Stops to count beyond `most`; what can't be looked into, because it is closed or its path is too long, is beyond it.
fn bytes_in(folder: &Path, most: u64) -> u64 {
    let mut bytes = 0;
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidFilename) => return most + 1,
            // It is gone by now, or there is no room to look at it just now.
            Err(_) => continue,
        };
        for entry in entries.flatten() {
            // Of a link, not of what it leads to. It may be gone by now.
            let Ok(metadata) = entry.metadata() else { continue };
            bytes += metadata.blocks() * 512 + ENTRY_BYTES;
            if bytes > most {
                return bytes;
            }
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    bytes
}

#[expect(unsafe_code, reason = "no crate here tells the size of a page")]
fn page_bytes() -> u64 {
    // SAFETY: the call takes and returns a number.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

fn size(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_is_no_trouble() {
        let stat = "7 (a) b (c)) S 1 5 5 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 3 0 100 4096 2 18446744073709551615";
        let process = Process::parse(7, 7, stat).unwrap();
        assert_eq!((process.group, process.threads, process.resident_bytes), (5, 3, 2 * page_bytes()));
    }

    #[test]
    fn this_process_can_be_read() {
        let own = Process::read(std::process::id().cast_signed()).unwrap();
        assert!(own.threads > 0 && own.resident_bytes > 0 && own.share_bytes() > 0, "{own:?}");
    }

    #[test]
    fn a_file_without_a_name_counts() {
        let folder = tempfile::tempdir().unwrap();
        let device = fs::metadata(folder.path()).unwrap().dev();
        let own = Process::read(std::process::id().cast_signed()).unwrap();
        let path = folder.path().join("file");
        let file = fs::File::create(&path).unwrap();
        fs::write(&path, vec![1; 1 << 20]).unwrap();
        assert!(bytes_in(folder.path(), u64::MAX) >= 1 << 20);
        fs::remove_file(path).unwrap();
        assert_eq!(bytes_in(folder.path(), u64::MAX), 0);
        assert!(own.unnamed_bytes(device) >= 1 << 20);
        drop(file);
    }
}
