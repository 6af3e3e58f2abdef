//! `/schedules`: jobs that are submitted because it is time.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use utoipa::{IntoParams, ToSchema};

use super::access::Caller;
use super::jobs::find as find_job;
use super::json::Json;
use super::list::{Limit, List};
use super::problem::{Kind, Problem, answers};
use super::query::Query;
use super::state::StateName;
use super::view::JobView;
use super::{ApiState, body, example, submission};
use crate::clock::Timestamp;
use crate::dispatch::{Catalogue, Dispatcher, MakeJob, NotMade, RunError, SubmitError};
use crate::function::is_name;
use crate::job::{JobId, NewJob, Submission};
use crate::schedule::{BadTimetable, CatchUp, Fire, FireOutcome, Overlap, Schedule, Timetable};
use crate::store::{StateFilter, Store, StoreError, on_page};
use crate::workload::Invalid;

/// The longest schedule, in bytes: its job is kept once for each time that waits in memory to be submitted.
const MAX_BYTES: usize = 256 << 10;
/// How many times are shown: those to come, and the latest.
const SHOWN: (usize, usize) = (5, 100);

/// The label that tells the jobs of a schedule, by its name.
const SCHEDULE_TAG: &str = "trine-schedule";

/// What a submission can't say in a schedule.
const UNFITTING: [(&str, &str); 4] = [
    ("run_at", "a schedule says itself when its jobs run; delay_ms can put them off"),
    ("expires_at", "would be the same for all of the schedule's jobs"),
    ("unique", "a schedule has overlap for that"),
    ("after", "would be the same for all of the schedule's jobs"),
];

/// When to submit which job.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewSchedule, example = example::new_schedule)]
pub(super) struct Fields<'a> {
    /// By what it is known: 1 to 64 lower-case letters, digits, `_` and `-`. Where the path has it, the body need not.
    #[serde(default)]
    #[schema(pattern = "^[a-z0-9][a-z0-9_-]{0,63}$")]
    name: Option<String>,
    /// A cron expression of five fields, or of six with the seconds first.
    cron: String,
    /// The IANA name of the time zone in which the expression is read.
    #[serde(default = "utc")]
    #[schema(default = "UTC")]
    timezone: String,
    /// What becomes of the times that were missed while no server ran.
    #[serde(default)]
    #[schema(value_type = CatchUp, default = "skip")]
    catch_up: CatchUp,
    /// What becomes of a time at which a job of the schedule has not ended yet.
    #[serde(default)]
    #[schema(value_type = Overlap, default = "allow")]
    overlap: Overlap,
    /// The submission, as for `POST /jobs` but without `run_at`, `expires_at`, `unique` and `after`. It is read anew each time: a function
    /// without a version is the latest one then.
    #[serde(borrow)]
    #[schema(value_type = submission::Fields)]
    job: &'a RawValue,
}

/// A schedule.
#[derive(Serialize, ToSchema)]
#[schema(as = Schedule)]
pub(super) struct ScheduleView<'a> {
    /// By what it is known.
    name: &'a str,
    /// The cron expression.
    cron: &'a str,
    /// The time zone in which it is read.
    timezone: &'a str,
    /// What becomes of the times that were missed while no server ran.
    catch_up: CatchUp,
    /// What becomes of a time at which a job of the schedule has not ended yet.
    overlap: Overlap,
    /// The submission, without the secret of its webhook.
    #[schema(value_type = submission::Fields)]
    job: Cow<'a, RawValue>,
    /// Whether nothing of it starts until it is resumed.
    paused: bool,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was last given other contents.
    #[schema(value_type = String, format = DateTime)]
    changed_at: Timestamp,
    /// When it is due next, five times; none while it is paused.
    #[schema(value_type = Vec<String>)]
    next_runs: Vec<Timestamp>,
    /// When it was due, the latest 100 times that were decided upon with the latest first; in a list, the latest one alone. A time that waits is
    /// decided upon again when its job is submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_runs: Option<Vec<RunView>>,
}

