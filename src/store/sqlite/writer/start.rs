//! The writer's start: what ran when an earlier server went down waits again, or has ended as lost.

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use sqlx::{Connection as _, SqliteConnection};

use super::super::company::Company;
use super::super::edges;
use super::super::events;
use super::super::front::Fronts;
use super::super::rollups::{self, Count};
use super::super::{lanes, moves, statements};
use super::Writer;
use super::lanes::Lanes;
use super::moments::Moments;
use super::published::{Depths, Published};
use super::settle::again;
use crate::clock::{Clock, Timestamp};
use crate::job::{Failure, FailureKind, JobId, Queue};
use crate::store::claims::Claims;
use crate::store::fate::{again_at, fate};
use crate::store::full::Full;
use crate::store::kept::edge::Doom;
use crate::store::kept::event::EventRow;
use crate::store::node::Gatekeeper;
use crate::store::said::NoteLimits;
use crate::store::unasked::Unasked;
use crate::store::{Hub, StoreError};
use crate::telemetry::Sparing;

impl Writer {
    /// Makes ready to write: what ran when an earlier server went down waits again, or has ended as lost.
    pub(in crate::store::sqlite) async fn start(
        mut connection: SqliteConnection,
        clock: Arc<dyn Clock>,
        max_losses: u32,
        limits: NoteLimits,
        fronts: Arc<Fronts>,
        company: Arc<Company>,
        gatekeeper: Arc<Gatekeeper>,
    ) -> Result<(Self, Arc<Published>), StoreError> {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let boot = statements::next_boot(&mut transaction).await?;
        let latest_payload = statements::latest_payload(&mut transaction).await?;
        let (mut rollups, mut counted) = rollups::load(&mut transaction).await?;
        let latest = events::latest(&mut transaction).await?.unwrap_or(Timestamp::from_micros(0));
        let mut moments = Moments::new(Arc::clone(&clock), latest);
        let due_at = again_at(moments.next(), clock.now());
        let running = statements::running(&mut transaction).await?;
        let interrupted = running.len();
        let mut dooms = Vec::new();
        for job in running {
            if let Some((ending, failure)) = fate(&job, max_losses) {
                dooms.push(Doom { id: job.id, ending, failure });
            } else {
                let error = Failure::new(FailureKind::Lost, "the server went down while this attempt ran");
                let row = EventRow::retrying(moments.next(), job.id, job.attempt, &error, None, due_at);
                again(&mut transaction, job.id, row, due_at, true).await?;
            }
        }
        let ended = moves::end(&mut transaction, &dooms, None, moments.skip(dooms.len())).await?;
        let counts: Vec<Count> = ended.iter().map(|ended| Count::new(ended.subject.key(ended.ending), None)).collect();
        rollups::log(&mut transaction, &counts).await?;
        rollups::count(&counts, &mut rollups, &mut counted);
        let parents: Vec<JobId> = ended.iter().filter(|ended| ended.children).map(|ended| ended.id).collect();
        edges::keep_releases(&mut transaction, &[], &parents).await?;
        let next_due = statements::next_due(&mut transaction).await?;
        let next_expiry = moves::next_expiry(&mut transaction).await?;
        let mut depths = Depths::default();
        for (queue, state, count) in statements::count_waiting(&mut transaction).await? {
            *depths.of_state(queue, state) = count;
        }
        let unblocking = edges::releases(&mut transaction).await?.into();
        let open = lanes::start(&mut transaction).await?;
        let lanes = Lanes::new(&open, lanes::next_open(&mut transaction).await?, latest);
        transaction.commit().await?;
        if interrupted > 0 {
            tracing::warn!(interrupted, "attempts were interrupted when the server went down");
        }
        let published = Arc::new(Published {
            depths: Mutex::new(depths),
            rollups: Mutex::new(rollups),
            latest_event: AtomicI64::new(moments.latest.as_micros()),
            marks: Mutex::default(),
            hub: Hub::new(),
            unasked: Unasked::default(),
            running: Mutex::default(),
        });
        let writer = Self {
            connection,
            clock,
            moments,
            limits,
            published: Arc::clone(&published),
            depths,
            held: foldhash::HashMap::default(),
            claims: Claims::default(),
            fronts,
            company,
            gatekeeper,
            begun: Vec::new(),
            claimed_from: [false; Queue::ALL.len()],
            max_losses,
            next_due,
            next_expiry,
            unblocking,
            lanes,
            allowed: Arc::default(),
            // A million million claims a boot, and eight million boots, before a token could come back.
            next_token: boot << 40,
            latest_payload,
            kinds: foldhash::HashSet::default(),
            counted,
            rolled_up_at: Instant::now(),
            claims_blocked: false,
            full: Full::default(),
            failures: Sparing::default(),
            unwritten_rollups: Sparing::default(),
        };
        Ok((writer, published))
    }
}
