use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::{After, Bound, Choice, Concurrency, FailureKind, Labels, Owner, Rate, Routing, Webhook};
use crate::clock::Timestamp;

/// Free labels of a job, by which lists are filtered.
pub type Tags = BTreeMap<String, String>;

/// What a client asked for, already validated.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The client's tag.
    pub bound: Bound,
    /// What to run.
    pub workload: Spec,
    /// The executor that the client insists on, if any.
    pub executor: Choice,
    /// Whether it must run where its crash hurts nobody else. Kept as the rule of its route.
    pub isolated: bool,
    /// Higher runs first within a queue: by [`Submission::turn`].
    pub priority: i16,
    /// The longest that one attempt may run.
    pub deadline: Option<Duration>,
    /// When a failed attempt is followed by another, if not by the default rule: see [`Submission::retry`].
    pub retry: Option<Arc<Retry>>,
    /// Free labels.
    pub tags: Tags,
    /// Not to be started before this moment.
    pub run_at: Option<Timestamp>,
    /// Not to be started from this moment on: if it was not by then, it ends.
    pub expires_at: Option<Timestamp>,
    /// Not to be accepted while there is another one like it.
    pub unique: Option<Unique>,
    /// Whom to tell when it has ended. Boxed: few jobs have one.
    pub webhook: Option<Box<Webhook>>,
    /// What the choice of the executor goes by, if not by the server's setting.
    pub routing: Option<Routing>,
    /// The jobs that it comes after. Once it is accepted, the store has them as edges; they are not here any more.
    pub after: Vec<After>,
    /// How many jobs with the same key may run at once. Boxed, as the next: a million jobs may wait, and few have a limit.
    pub concurrency: Option<Box<Concurrency>>,
    /// How many jobs with the same key may start in a time.
    pub rate: Option<Box<Rate>>,
    /// The labels that a node must have to run it. Never empty.
    pub requires: Option<Box<Labels>>,
    /// Whose it is: said by whoever lets it in, not by the client.
    pub owner: Option<Owner>,
    /// Whether a quota of its owner says how many may run at once.
    pub confined: bool,
}

/// By how long waiting one level of priority is outweighed.
pub const PRIORITY_LEVEL: Duration = Duration::from_secs(60);

impl Submission {
    /// When it is its turn among those that wait for the same queue: the smallest first. `due_at` is since when it may run.
    ///
    /// The moment itself, earlier by a minute for each level of priority. So the higher of two that came together goes first; but all that
    /// wait grow older at the same pace, so that of the lowest priority goes before everything that comes 200 minutes later. Nothing about a
    /// job that waits ever has to be updated, and an index has them in this order.
    pub fn turn(&self, due_at: Timestamp) -> i64 {
        let level = i64::try_from(PRIORITY_LEVEL.as_micros()).unwrap_or(i64::MAX);
        due_at.as_micros().saturating_sub(i64::from(self.priority).saturating_mul(level))
    }

    /// When a failed attempt is followed by another.
    pub fn retry(&self) -> &Retry {
        self.retry.as_deref().unwrap_or(&Retry::DEFAULT)
    }

    /// Whether it waits apart: there is a limit that it shares with others, or not every node may run it.
    pub const fn is_limited(&self) -> bool {
        self.concurrency.is_some() || self.rate.is_some() || self.confined || self.requires.is_some()
    }

    /// The lane that it waits in with others that have the same keys and require the same; `None` if it does not wait apart.
    pub fn lane(&self) -> Option<String> {
        let concurrency = self.concurrency.as_ref().map(|concurrency| &concurrency.key);
        let rate = self.rate.as_ref().map(|rate| &rate.key);
        let owner = self.owner.filter(|_| self.confined).map(Owner::code);
        self.is_limited().then(|| match (owner, &self.requires) {
            (owner, Some(requires)) => json!([concurrency, rate, owner, requires]).to_string(),
            (Some(owner), None) => json!([concurrency, rate, owner]).to_string(),
            (None, None) => json!([concurrency, rate]).to_string(),
        })
    }

