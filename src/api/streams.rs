//! How many streams of events are open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::job::Owner;

/// A key may have one of so many places.
const SHARE: usize = 4;

/// The streams of events that are open, of which there may be no more than so many; those of one key are a part of them.
#[derive(Debug)]
pub struct Streams {
    most: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    of: HashMap<Owner, usize>,
}

/// One that is open, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    streams: Arc<Streams>,
    owner: Option<Owner>,
}

impl Streams {
    /// Room for so many.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default() })
    }

    /// A place for one more that a key of this owner asks for, or somebody without a key; or why there is none.
    pub(super) fn open(self: &Arc<Self>, owner: Option<Owner>) -> Result<Place, &'static str> {
        let mut open = self.lock();
        let share = (self.most / SHARE).max(1);
        if owner.is_some_and(|owner| open.of.get(&owner).is_some_and(|open| *open >= share)) {
            return Err("as many streams of events are open with this key as may be, a quarter of all");
        }
        if open.all >= self.most {
            return Err("as many streams of events are open as may be");
        }
        open.all += 1;
        if let Some(owner) = owner {
            *open.of.entry(owner).or_default() += 1;
        }
        Ok(Place { streams: Arc::clone(self), owner })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        open.all -= 1;
        if let Some(owner) = self.owner
            && let Some(count) = open.of.get_mut(&owner)
        {
            *count -= 1;
            if *count == 0 {
                open.of.remove(&owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_leaves_room_for_others() {
        let streams = Streams::new(8);
        let (one, other) = (Owner::from_code(1), Owner::from_code(2));
        let mut places: Vec<Place> = (0..3).flat_map(|_| streams.open(one)).collect();
        assert_eq!(places.len(), 2);
        assert!(streams.open(one).unwrap_err().contains("this key"));
        places.extend(streams.open(other));
        places.pop();
        places.pop();
        assert!(streams.open(one).is_ok());
        places.extend((0..9).flat_map(|_| streams.open(None)));
        assert_eq!(places.len(), 8);
        assert!(!streams.open(other).unwrap_err().contains("this key"));
        drop(places);
        assert!(streams.lock().all == 0 && streams.lock().of.is_empty());
    }
}
