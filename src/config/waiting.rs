use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::job::Queue;

/// How many jobs may wait: in one queue, or in each that has no limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingLimit {
    /// The queue; `None` for all others.
    pub queue: Option<Queue>,
    /// The most jobs.
    pub most: u64,
}

impl FromStr for WaitingLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (queue, most) = match text.trim().split_once('=') {
            Some((name, most)) => {
                let names = || Queue::ALL.map(Queue::as_str).join(", ");
                (Some(name.trim().parse().map_err(|_| format!("there is no queue {name}; there are {}", names()))?), most)
            }
            None => (None, text),
        };
        match most.trim().parse() {
            Ok(most @ 1..) => Ok(Self { queue, most }),
            _ => Err("must be N or QUEUE=N, with N at least 1".into()),
        }
    }
}

impl fmt::Display for WaitingLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.queue.iter().try_for_each(|queue| write!(f, "{queue}="))?;
        write!(f, "{}", self.most)
    }
}

impl Serialize for WaitingLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The most jobs that may wait in a queue.
pub(super) fn most_waiting(limits: &[WaitingLimit], queue: Queue) -> Option<u64> {
    let of = |queue| limits.iter().find(|limit| limit.queue == queue).map(|limit| limit.most);
    of(Some(queue)).or_else(|| of(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_has_its_own_limit_or_that_of_all() {
        let limits = ["1000", "threads-cpu = 5"].map(|text| text.parse::<WaitingLimit>().unwrap());
        assert_eq!(most_waiting(&limits, Queue::ThreadsCpu), Some(5));
        assert_eq!(most_waiting(&limits, Queue::Async), Some(1_000));
        assert_eq!(most_waiting(&limits[1..], Queue::Async), None);
        assert_eq!(limits.map(|limit| limit.to_string()), ["1000", "threads-cpu=5"]);
        for wrong in ["0", "many", "lane=5", "async="] {
            assert!(wrong.parse::<WaitingLimit>().is_err(), "{wrong}");
        }
    }
}
