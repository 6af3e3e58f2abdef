//! A disk as the tests want it: it can fail, and it knows what of the database would be left if the power went off.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use super::vfs;

/// What becomes of a call to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// `EIO`.
    Error,
    /// `ENOSPC` where something is written, otherwise `EIO`.
    Full,
    /// The same after half of it was written.
    Short,
}

/// Which calls fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// The first one, from 1.
    pub(crate) call: u64,
    /// And all that follow.
    pub(crate) for_ever: bool,
    pub(crate) trouble: Trouble,
}

/// What happened to the files of a folder.
pub(crate) enum Entry {
    Written {
        file: Arc<str>,
        at: u64,
        data: Vec<u8>,
    },
    Cut {
        file: Arc<str>,
        to: u64,
    },
    Synced(Arc<str>),
    /// A sync failed: what it should have written is never written, and nobody is told again.
    NotSynced(Arc<str>),
    Removed(Arc<str>),
    /// The test knows one thing more.
    Told,
}

/// The files of one folder, as SQLite uses them.
pub(crate) struct Disk {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    calls: u64,
    fault: Option<Fault>,
    /// How many calls have failed.
    failed: u64,
    log: Option<Vec<Entry>>,
    careless: bool,
}

static DISKS: LazyLock<Mutex<HashMap<PathBuf, Weak<Disk>>>> = LazyLock::new(Mutex::default);

impl Disk {
    /// Watches what SQLite does in a folder from here on.
    pub(crate) fn watch(folder: &Path) -> Arc<Self> {
        vfs::register();
        let disk = Arc::new(Self { state: Mutex::default() });
        let mut disks = DISKS.lock().unwrap();
        disks.retain(|_, disk| disk.strong_count() > 0);
        disks.insert(folder.canonicalize().unwrap(), Arc::downgrade(&disk));
        disk
    }

    /// The disk that a file is on, if it is watched.
    pub(super) fn of(path: &Path) -> Option<Arc<Self>> {
        DISKS.lock().unwrap_or_else(PoisonError::into_inner).get(path.parent()?)?.upgrade()
    }

    /// Takes note of all that is written from here on; what is in the folder already is on the disk.
    pub(crate) fn record(&self, folder: &Path) {
        let mut log = Vec::new();
        for found in std::fs::read_dir(folder).unwrap() {
            let found = found.unwrap();
            let file: Arc<str> = found.file_name().to_str().unwrap().into();
            log.push(Entry::Written { file: Arc::clone(&file), at: 0, data: std::fs::read(found.path()).unwrap() });
            log.push(Entry::Synced(file));
        }
        self.state().log = Some(log);
    }

    /// Every connection that asks for `synchronous=FULL` gets `NORMAL`.
    pub(crate) fn be_careless(&self) {
        self.state().careless = true;
    }

    pub(super) fn is_careless(&self) -> bool {
        self.state().careless
    }

    /// The test knows one thing more, and it has to be there after whatever happens from here on.
    pub(crate) fn told(&self) {
        self.note(|| Entry::Told);
    }

    /// What has happened since it was told to take note.
    pub(crate) fn recorded(&self) -> Vec<Entry> {
        self.state().log.take().unwrap()
    }

    /// Fails from here on, counted anew.
    pub(crate) fn fail(&self, fault: Fault) {
        let mut state = self.state();
        (state.calls, state.failed, state.fault) = (0, 0, Some(fault));
    }

    /// Is well again; how many calls have failed.
    pub(crate) fn heal(&self) -> u64 {
        let mut state = self.state();
        state.fault = None;
        state.failed
    }

    /// A call: whether it fails, and how.
    pub(super) fn call(&self) -> Option<Trouble> {
        let mut state = self.state();
        state.calls += 1;
        let Fault { call, for_ever, trouble } = state.fault?;
        let fails = state.calls == call || (for_ever && state.calls > call);
        state.failed += u64::from(fails);
        fails.then_some(trouble)
    }

    pub(super) fn note(&self, entry: impl FnOnce() -> Entry) {
        if let Some(log) = &mut self.state().log {
            log.push(entry());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a power loss leaves of what was written and not synced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Left {
    Nothing,
    /// As after `kill -9`: the machine itself goes on.
    Everything,
    /// What chance wants: of each write all, nothing, or some sectors of it.
    Some,
}

/// What was recorded, entry by entry: after each of them the power can go off.
pub(crate) struct Replay<'a> {
    entries: std::slice::Iter<'a, Entry>,
    /// What was synced.
    files: BTreeMap<&'a str, Vec<u8>>,
    /// What was not, in its order.
    pending: Vec<&'a Entry>,
    /// How many things the test knew.
    pub(crate) told: usize,
}

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

impl<'a> Replay<'a> {
    pub(crate) fn new(entries: &'a [Entry]) -> Self {
        Self { entries: entries.iter(), files: BTreeMap::new(), pending: Vec::new(), told: 0 }
    }

    /// Goes on by one entry, if there is one; returns it.
    pub(crate) fn step(&mut self) -> Option<&'a Entry> {
        let entry = self.entries.next()?;
        match entry {
            Entry::Written { .. } | Entry::Cut { .. } => self.pending.push(entry),
            Entry::Synced(synced) => {
                for pending in std::mem::take(&mut self.pending) {
                    if file(pending) == &**synced {
                        apply(&mut self.files, pending);
                    } else {
                        self.pending.push(pending);
                    }
                }
            }
            Entry::NotSynced(lost) => self.pending.retain(|pending| file(pending) != &**lost),
            Entry::Removed(removed) => {
                self.pending.retain(|pending| file(pending) != &**removed);
                self.files.remove(removed.as_ref());
            }
            Entry::Told => self.told += 1,
        }
        Some(entry)
    }

    /// Writes what is left of the files into a folder.
    pub(crate) fn lose_power(&self, left: Left, random: &mut fastrand::Rng, folder: &Path) {
        let mut files = self.files.clone();
        for pending in &self.pending {
            match (left, pending) {
                (Left::Nothing, _) => {}
                (Left::Some, Entry::Written { file, at, data }) if random.u8(..3) == 0 => {
                    for (n, sector) in data.chunks(SECTOR).enumerate().filter(|_| random.bool()) {
                        write(files.entry(file).or_default(), *at + (n * SECTOR) as u64, sector);
                    }
                }
                (Left::Some, _) if random.bool() => {}
                _ => apply(&mut files, pending),
            }
        }
        for (name, content) in files {
            std::fs::write(folder.join(name), content).unwrap();
        }
    }
}

fn file(entry: &Entry) -> &str {
    match entry {
        Entry::Written { file, .. }
        | Entry::Cut { file, .. }
        | Entry::Synced(file)
        | Entry::NotSynced(file)
        | Entry::Removed(file) => file,
        Entry::Told => "",
    }
}

fn apply<'a>(files: &mut BTreeMap<&'a str, Vec<u8>>, entry: &'a Entry) {
    match entry {
        Entry::Written { file, at, data } => write(files.entry(file).or_default(), *at, data),
        Entry::Cut { file, to } => files.entry(file).or_default().resize(usize::try_from(*to).unwrap(), 0),
        _ => {}
    }
}

fn write(content: &mut Vec<u8>, at: u64, data: &[u8]) {
    let at = usize::try_from(at).unwrap();
    if content.len() < at + data.len() {
        content.resize(at + data.len(), 0);
    }
    content[at..at + data.len()].copy_from_slice(data);
}
