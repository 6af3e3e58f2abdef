use serde::{Deserialize, Serialize};

use super::{Bound, Executor, Observed, Timing};

/// Work that is its own for less time says nothing of its tag: starting it costs as much as doing it.
const SHORTEST_US: u64 = 10_000;
/// From here on, other jobs notice that the event loop was held.
pub const LONG_HOLD_US: u64 = 50_000;

/// What the figures of a job, or of many, speak against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Tagged `io`, but it computes.
    Computes,
    /// Tagged `cpu`, but it waits.
    Waits,
    /// It held the event loop, and with it the other jobs there.
    HeldLoop,
    /// It is over before handing it to a process has paid off.
    TooShort,
    /// So many of them at once as there are slots would not fit into memory.
    Memory,
    /// It was measured on another executor, too, and was far faster there.
    Elsewhere,
}

/// The kinds that one job's figures show, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FindingKinds(u8);

impl FindingKind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Computes, Self::Waits, Self::HeldLoop, Self::TooShort, Self::Memory, Self::Elsewhere];

    /// The name that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Computes => "computes",
            Self::Waits => "waits",
            Self::HeldLoop => "held_loop",
            Self::TooShort => "too_short",
            Self::Memory => "memory",
            Self::Elsewhere => "elsewhere",
        }
    }
}

impl FindingKinds {
    /// What one attempt's figures speak against by themselves. The other kinds take the figures of many.
    ///
    /// Noise is told apart: work that is too short, work whose time went to waiting for a core, and work of which it can't be told
    /// whether it waited or was kept waiting show nothing.
    pub fn of(bound: Bound, executor: Executor, timing: &Timing) -> Self {
        let mut kinds = Self::default();
        if timing.own_us() < SHORTEST_US {
            return kinds;
        }
        match (bound, timing.observed()) {
            (Bound::Io, Some(Observed::Cpu)) => kinds.insert(FindingKind::Computes),
            (Bound::Cpu, Some(Observed::Io)) => kinds.insert(FindingKind::Waits),
            _ => {}
        }
        if executor == Executor::Async && timing.held_us().is_some_and(|held| held >= LONG_HOLD_US) {
            kinds.insert(FindingKind::HeldLoop);
        }
        kinds
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this one is among them.
    pub const fn contains(self, kind: FindingKind) -> bool {
        self.0 & Self::bit(kind) != 0
    }

    /// Those that are among them.
    pub fn iter(self) -> impl Iterator<Item = FindingKind> {
        FindingKind::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }

    /// As the number that a store keeps: one bit a kind, in the order of [`FindingKind::ALL`], to which kinds are only appended.
    pub const fn bits(self) -> u8 {
        self.0
    }

    const fn insert(&mut self, kind: FindingKind) {
        self.0 |= Self::bit(kind);
    }

    const fn bit(kind: FindingKind) -> u8 {
        1 << kind as u8
    }
}

impl FromIterator<FindingKind> for FindingKinds {
    fn from_iter<T: IntoIterator<Item = FindingKind>>(kinds: T) -> Self {
        let mut set = Self::default();
        kinds.into_iter().for_each(|kind| set.insert(kind));
        set
    }
}

impl From<FindingKind> for FindingKinds {
    fn from(kind: FindingKind) -> Self {
        Self(Self::bit(kind))
    }
}