/// A time at which a schedule was due, or was run by hand.
#[derive(Serialize, ToSchema)]
#[schema(as = ScheduleRun)]
struct RunView {
    /// When it was due.
    #[schema(value_type = String, format = DateTime)]
    due_at: Timestamp,
    /// When it was decided what comes of it.
    #[schema(value_type = String, format = DateTime)]
    decided_at: Timestamp,
    /// Whether somebody ran it by hand.
    by_hand: bool,
    /// What came of it.
    outcome: RunOutcome,
    /// Why no job was submitted.
    #[schema(required)]
    reason: Option<String>,
    /// The job that was submitted.
    #[schema(required, value_type = Option<String>, format = "uuid")]
    job: Option<JobId>,
    /// Where that job is or how it ended; null if there is none, or it is not kept any more.
    #[schema(required)]
    state: Option<StateName>,
}

/// What came of a time at which a schedule was due.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RunOutcome {
    /// A job was submitted.
    Submitted,
    /// A job will be, when those before it have ended.
    Waiting,
    /// None was, because of the schedule's own rules.
    Skipped,
    /// None could be.
    Failed,
}

impl<'a> ScheduleView<'a> {
    /// A schedule as it is at a moment.
    pub(super) fn of(schedule: &'a Schedule, Caller(owner): Caller, now: Timestamp) -> Self {
        let from = schedule.next_at.map(|next| next.max(now));
        Self {
            // Those who see all see whose they are, and call them so.
            name: if owner.is_some() { schedule.own_name() } else { &schedule.name },
            cron: schedule.timetable.expression(),
            timezone: schedule.timetable.zone(),
            catch_up: schedule.catch_up,
            overlap: schedule.overlap,
            job: without_secret(&schedule.job).map_or(Cow::Borrowed(&*schedule.job), Cow::Owned),
            paused: schedule.paused,
            created_at: schedule.created_at,
            changed_at: schedule.changed_at,
            next_runs: from.into_iter().flat_map(|from| schedule.timetable.from(from)).take(SHOWN.0).collect(),
            last_runs: None,
        }
    }

    /// The same with what came of it.
    pub(super) fn with<'f>(mut self, fires: impl IntoIterator<Item = &'f Fire>, states: &HashMap<JobId, StateFilter>) -> Self {
        self.last_runs = Some(fires.into_iter().map(|fire| RunView::of(fire, states)).collect());
        self
    }
}

impl RunView {
    fn of(fire: &Fire, states: &HashMap<JobId, StateFilter>) -> Self {
        let (outcome, reason, job) = match &fire.outcome {
            FireOutcome::Submitted(job) => (RunOutcome::Submitted, None, Some(*job)),
            FireOutcome::Waiting => (RunOutcome::Waiting, None, None),
            FireOutcome::Skipped(skip) => (RunOutcome::Skipped, Some(skip.reason().to_owned()), None),
            FireOutcome::Failed(reason) => (RunOutcome::Failed, Some(reason.clone()), None),
        };
        let state = job.and_then(|job| states.get(&job)).map(|state| StateName::from(*state));
        Self { due_at: fire.due_at, decided_at: fire.at, by_hand: fire.by_hand, outcome, reason, job, state }
    }
}

/// Which page of the schedules.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// How many on a page.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 50)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Create a schedule
///
/// Its job is checked as if it were submitted. From then on it is submitted whenever the cron expression says so, with the label
/// `trine-schedule`, which is the schedule's name.
#[utoipa::path(
    post, path = "/schedules", tag = "schedules", operation_id = "createSchedule",
    request_body(content = Fields, content_type = "application/json", example = example::new_schedule),
    responses(
        (status = 201, description = "It is there", body = ScheduleView,
            headers(("Location" = String, description = "The schedule")), example = example::schedule),
        answers::MalformedJson, answers::BodyTimeout, answers::TooLarge, answers::UnsupportedMediaType, answers::InvalidSchedule,
        answers::ScheduleExists, answers::QuotaUsedUp, answers::Unavailable,
    ),
)]
pub(super) async fn create(State(api): State<ApiState>, request: Request) -> Result<Response, Problem> {
    let caller = Caller::of(request.extensions());
    let schedule = read(&api, request, None).await?;
    if !api.schedules.add(schedule.clone()).await? {
        return Err(Problem::new(
            Kind::ScheduleExists,
            format!("there is a schedule {:?}; `PUT` replaces it", schedule.own_name()),
        ));
    }
    let view = ScheduleView::of(&schedule, caller, api.dispatcher.store().now());
    Ok((StatusCode::CREATED, location(&schedule), Json(view)).into_response())
}