    /// One that asks for nothing but what it can't do without.
    pub fn new(bound: Bound, workload: Spec) -> Self {
        Self {
            bound,
            workload,
            executor: Choice::Auto,
            isolated: false,
            priority: 0,
            deadline: None,
            retry: None,
            tags: Tags::new(),
            run_at: None,
            expires_at: None,
            unique: None,
            webhook: None,
            routing: None,
            after: Vec::new(),
            concurrency: None,
            rate: None,
            requires: None,
            owner: None,
            confined: false,
        }
    }
}

/// A workload as JSON: an object with its `type` and its parameters.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The value of `type`, such as `primes`.
    pub kind: String,
    /// The whole object, `type` included.
    pub json: Box<RawValue>,
}

impl Default for Spec {
    /// An object without a type, which no server runs.
    fn default() -> Self {
        Self { kind: String::new(), json: RawValue::NULL.to_owned() }
    }
}

/// When a failed attempt is followed by another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(default)]
pub struct Retry {
    /// How many attempts there may be in all.
    #[schema(minimum = 1, maximum = 100)]
    pub attempts: u32,
    /// The wait before the second attempt, in milliseconds.
    #[schema(maximum = 86_400_000)]
    pub backoff_ms: u64,
    /// By how much each further wait is longer than the one before.
    #[schema(minimum = 1, maximum = 100)]
    pub factor: f64,
    /// The longest wait, in milliseconds.
    #[schema(maximum = 86_400_000)]
    pub max_backoff_ms: u64,
    /// The kinds of failure that are tried again: not `cancelled`, `expired` and `dependency`. Without `lost`, a job is never run a second time
    /// after its runner died under it.
    #[schema(value_type = BTreeSet<FailureKind>)]
    pub on: Cow<'static, [FailureKind]>,
}

impl Default for Retry {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Retry {
    /// One attempt, unless what ran it died under it.
    pub const DEFAULT: Self = Self {
        attempts: 1,
        backoff_ms: 500,
        factor: 2.0,
        max_backoff_ms: 60_000,
        on: Cow::Borrowed(&[FailureKind::Error, FailureKind::Timeout, FailureKind::Panic, FailureKind::Lost]),
    };

    /// The wait after the failed attempt number `attempt` before the next one, or `None` if there is none.
    ///
    /// Exponential back-off without jitter: `backoff_ms * factor^(attempt - 1)`, at most `max_backoff_ms`.
    pub fn wait_after(&self, attempt: u32, failure: FailureKind) -> Option<Duration> {
        if attempt >= self.attempts || !self.on.contains(&failure) {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of at most a day")]
        let (first, longest) = (self.backoff_ms as f64, self.max_backoff_ms as f64);
        let wait = first * self.factor.powi(i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX));
        Some(Duration::from_secs_f64(wait.min(longest) / 1000.0))
    }

    /// Whether a job whose runner died under it is run again: `losses` counts this death too.
    pub fn survives_loss(&self, losses: u32, max_losses: u32) -> bool {
        losses < max_losses && self.on.contains(&FailureKind::Lost)
    }
}

/// When a job is taken for another one like it: one with the same workload and parameters, that was submitted as unique as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Unique {
    /// As long as this after the other one was accepted, in milliseconds. Without it, until the other one has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 604_800_000)]
    pub within_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_limit_and_ends() {
        let retry = Retry { attempts: 5, backoff_ms: 100, factor: 3.0, max_backoff_ms: 1_000, ..Retry::default() };
        let waits: Vec<_> = (1..=5).map(|n| retry.wait_after(n, FailureKind::Error).map(|w| w.as_millis())).collect();
        assert_eq!(waits, [Some(100), Some(300), Some(900), Some(1_000), None]);
    }

    #[test]
    fn only_the_named_kinds_are_tried_again() {
        let retry = Retry { attempts: 2, on: vec![FailureKind::Timeout].into(), ..Retry::default() };
        assert!(retry.wait_after(1, FailureKind::Timeout).is_some());
        assert!(retry.wait_after(1, FailureKind::Error).is_none());
    }
}
