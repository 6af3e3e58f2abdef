//! What drivers keep of a job as JSON: the fields of its submission that few jobs have, and the figures of a timing.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use crate::clock::{Timestamp, millis};
use crate::job::{Concurrency, Evidence, Labels, Owner, Rate, Retry, Route, Routing, Submission, Tags, Timing, Unique, Webhook};

/// What is kept of a submission only where it is not as it is by default.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::store) struct Options<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) deadline_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) retry: Option<Cow<'a, Retry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) tags: Option<Cow<'a, Tags>>,
    /// Microseconds since the Unix epoch, as `expires_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) run_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) expires_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) unique: Option<Unique>,
    /// Deliveries are made of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) webhook: Option<Cow<'a, Webhook>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) routing: Option<Routing>,
    /// What the route rests on, besides its rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) evidence: Option<Evidence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) concurrency: Option<Cow<'a, Concurrency>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) rate: Option<Cow<'a, Rate>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) requires: Option<Cow<'a, Labels>>,
    /// The name of its lane is made of it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::store) confined: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) owner: Option<Owner>,
}

impl<'a> Options<'a> {
    /// Those of a submission with this route; `None` if there are none.
    pub(in crate::store) fn of(submission: &'a Submission, route: &Route) -> Option<Self> {
        let options = Self {
            deadline_ms: submission.deadline.map(millis),
            retry: submission.retry.as_deref().map(Cow::Borrowed),
            tags: (!submission.tags.is_empty()).then_some(Cow::Borrowed(&submission.tags)),
            run_at: submission.run_at.map(Timestamp::as_micros),
            expires_at: submission.expires_at.map(Timestamp::as_micros),
            unique: submission.unique,
            webhook: submission.webhook.as_deref().map(Cow::Borrowed),
            routing: submission.routing,
            evidence: route.evidence,
            concurrency: submission.concurrency.as_deref().map(Cow::Borrowed),
            rate: submission.rate.as_deref().map(Cow::Borrowed),
            requires: submission.requires.as_deref().map(Cow::Borrowed),
            confined: submission.confined,
            owner: submission.owner,
        };
        (options != Self::default()).then_some(options)
    }

    pub(in crate::store) fn deadline(&self) -> Option<Duration> {
        self.deadline_ms.map(Duration::from_millis)
    }

    pub(in crate::store) fn retry(&mut self) -> Option<Arc<Retry>> {
        self.retry.take().map(|retry| Arc::new(retry.into_owned()))
    }

    pub(in crate::store) fn requires(&mut self) -> Option<Box<Labels>> {
        self.requires.take().map(|requires| Box::new(requires.into_owned()))
    }

    /// Gives a submission and its route back what is kept here.
    pub(in crate::store) fn give_back(mut self, submission: &mut Submission, route: &mut Route) {
        submission.deadline = self.deadline();
        submission.retry = self.retry();
        submission.tags = self.tags.map(Cow::into_owned).unwrap_or_default();
        submission.run_at = self.run_at.map(Timestamp::from_micros);
        submission.expires_at = self.expires_at.map(Timestamp::from_micros);
        submission.unique = self.unique;
        submission.webhook = self.webhook.map(|webhook| Box::new(webhook.into_owned()));
        submission.routing = self.routing;
        submission.concurrency = self.concurrency.map(|limit| Box::new(limit.into_owned()));
        submission.requires = self.requires.map(|requires| Box::new(requires.into_owned()));
        submission.rate = self.rate.map(|rate| Box::new(rate.into_owned()));
        submission.confined = self.confined;
        submission.owner = self.owner;
        route.evidence = self.evidence;
    }
}

/// The figures of a timing, in the order in which they are stored. An older version wrote fewer, and a newer one may write more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(in crate::store) struct Figures(pub(in crate::store) [Option<u64>; 16]);

impl<'de> Deserialize<'de> for Figures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Vec::<Option<u64>>::deserialize(deserializer)?;
        let mut figures = Self::default();
        figures.0.iter_mut().zip(written).for_each(|(figure, written)| *figure = written);
        Ok(figures)
    }
}

pub(in crate::store) const fn figures(timing: &Timing) -> Figures {
    let Timing { queue_us, dispatch_us, wall_us, .. } = *timing;
    Figures([
        Some(queue_us),
        Some(dispatch_us),
        Some(wall_us),
        timing.cpu_user_us,
        timing.cpu_system_us,
        timing.polls,
        timing.longest_poll_us,
        timing.max_rss_bytes,
        timing.ctx_voluntary,
        timing.ctx_involuntary,
        match timing.gil {
            Some(true) => Some(1),
            Some(false) => Some(0),
            None => None,
        },
        timing.core_wait_us,
        timing.loop_wait_us,
        timing.gil_wait_us,
        timing.held_jobs,
        timing.longest_hold_us,
    ])
}

pub(in crate::store) fn timing(Figures(figures): Figures) -> Timing {
    let [queue_us, dispatch_us, wall_us, cpu_user_us, cpu_system_us, polls, longest_poll_us, max_rss_bytes, ..] = figures;
    let [.., voluntary, involuntary, gil, core_wait_us, loop_wait_us, gil_wait_us, held_jobs, longest_hold_us] = figures;
    Timing {
        queue_us: queue_us.unwrap_or_default(),
        dispatch_us: dispatch_us.unwrap_or_default(),
        wall_us: wall_us.unwrap_or_default(),
        cpu_user_us,
        cpu_system_us,
        polls,
        longest_poll_us,
        max_rss_bytes,
        ctx_voluntary: voluntary,
        ctx_involuntary: involuntary,
        gil: gil.map(|gil| gil != 0),
        core_wait_us,
        loop_wait_us,
        gil_wait_us,
        held_jobs,
        longest_hold_us,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_other_versions_can_be_read() {
        let read = |text: &str| timing(serde_json::from_str(text).unwrap());
        let fewer = Timing { queue_us: 1, dispatch_us: 2, wall_us: 3, cpu_user_us: Some(4), ..Timing::default() };
        assert_eq!(read("[1,2,3,4]"), fewer);
        assert_eq!(read("[1,2,3,4,null,null,null,null,null,null,null,null,null,null,null,null,77,78]"), fewer);
        assert_eq!(read(&serde_json::to_string(&figures(&fewer)).unwrap()), fewer);
    }
}
