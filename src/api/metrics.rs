//! `/metrics`: the figures of this server for Prometheus.

use std::fmt::Error;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text::{CONTENT_TYPE as TEXT_FORMAT, encode};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::cluster::NodeState;
use super::problem::Problem;
use super::{ApiState, findings};
use crate::dispatch::{Ends, QueueStatus};
use crate::job::{Executor, FindingKind, Queue};
use crate::measure::{Usage, memory};
use crate::store::{Bloat, Depth, Sketch, Sketches, Store, StoreError};

/// The upper ends of the buckets of times, in microseconds.
const BUCKETS_US: [u64; 12] =
    [100, 1_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000, 10_000_000, 60_000_000, 600_000_000];

/// How long the store may take to say its part. Whoever collects figures waits for ten seconds, as a rule.
const PATIENCE: Duration = Duration::from_secs(3);

/// Figures for Prometheus
///
/// Counts and times of the jobs that this server has run to their end since it was started, queues, schedules, webhooks, worker processes,
/// the event loop's lag, findings, and what the server process itself uses. While the store can't be asked, `trine_store_up` is 0, and what
/// it would have to be asked for is left out. Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "health", operation_id = "metrics",
    responses(
        (status = 200, description = "The figures", content((String = "text/plain", example = "trine_queue_slots{queue=\"async\"} 16384\n"))),
    ),
)]
pub(super) async fn get(State(api): State<ApiState>) -> Result<Response, Problem> {
    let mut registry = Registry::default();
    api.traffic.register(&mut registry);
    registry.register_collector(Box::new(Figures::of(&api).await));
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|_| Problem::internal("the metrics can't be written"))?;
    Ok(([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response())
}

/// All figures at one moment.
#[derive(Debug)]
struct Figures {
    ended: Ends,
    retried: [(&'static str, u64); 3],
    queues: Vec<QueueStatus>,
    loop_lag_us: u64,
    advised: [u64; FindingKind::ALL.len()],
    found: [u64; FindingKind::ALL.len()],
    profiles: usize,
    quarantined: usize,
    stale_results: u64,
    times: [(&'static str, u64); 5],
    delivery_attempts: [(&'static str, u64); 4],
    /// If it answers.
    stored: Option<Stored>,
}

/// What the store has to be asked for.
#[derive(Debug)]
struct Stored {
    oldest: [Duration; Queue::ALL.len()],
    /// Those that are not paused, and those that are.
    schedules: (u64, u64),
    pending_deliveries: u64,
    nodes: Vec<NodeState>,
    bloat: Option<Bloat>,
}

/// One family of figures with the same name.
struct Family<'a> {
    encoder: MetricEncoder<'a>,
}

type Labels<'a> = [(&'static str, &'a str)];

/// One of the figures of results.
type Figure = fn(&Sketches) -> &Sketch;

impl Figures {
    async fn of(api: &ApiState) -> Self {
        let dispatcher = &api.dispatcher;
        let mut found = [0; FindingKind::ALL.len()];
        for finding in findings::all(api) {
            found[finding.kind as usize] += 1;
        }
        Self {
            ended: dispatcher.ended(),
            retried: dispatcher.retried(),
            queues: dispatcher.queues(),
            loop_lag_us: dispatcher.loop_lag_us(),
            advised: FindingKind::ALL.map(|kind| dispatcher.profiles().advised(kind)),
            found,
            profiles: dispatcher.profiles().keys(None).len(),
            quarantined: dispatcher.quarantined().len(),
            stale_results: dispatcher.store().stale_results(),
            times: api.schedules.times(),
            delivery_attempts: api.deliverer.attempts(),
            stored: Stored::of(dispatcher.store()).await,
        }
    }

    /// What ended on an executor, however it did.
    fn on(&self, executor: Executor) -> Sketches {
        let mut sum = Sketches::default();
        self.ended.iter().filter(|((_, _, on, _), _)| *on == executor).for_each(|(_, sketches)| sum.merge(sketches));
        sum
    }

    fn jobs(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let about = "Jobs that this server has run to their end since it was started";
        let mut finished = Family::counter(encoder, "trine_jobs_finished", about)?;
        for ((kind, bound, executor, ending), sketches) in &self.ended {
            let labels =
                [("workload", *kind), ("bound", bound.as_str()), ("executor", executor.as_str()), ("state", ending.as_str())];
            finished.count(&labels, sketches.count())?;
        }
        let about = "Attempts that this server has run since it was started, and that were followed by another";
        let mut retried = Family::counter(encoder, "trine_attempts_retried", about)?;
        for (executor, count) in self.retried {
            retried.count(&[("executor", executor)], count)?;
        }
        let sums = Executor::ALL.map(|executor| (executor.as_str(), self.on(executor)));
        let times: [(&str, &str, Figure); 3] = [
            ("trine_job_wall_seconds", "Wall time of the work itself", Sketches::wall),
            ("trine_job_queue_seconds", "Time from accepted (or due) until claimed", Sketches::queue),
            ("trine_job_cpu_seconds", "CPU time of the work itself", Sketches::cpu),
        ];
        for (name, help, figure) in times {
            let mut family = Family::new(encoder, name, help, MetricType::Histogram)?;
            for (executor, sum) in &sums {
                family.times(&[("executor", executor)], figure(sum))?;
            }
        }
        Ok(())
    }

    fn queues(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut jobs = Family::gauge(encoder, "trine_queue_jobs", "Jobs of the store that have not ended, by queue and state")?;
        for QueueStatus { queue, depth, .. } in &self.queues {
            let Depth { queued, limited: _, scheduled, blocked, running } = *depth;
            for (state, count) in [("queued", queued), ("scheduled", scheduled), ("blocked", blocked), ("running", running)] {
                jobs.set(&[("queue", queue.as_str()), ("state", state)], number(count))?;
            }
        }
        let about = "Results that were refused since this server was started, because they came after the leases of their attempts had ended";
        Family::counter(encoder, "trine_stale_results", about)?.count(&[], self.stale_results)?;
        let about = "Kinds of work that are kept out, because whatever runs them dies under them";
        Family::gauge(encoder, "trine_quarantined", about)?.set(&[], number(self.quarantined as u64))?;
        let mut slots = Family::gauge(encoder, "trine_queue_slots", "Jobs of a queue that run at once at the most")?;
        for status in &self.queues {
            slots.set(&[("queue", status.queue.as_str())], number(status.slots as u64))?;
        }
        let mut workers = Family::gauge(encoder, "trine_workers", "Processes that serve a queue")?;
        for QueueStatus { queue, workers: of_queue, .. } in self.queues.iter().filter(|status| !status.workers.is_empty()) {
            for (state, busy) in [("busy", true), ("idle", false)] {
                let count = of_queue.iter().filter(|worker| worker.busy == busy).count();
                workers.set(&[("queue", queue.as_str()), ("state", state)], number(count as u64))?;
            }
        }
        let about = "How late a timer fired on the event loop of native jobs, or is by now: the latest of the last second";
        Family::gauge(encoder, "trine_event_loop_lag_seconds", about)?.set(&[], seconds(self.loop_lag_us))
    }

    fn told(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let about = "Times of schedules that this server has decided upon since it was started, by what came of them";
        let mut times = Family::counter(encoder, "trine_schedule_times", about)?;
        for (outcome, count) in self.times {
            times.count(&[("outcome", outcome)], count)?;
        }
        let about = "Attempts to deliver messages of webhooks, by this server since it was started, by what came of them";
        let mut attempts = Family::counter(encoder, "trine_webhook_attempts", about)?;
        for (outcome, count) in self.delivery_attempts {
            attempts.count(&[("outcome", outcome)], count)?;
        }
        Ok(())
    }

    fn learned(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let about = "Results whose figures speak against their tag or executor, since the server was started";
        let mut advised = Family::counter(encoder, "trine_results_advised", about)?;
        for (kind, count) in FindingKind::ALL.into_iter().zip(self.advised) {
            advised.count(&[("kind", kind.as_str())], count)?;
        }
        let mut found = Family::gauge(encoder, "trine_findings", "What is found of workloads now, by kind")?;
        for (kind, count) in FindingKind::ALL.into_iter().zip(self.found) {
            found.set(&[("kind", kind.as_str())], number(count))?;
        }
        Family::gauge(encoder, "trine_profiles", "Workloads of which something was learned")?
            .set(&[], number(self.profiles as u64))
    }
}

impl Stored {
    /// `None` if the store can't say it, or not soon: whoever collects figures wants the others all the same.
    async fn of(store: &dyn Store) -> Option<Self> {
        let ask = async {
            Ok::<_, StoreError>(Self {
                oldest: store.oldest().await?,
                schedules: store.count_schedules().await?,
                pending_deliveries: store.pending_deliveries().await?,
                nodes: store.nodes().await?.iter().map(NodeState::of).collect(),
                bloat: store.bloat().await?,
            })
        };
        match tokio::time::timeout(PATIENCE, ask).await {
            Ok(Ok(stored)) => return Some(stored),
            Ok(Err(error)) => tracing::warn!(%error, "the store can't be asked for figures"),
            Err(_) => tracing::warn!("the store does not answer in time when it is asked for figures"),
        }
        None
    }

    fn waiting(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let about = "For how long the next job of a queue has been waiting for a slot; 0 if none waits";
        let mut oldest = Family::gauge(encoder, "trine_queue_oldest_seconds", about)?;
        for (queue, age) in Queue::ALL.into_iter().zip(self.oldest) {
            oldest.set(&[("queue", queue.as_str())], age.as_secs_f64())?;
        }
        let about = "Schedules, by whether they are paused; counting ends at 10,000 of all";
        let mut schedules = Family::gauge(encoder, "trine_schedules", about)?;
        for (state, count) in [("active", self.schedules.0), ("paused", self.schedules.1)] {
            schedules.set(&[("state", state)], number(count))?;
        }
        let mut nodes = Family::gauge(encoder, "trine_nodes", "Servers that share the store, by how they are")?;
        for (state, name) in NodeState::ALL {
            let count = self.nodes.iter().filter(|node| **node == state).count();
            nodes.set(&[("state", name)], number(count as u64))?;
        }
        let about = "Messages of webhooks that are to be sent, for the first time or again; counting ends at 10,000";
        Family::gauge(encoder, "trine_webhooks_pending", about)?.set(&[], number(self.pending_deliveries))
    }

    fn database(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let Some(bloat) = &self.bloat else { return Ok(()) };
        let about = "For how long the oldest transaction of the database is open";
        let oldest = bloat.oldest_transaction.unwrap_or_default();
        Family::gauge(encoder, "trine_database_oldest_transaction_seconds", about)?.set(&[], oldest.as_secs_f64())?;
        let mut rows = Family::gauge(encoder, "trine_database_rows", "Rows of a table: live ones, and dead ones to clean up")?;
        for table in &bloat.tables {
            for (state, count) in [("live", table.live), ("dead", table.dead)] {
                rows.set(&[("table", &table.name), ("state", state)], number(count))?;
            }
        }
        Family::gauge(encoder, "trine_database_alarms", "What of this is beyond its bound: `GET /cluster` says it in words")?
            .set(&[], number(bloat.alarms().len() as u64))
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        Family::gauge(&mut encoder, "trine_build_info", "The server's version; always 1")?.set(&version, 1.0)?;
        self.jobs(&mut encoder)?;
        self.queues(&mut encoder)?;
        self.told(&mut encoder)?;
        self.learned(&mut encoder)?;
        let about = "Whether the store could be asked for figures; those that it has to be asked for are left out otherwise";
        Family::gauge(&mut encoder, "trine_store_up", about)?.set(&[], if self.stored.is_some() { 1.0 } else { 0.0 })?;
        if let Some(stored) = &self.stored {
            stored.waiting(&mut encoder)?;
            stored.database(&mut encoder)?;
        }
        let used = Usage::of_process();
        let cpu = seconds(used.cpu_user_us + used.cpu_system_us);
        let about = "CPU time of the server's process, without its workers";
        Family::counter(&mut encoder, "process_cpu_seconds", about)?.total(&[], cpu)?;
        if let Some(bytes) = memory::resident_bytes("self") {
            let about = "Resident memory of the server's process, without its workers";
            Family::gauge(&mut encoder, "process_resident_memory_bytes", about)?.set(&[], number(bytes))?;
        }
        Ok(())
    }
}

impl<'a> Family<'a> {
    fn new(encoder: &'a mut DescriptorEncoder<'_>, name: &'a str, about: &str, kind: MetricType) -> Result<Self, Error> {
        Ok(Self { encoder: encoder.encode_descriptor(name, about, None, kind)? })
    }

    fn counter(encoder: &'a mut DescriptorEncoder<'_>, name: &'a str, about: &str) -> Result<Self, Error> {
        Self::new(encoder, name, about, MetricType::Counter)
    }

    fn gauge(encoder: &'a mut DescriptorEncoder<'_>, name: &'a str, about: &str) -> Result<Self, Error> {
        Self::new(encoder, name, about, MetricType::Gauge)
    }

    fn count(&mut self, labels: &Labels<'_>, value: u64) -> Result<(), Error> {
        self.encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn total(&mut self, labels: &Labels<'_>, value: f64) -> Result<(), Error> {
        self.encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn set(&mut self, labels: &Labels<'_>, value: f64) -> Result<(), Error> {
        self.encoder.encode_family(&labels)?.encode_gauge(&value)
    }

    /// A histogram, from a sketch of microseconds: its sum is as exact as that.
    fn times(&mut self, labels: &Labels<'_>, sketch: &Sketch) -> Result<(), Error> {
        let mut below = 0;
        let mut buckets: Vec<_> = BUCKETS_US
            .iter()
            .map(|&end| {
                let count = sketch.count_up_to(end);
                let bucket = (seconds(end), count.saturating_sub(below));
                below = below.max(count);
                bucket
            })
            .collect();
        buckets.push((f64::INFINITY, sketch.count().saturating_sub(below)));
        // Whole microseconds, or a figure of 0 could make it fall by what is lost in rounding.
        let sum = (sketch.mean() * number(sketch.count())).round() / 1e6;
        self.encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, sketch.count(), &buckets, None)
    }
}

fn seconds(us: u64) -> f64 {
    number(us) / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "counts, bytes and microseconds stay far below 2^53")]
const fn number(count: u64) -> f64 {
    count as f64
}
