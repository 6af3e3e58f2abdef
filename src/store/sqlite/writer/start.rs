//! The writer's start: what ran when an earlier server went down waits again, or has ended as lost.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};

use sqlx::{Connection as _, SqliteConnection};

use super::super::events::{self, EventRow};
use super::super::rows::QUEUED;
use super::super::script::Script;
use super::super::statements;
use super::moments::Moments;
use super::published::{Depths, Published};
use super::settle::again;
use super::{NoteLimits, Writer};
use crate::clock::Timestamp;
use crate::job::{Failure, FailureKind, Queue};
use crate::store::{Hub, StoreError};

impl Writer {
    /// Makes ready to write: what ran when an earlier server went down waits again, or has ended as lost.
    pub(in crate::store::sqlite) async fn start(
        mut connection: SqliteConnection,
        max_losses: u32,
        limits: NoteLimits,
    ) -> Result<(Self, Arc<Published>), StoreError> {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let boot = statements::next_boot(&mut transaction).await?;
        let mut rollups = statements::rollups(&mut transaction).await?;
        let mut script = Script::default();
        let mut moments = Moments(events::latest(&mut transaction).await?.unwrap_or(Timestamp::from_micros(0)));
        let now = moments.next();
        for job in statements::running(&mut transaction).await? {
            if let Some((ending, failure)) = statements::fate(&job, max_losses) {
                let ended = statements::end(&mut transaction, job.id, ending, &failure, moments.next()).await?;
                let key = ended.subject.key(ending);
                let sketches = rollups.entry(key.clone()).or_default();
                sketches.add(None);
                script.rollups.push((key, sketches.clone()));
            } else {
                let error = Failure::new(FailureKind::Lost, "the server went down while this attempt ran");
                let row = EventRow::retrying(moments.next(), job.id, job.attempt, &error, now);
                again(&mut transaction, job.id, row, now, true).await?;
            }
        }
        script.run(&mut transaction).await?;
        statements::promote(&mut transaction, now).await?;
        let next_due = statements::next_due(&mut transaction).await?;
        let mut depths = Depths::default();
        for (queue, state, count) in statements::count_waiting(&mut transaction).await? {
            let depth = depths.at(queue);
            *(if state == QUEUED { &mut depth.queued } else { &mut depth.scheduled }) = count;
        }
        transaction.commit().await?;
        let published = Arc::new(Published {
            depths: Mutex::new(depths),
            rollups: Mutex::new(rollups),
            latest_event: AtomicI64::new(moments.0.as_micros()),
            marks: Mutex::default(),
            hub: Hub::new(),
        });
        let writer = Self {
            connection,
            moments,
            limits,
            published: Arc::clone(&published),
            depths,
            held: HashMap::new(),
            claims: [const { VecDeque::new() }; Queue::ALL.len()],
            next_due,
            // A million million claims a boot, and eight million boots, before a token could come back.
            next_token: boot << 40,
            kinds: HashSet::new(),
            claims_blocked: false,
        };
        Ok((writer, published))
    }
}
