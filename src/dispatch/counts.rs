//! Figures by name that only grow.

use std::sync::atomic::{AtomicU64, Ordering};

/// How often something came out one way or another.
#[derive(Debug)]
pub(super) struct Counts<const N: usize>([(&'static str, AtomicU64); N]);

impl<const N: usize> Counts<N> {
    /// None of these yet.
    pub(super) fn of(names: [&'static str; N]) -> Self {
        Self(names.map(|name| (name, AtomicU64::default())))
    }

    /// One more, by its name.
    pub(super) fn count(&self, name: &'static str) {
        let found = self.0.iter().find(|(known, _)| *known == name);
        debug_assert!(found.is_some(), "nothing is counted as {name}");
        if let Some((_, count)) = found {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn all(&self) -> [(&'static str, u64); N] {
        self.0.each_ref().map(|(name, count)| (*name, count.load(Ordering::Relaxed)))
    }
}
