use std::collections::HashMap;

use async_trait::async_trait;

use super::StoreError;
use crate::clock::Timestamp;
use crate::job::{NewJob, Owner};
use crate::schedule::{Fire, Schedule, Seen};

/// What a schedule does at a moment; all of it, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Firing {
    /// The schedule's name.
    pub schedule: String,
    /// What became of some times, in their order.
    pub fires: Vec<Fire>,
    /// The jobs that are submitted for them.
    pub jobs: Vec<NewJob>,
    /// How many of the times that waited, the first ones, are replaced by those in `fires`.
    pub waited: usize,
    /// When the schedule is due next; unchanged if it is not said.
    pub next_at: Option<Option<Timestamp>>,
    /// When the schedule was last changed before this was made of it: if another server has changed it since, nothing is done. Whenever that was,
    /// if it is not said.
    pub made_of: Option<Timestamp>,
}

/// Where schedules are kept.
#[async_trait]
pub trait ScheduleStore {
    /// Keeps a new schedule. Whether its name was free; if it was not, nothing is changed.
    async fn add_schedule(&self, schedule: Schedule) -> Result<bool, StoreError>;

    /// Replaces the schedule of that name, but for the moment of its creation. When it is due next changes with its timetable alone, unless it is
    /// paused. Whether there is one that is paused if this one is, and is not if this one is not; if not, nothing is changed.
    async fn replace_schedule(&self, schedule: Schedule) -> Result<bool, StoreError>;

    /// Pauses a schedule, or resumes it with the moment at which it is due next. Whether it is there as it was when this was read; if not,
    /// nothing is changed.
    async fn pause_schedule(&self, schedule: Schedule) -> Result<bool, StoreError>;

    /// Forgets a schedule with all of its times. Whether there was one.
    async fn remove_schedule(&self, name: &str) -> Result<bool, StoreError>;

    /// One schedule.
    async fn schedule(&self, name: &str) -> Result<Option<Schedule>, StoreError>;

    /// Schedules by name, from the first one behind `after` on. What this program can't read, as a newer one may have written it, is left out.
    async fn schedules(&self, after: Option<&str>, limit: usize) -> Result<Vec<Schedule>, StoreError>;

    /// Some of the schedules that are due by then, the most overdue first; without those that this program can't read.
    async fn due_schedules(&self, now: Timestamp, limit: usize) -> Result<Vec<Schedule>, StoreError>;

    /// How many schedules there are that are not paused, and how many that are; of very many, that it is [`MANY`](super::MANY).
    async fn count_schedules(&self) -> Result<(u64, u64), StoreError>;

    /// How many schedules an owner has.
    async fn schedules_of(&self, owner: Owner) -> Result<u64, StoreError>;

    /// When the next schedule is due that is not by then.
    async fn next_schedule_due(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError>;

    /// What is known of a schedule's jobs.
    async fn schedule_seen(&self, name: &str) -> Result<Seen, StoreError>;

    /// Schedules that are not paused and have times that wait; whether all of their jobs have ended.
    async fn waiting_schedules(&self) -> Result<Vec<(String, bool)>, StoreError>;

    /// The first time of a schedule that waits.
    async fn first_waiting_fire(&self, schedule: &str) -> Result<Option<Fire>, StoreError>;

    /// The latest times of a schedule, the latest first.
    async fn fires(&self, schedule: &str, limit: usize) -> Result<Vec<Fire>, StoreError>;

    /// The latest time of each schedule behind the name `after` and up to `last`, by the schedule's name. One that can't be read is left out.
    async fn latest_fires(&self, after: &str, last: &str) -> Result<HashMap<String, Fire>, StoreError>;

    /// Submits jobs, writes down what became of the times, and advances the schedule, in one transaction. Only the latest times
    /// of a schedule are kept, and those whose jobs have not ended.
    async fn fire(&self, firing: Firing) -> Result<Vec<NewJob>, StoreError>;
}