/// List schedules
///
/// By name, each with the latest time at which it was due and what came of it.
#[utoipa::path(
    get, path = "/schedules", tag = "schedules", operation_id = "listSchedules",
    params(ListQuery),
    responses(
        (status = 200, description = "A page of schedules", body = List<ScheduleView>, example = example::schedules),
        answers::BadQuery, answers::Unavailable,
    ),
)]
pub(super) async fn list(
    State(api): State<ApiState>,
    caller: Caller,
    Query(ListQuery { limit: Limit(limit), cursor }): Query<ListQuery>,
) -> Result<Response, Problem> {
    // Those of an owner stand together, behind what is no name of any.
    let after = Schedule::full_name(caller.0, cursor.as_deref().unwrap_or_default());
    let store = api.dispatcher.store();
    let mut schedules = store.schedules(Some(&after), limit + 1).await?;
    schedules.retain(|schedule| caller.sees(schedule.owner()));
    let page = &schedules[..on_page(limit, &schedules)];
    let last = page.last().map_or("", |schedule| &schedule.name);
    let fires = store.latest_fires(&after, last).await?;
    let (states, now) = (states(store, fires.values()).await?, store.now());
    let view = |schedule| ScheduleView::of(schedule, caller, now).with(fires.get(&schedule.name), &states);
    let items: Vec<_> = page.iter().map(view).collect();
    let next_cursor = items.last().filter(|_| schedules.len() > page.len()).map(|last| last.name.to_owned());
    Ok(Json(List { items, next_cursor }).into_response())
}

/// Look at a schedule
///
/// With the next times at which it is due, and the latest with what came of them.
#[utoipa::path(
    get, path = "/schedules/{name}", tag = "schedules", operation_id = "getSchedule",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "The schedule", body = ScheduleView, example = example::schedule_with_runs),
        answers::UnknownSchedule, answers::Unavailable,
    ),
)]
pub(super) async fn get(State(api): State<ApiState>, caller: Caller, Path(name): Path<String>) -> Result<Response, Problem> {
    let schedule = api.dispatcher.store().schedule(&Schedule::full_name(caller.0, &name)).await?;
    whole(&api, &schedule.ok_or_else(|| unknown(&name))?, caller).await
}

/// The answer that shows a schedule with what came of it.
async fn whole(api: &ApiState, schedule: &Schedule, caller: Caller) -> Result<Response, Problem> {
    let store = api.dispatcher.store();
    let fires = store.fires(&schedule.name, SHOWN.1).await?;
    let states = states(store, &fires).await?;
    Ok(Json(ScheduleView::of(schedule, caller, store.now()).with(&fires, &states)).into_response())
}

/// Where the jobs are that were submitted at these times.
async fn states<'f>(
    store: &dyn Store,
    fires: impl IntoIterator<Item = &'f Fire>,
) -> Result<HashMap<JobId, StateFilter>, StoreError> {
    let job = |fire: &Fire| if let FireOutcome::Submitted(job) = fire.outcome { Some(job) } else { None };
    let jobs: Vec<JobId> = fires.into_iter().filter_map(job).collect();
    store.states(&jobs).await
}

/// Create or replace a schedule
///
/// One that is replaced stays paused if it was, keeps its runs, and is due when it was if it keeps its timetable. Its job is the one that is
/// given: the secret of a webhook, which is not shown, is to be given again.
#[utoipa::path(
    put, path = "/schedules/{name}", tag = "schedules", operation_id = "putSchedule",
    params(("name" = String, Path, description = "Its name", pattern = "^[a-z0-9][a-z0-9_-]{0,63}$")),
    request_body(content = Fields, content_type = "application/json", example = example::new_schedule),
    responses(
        (status = 200, description = "It is replaced", body = ScheduleView, example = example::schedule),
        (status = 201, description = "It is new", body = ScheduleView,
            headers(("Location" = String, description = "The schedule")), example = example::schedule),
        answers::MalformedJson, answers::BodyTimeout, answers::TooLarge, answers::UnsupportedMediaType, answers::InvalidSchedule,
        answers::QuotaUsedUp, answers::Unavailable,
    ),
)]
pub(super) async fn put(State(api): State<ApiState>, Path(name): Path<String>, request: Request) -> Result<Response, Problem> {
    let caller = Caller::of(request.extensions());
    let (new, schedule) = api.schedules.put(read(&api, request, Some(name)).await?).await?;
    let view = whole(&api, &schedule, caller).await?;
    Ok(if new { (StatusCode::CREATED, location(&schedule), view).into_response() } else { view })
}

/// Remove a schedule
///
/// Nothing more is submitted for it; jobs that were go on.
#[utoipa::path(
    delete, path = "/schedules/{name}", tag = "schedules", operation_id = "removeSchedule",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 204, description = "It is gone"), answers::UnknownSchedule, answers::Unavailable),
)]
pub(super) async fn remove(
    State(api): State<ApiState>,
    Caller(owner): Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    if api.schedules.remove(&Schedule::full_name(owner, &name)).await? { Ok(StatusCode::NO_CONTENT) } else { Err(unknown(&name)) }
}

/// Pause a schedule
///
/// Nothing of it starts until it is resumed.
#[utoipa::path(
    post, path = "/schedules/{name}/pause", tag = "schedules", operation_id = "pauseSchedule",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "It is paused", body = ScheduleView, example = example::paused_schedule),
        answers::UnknownSchedule, answers::Unavailable,
    ),
)]
pub(super) async fn pause(State(api): State<ApiState>, caller: Caller, Path(name): Path<String>) -> Result<Response, Problem> {
    set_paused(&api, caller, &name, true).await
}

/// Resume a schedule
///
/// What it was due for while it was paused is not made up for.
#[utoipa::path(
    post, path = "/schedules/{name}/resume", tag = "schedules", operation_id = "resumeSchedule",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "It goes on", body = ScheduleView, example = example::schedule),
        answers::UnknownSchedule, answers::Unavailable,
    ),
)]
pub(super) async fn resume(State(api): State<ApiState>, caller: Caller, Path(name): Path<String>) -> Result<Response, Problem> {
    set_paused(&api, caller, &name, false).await
}

/// Run a schedule by hand
///
/// Its job is submitted now, also if it is paused or another job of it has not ended.
#[utoipa::path(
    post, path = "/schedules/{name}/run", tag = "schedules", operation_id = "runSchedule",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 202, description = "The job is accepted", body = JobView,
            headers(("Location" = String, description = "The job")), example = example::job),
        answers::UnknownSchedule, answers::TooLarge, answers::InvalidSchedule, answers::QuotaUsedUp, answers::Unavailable,
    ),
)]
pub(super) async fn run(
    State(api): State<ApiState>,
    Caller(owner): Caller,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let id = api.schedules.run(&Schedule::full_name(owner, &name)).await.map_err(|error| match error {
        RunError::Unknown => unknown(&name),
        RunError::NotMade(NotMade::Invalid(reason) | NotMade::Lacking { reason, .. }) => {
            Problem::new(Kind::InvalidSchedule, reason)
        }
        RunError::NotMade(NotMade::Later) => Problem::new(Kind::Unavailable, error.to_string()),
        RunError::NoRoom(no_room) => no_room.into(),
        RunError::NotMade(NotMade::Store(error)) | RunError::Store(error) => error.into(),
    })?;
    let job = find_job(&api, id).await?;
    Ok((StatusCode::ACCEPTED, [(LOCATION, format!("/jobs/{id}"))], Json(JobView::from(&job))).into_response())
}

/// What makes the jobs of schedules: reads them as `POST /jobs` does, and labels them with the schedule's name.
pub fn job_maker(dispatcher: Dispatcher) -> MakeJob {
    Arc::new(move |schedule| {
        let dispatcher = dispatcher.clone();
        Box::pin(async move {
            let made = dispatcher.functions().read(|functions| make(schedule, &dispatcher, functions)).await;
            let Err(NotMade::Invalid(reason)) = made else { return made };
            let Ok(submission) = submitted(schedule, &dispatcher, dispatcher.functions().catalogue()) else {
                return Err(NotMade::Invalid(reason));
            };
            Err(match dispatcher.elsewhere(&submission.workload, &[]).await? {
                Some(nodes) => NotMade::Lacking { reason, others: !nodes.is_empty() },
                None => NotMade::Invalid(reason),
            })
        })
    })
}

fn submitted(schedule: &Schedule, dispatcher: &Dispatcher, functions: &Catalogue) -> Result<Box<Submission>, Problem> {
    submission::parse(schedule.job.get().as_bytes(), functions, dispatcher.store().now())
}

fn make(schedule: &Schedule, dispatcher: &Dispatcher, functions: &Catalogue) -> Result<NewJob, NotMade> {
    let mut submission =
        submitted(schedule, dispatcher, functions).map_err(|problem| NotMade::Invalid(problem.detail().to_owned()))?;
    submission.owner = schedule.owner();
    submission.tags.entry(SCHEDULE_TAG.to_owned()).or_insert_with(|| schedule.own_name().to_owned());
    dispatcher.make(submission).map_err(|error| match error {
        SubmitError::Draining => NotMade::Later,
        error => NotMade::Invalid(Problem::from(error).detail().to_owned()),
    })
}

async fn set_paused(api: &ApiState, caller: Caller, name: &str, paused: bool) -> Result<Response, Problem> {
    let schedule = api.schedules.pause(&Schedule::full_name(caller.0, name), paused).await?.ok_or_else(|| unknown(name))?;
    whole(api, &schedule, caller).await
}

/// Reads the schedule in a body. Where its name is in the path, it is in the body the same or not at all.
async fn read(api: &ApiState, request: Request, name: Option<String>) -> Result<Schedule, Problem> {
    let (parts, body) = request.into_parts();
    let body = body::json(&parts.headers, body, api.bodies.at_most(MAX_BYTES)).await?;
    let schedule = api.dispatcher.functions().read(|functions| parse(&body, name.clone(), &api.dispatcher, functions));
    let mut schedule = schedule.await.map_err(|problem| problem.of_what(Kind::InvalidSchedule))?;
    schedule.name = Schedule::full_name(Caller::of(&parts.extensions).0, &schedule.name);
    Ok(schedule)
}

fn parse(text: &[u8], in_path: Option<String>, dispatcher: &Dispatcher, functions: &Catalogue) -> Result<Schedule, Problem> {
    let Fields { name, cron, timezone, catch_up, overlap, job } = submission::object(text, "")?;
    let name = match (name, in_path) {
        (Some(name), Some(in_path)) if name != in_path => {
            return Err(Invalid::new("/name", format!("is not the name in the path, {in_path:?}")).into());
        }
        (name, in_path) => name.or(in_path).ok_or_else(|| Invalid::new("", "missing field `name`"))?,
    };
    if !is_name(&name) {
        let rule = "must be 1 to 64 lower-case letters, digits, _ and -, of which the last two are not the first";
        return Err(Invalid::new("/name", rule).into());
    }
    let timetable = Timetable::parse(&cron, &timezone).and_then(Timetable::without_long_steps).map_err(|error| {
        let pointer = if error == BadTimetable::Zone { "/timezone" } else { "/cron" };
        Invalid::new(pointer, error.to_string())
    })?;
    let now = dispatcher.store().now();
    let next_at = timetable.from(now).next().ok_or_else(|| Invalid::new("/cron", "no moment ever matches"))?;
    check_job(job, dispatcher, functions).map_err(|problem| problem.within("job"))?;
    let job = job.to_owned();
    Ok(Schedule {
        name,
        timetable,
        catch_up,
        overlap,
        job,
        paused: false,
        created_at: now,
        changed_at: now,
        next_at: Some(next_at),
    })
}

fn check_job(job: &RawValue, dispatcher: &Dispatcher, functions: &Catalogue) -> Result<(), Problem> {
    let submission = submission::parse(job.get().as_bytes(), functions, dispatcher.store().now())?;
    let fields: BTreeMap<String, &RawValue> = submission::object(job.get().as_bytes(), "")?;
    if let Some((field, why)) = UNFITTING.iter().find(|(field, _)| fields.contains_key(*field)) {
        return Err(Invalid::new(format!("/{field}"), *why).into());
    }
    Ok(dispatcher.make(submission).map(drop)?)
}

/// A submission without the secret that signs the messages of its webhook, if it has one: that is not shown.
fn without_secret(job: &RawValue) -> Option<Box<RawValue>> {
    let mut fields: BTreeMap<String, &RawValue> = serde_json::from_str(job.get()).ok()?;
    let mut webhook: BTreeMap<String, &RawValue> = serde_json::from_str(fields.get("webhook")?.get()).ok()?;
    webhook.remove("secret")?;
    let webhook = to_raw_value(&webhook).ok()?;
    fields.insert("webhook".to_owned(), &webhook);
    to_raw_value(&fields).ok()
}

fn location(schedule: &Schedule) -> [(axum::http::HeaderName, String); 1] {
    [(LOCATION, format!("/schedules/{}", schedule.own_name()))]
}

fn unknown(name: &str) -> Problem {
    Problem::new(Kind::UnknownSchedule, format!("no schedule is called {name:?}"))
}

fn utc() -> String {
    "UTC".into()
}
