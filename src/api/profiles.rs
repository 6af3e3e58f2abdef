//! `/profiles`: what was learned of workloads by running them.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{Path, State};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::findings::FindingView;
use super::json::Json;
use super::list::{Limit, List, first};
use super::problem::{Kind, Problem, answers};
use super::query::Query;
use super::{ApiState, example};
use crate::clock::Timestamp;
use crate::dispatch::WhatIf;
use crate::job::{Bound, Executor, FailureKind, Form, Observed, ProfileKey, Rule, Runtime};
use crate::profile::{Machine, Profile, Summary, day_of, start_of};
use crate::store::{Quantiles, Sketch};

/// What a window of history is by default.
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// What was learned of runs that are alike.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Profile, example = example::profile)]
pub(super) struct ProfileView {
    /// What they have in common: the workload's type, with the size of what it is given (as a power of two) or whose code it is.
    #[schema(value_type = String)]
    key: ProfileKey,
    /// The workload's `type`.
    workload: String,
    /// What it is written in; null if that is not known since the server was started.
    #[schema(required)]
    runtime: Option<Runtime>,
    /// How it is written; null likewise.
    #[schema(required)]
    form: Option<Form>,
    /// How many runs there were.
    runs: u64,
    /// When the last one ended.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    last_seen: Option<Timestamp>,
    /// What measured routing goes by.
    learned: LearnedView,
    /// The runs by what ran them.
    executors: Vec<SummaryView>,
    /// What speaks against how they are tagged or run.
    findings: Vec<FindingView>,
}

/// What measured routing goes by: averages over the runs, of which the latest count most.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Learned)]
struct LearnedView {
    /// How many runs say something: those that succeeded and were not too short.
    runs: u64,
    /// What they turned out to be; null while they are too few, or do not agree.
    #[schema(required)]
    observed: Option<Observed>,
    /// How many cores a run uses while others do not keep it from running.
    demand: f64,
    /// How long a run takes.
    wall_us: u64,
    /// Whether they are known to hold the event loop.
    holds_loop: bool,
}

/// The runs on one executor. Durations are in microseconds; quantiles are null where nothing was measured.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProfileSummary)]
struct SummaryView {
    /// Which.
    executor: Executor,
    /// How many.
    runs: u64,
    /// How many gave no output, by kind of failure.
    #[schema(value_type = BTreeMap<String, u64>)]
    failures: BTreeMap<&'static str, u64>,
    /// How many had each tag.
    #[schema(value_type = BTreeMap<String, u64>)]
    tagged: BTreeMap<&'static str, u64>,
    /// How many turned out to be each thing.
    #[schema(value_type = BTreeMap<String, u64>)]
    observed: BTreeMap<&'static str, u64>,
    /// The work itself; of those that succeeded.
    #[schema(required)]
    wall_us: Option<Quantiles>,
    /// From claimed until the work itself began; of those that did not stand in a line of their executor meanwhile.
    #[schema(required)]
    dispatch_us: Option<Quantiles>,
    /// CPU time over wall time, in percent; of those that succeeded.
    #[schema(required)]
    cpu_percent: Option<Quantiles>,
    /// The longest that a run held the event loop at once (`async` only).
    #[schema(required)]
    longest_poll_us: Option<Quantiles>,
    /// Peak memory (`processes` only).
    #[schema(required)]
    max_rss_bytes: Option<Quantiles>,
    /// When the first of them ended.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// When the last of them ended.
    #[schema(value_type = String, format = DateTime)]
    until: Timestamp,
}

impl ProfileView {
    pub(super) fn of(key: ProfileKey, profile: &Profile, machine: &Machine) -> Self {
        let digest = profile.digest();
        Self {
            workload: key.kind().to_owned(),
            runtime: profile.written.map(|written| written.runtime),
            form: profile.written.map(|written| written.form),
            runs: profile.runs(),
            last_seen: profile.last_seen(),
            learned: LearnedView {
                runs: digest.runs,
                observed: digest.observed,
                demand: (digest.demand * 1000.0).round() / 1000.0,
                wall_us: digest.wall_us,
                holds_loop: digest.on_loop.holds,
            },
            executors: Executor::ALL
                .into_iter()
                .filter_map(|executor| Some(SummaryView::of(executor, profile.on(executor)?)))
                .collect(),
            findings: profile.findings(&key, machine).into_iter().map(FindingView::from).collect(),
            key,
        }
    }
}

impl SummaryView {
    fn of(executor: Executor, summary: &Summary) -> Self {
        let Summary { counts, wall, dispatch, share, poll, memory } = summary;
        let named = |names: &[&'static str], counts: &[u64]| {
            names.iter().copied().zip(counts.iter().copied()).filter(|(_, count)| *count > 0).collect()
        };
        let scaled = |sketch: &Sketch, scale: fn(u64) -> u64| {
            let Quantiles { p50, p90, p99 } = sketch.quantiles()?;
            Some(Quantiles { p50: scale(p50), p90: scale(p90), p99: scale(p99) })
        };
        Self {
            executor,
            runs: counts.runs,
            failures: named(&FailureKind::ALL.map(FailureKind::as_str), &counts.failures),
            tagged: named(&Bound::ALL.map(Bound::as_str), &counts.tagged),
            observed: named(&Observed::ALL.map(Observed::as_str), &counts.observed),
            wall_us: wall.quantiles(),
            dispatch_us: dispatch.quantiles(),
            cpu_percent: scaled(share, |permille| permille.div_ceil(10)),
            longest_poll_us: poll.quantiles(),
            max_rss_bytes: scaled(memory, |kib| kib << 10),
            since: counts.since,
            until: counts.until,
        }
    }
}

/// Which profiles a list holds.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ProfileQuery {
    /// Their workload's `type`, such as `primes`.
    workload: Option<String>,
    /// Those with runs on this executor.
    executor: Option<Executor>,
    /// What their runs turned out to be.
    observed: Option<Observed>,
    /// How many on a page.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 50)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<KeyCursor>,
}

/// The last key of a page, as text that means nothing to clients.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct KeyCursor(String);

impl From<KeyCursor> for String {
    fn from(KeyCursor(key): KeyCursor) -> Self {
        URL_SAFE_NO_PAD.encode(key)
    }
}

impl TryFrom<String> for KeyCursor {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        bytes.and_then(|bytes| String::from_utf8(bytes).ok()).map(Self).ok_or("must be the next_cursor of a page")
    }
}

/// List profiles
///
/// What was learned of workloads by running them, by key. Profiles are brought up to date with each run, and
/// written once a second, every ten where several servers share a database.
#[utoipa::path(
    get, path = "/profiles", tag = "profiles", operation_id = "listProfiles",
    params(ProfileQuery),
    responses(
        (status = 200, description = "A page of profiles", body = List<ProfileView>, example = example::profiles),
        answers::BadQuery,
    ),
)]
pub(super) async fn list(State(api): State<ApiState>, Query(query): Query<ProfileQuery>) -> Json<List<ProfileView>> {
    let (profiles, machine) = (api.dispatcher.profiles(), api.dispatcher.machine());
    let wanted = |key: ProfileKey| {
        let profile = profiles.get(key.as_str())?;
        let passes = query.executor.is_none_or(|executor| profile.on(executor).is_some())
            && query.observed.is_none_or(|observed| profile.digest().observed == Some(observed));
        passes.then(|| ProfileView::of(key, &profile, &machine))
    };
    let after = query.cursor.as_ref().map(|KeyCursor(key)| key.as_str());
    let keys = profiles.keys(after).into_iter();
    let of_type = keys.filter(|key| query.workload.as_deref().is_none_or(|workload| workload == key.kind()));
    let Limit(limit) = query.limit;
    let found: Vec<_> = of_type.filter_map(wanted).take(limit + 1).collect();
    let (items, next_cursor) = first(found, limit, |last| String::from(KeyCursor(last.key.as_str().to_owned())));
    Json(List { items, next_cursor })
}

/// Look at a profile
///
/// What was learned of runs that are alike. The key is a part of the path, in which other characters than letters, digits, `:`, `~`, `@`,
/// `.`, `-` and `_` are written as `%` and two digits.
#[utoipa::path(
    get, path = "/profiles/{key}", tag = "profiles", operation_id = "getProfile",
    params(("key" = String, Path, description = "The profile's key", example = "primes:below~2^20")),
    responses(
        (status = 200, description = "The profile", body = ProfileView, example = example::profile),
        answers::UnknownProfile,
    ),
)]
pub(super) async fn get(State(api): State<ApiState>, Path(key): Path<String>) -> Result<Json<ProfileView>, Problem> {
    let profile = api.dispatcher.profiles().get(&key);
    let profile = profile.ok_or_else(|| Problem::new(Kind::UnknownProfile, format!("no runs are known of {key:?}")))?;
    Ok(Json(ProfileView::of(ProfileKey::from(key), &profile, &api.dispatcher.machine())))
}

/// Which part of history to look at.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WhatIfQuery {
    /// From the day (UTC) of this time on (RFC 3339); without it from a week ago.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Up to the day of this time; without it until now.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Only runs of this workload.
    workload: Option<String>,
}

/// What measured routing would have changed.
#[derive(Serialize, ToSchema)]
#[schema(as = WhatIf)]
pub(super) struct WhatIfView {
    /// From when on history was looked at.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// Until when.
    #[schema(value_type = String, format = DateTime)]
    until: Timestamp,
    /// How many runs held the event loop for 50 ms or more.
    held_runs: u64,
    /// How long they held it together, in microseconds.
    held_us: u64,
    /// Runs that measured routing would send elsewhere, or that held the event loop; those that would gain most come first.
    items: Vec<WhatIfItem>,
    /// Null: all are on one page.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Runs that are alike, tagged alike and run alike. Durations are in microseconds.
#[derive(Serialize, ToSchema)]
struct WhatIfItem {
    /// The key of their profile.
    #[schema(value_type = String)]
    key: ProfileKey,
    /// How they were tagged, or, on threads, what measured routing took them for instead.
    bound: Bound,
    /// What ran them.
    executor: Executor,
    /// How many.
    runs: u64,
    /// How long they took together.
    wall_us: u64,
    /// The CPU time that they used.
    cpu_us: u64,
    /// How many held the event loop for 50 ms or more.
    held_runs: u64,
    /// For how long, together.
    held_us: u64,
    /// The longest of it.
    longest_us: u64,
    /// How many other jobs were on the loop at those times, together.
    held_jobs: u64,
    /// What they turned out to be; null if that is not known.
    #[schema(required)]
    observed: Option<Observed>,
    /// What measured routing would choose for them.
    would: Executor,
    /// By which rule.
    rule: Rule,
    /// How long the event loop would not have been held.
    gain_loop_us: u64,
    /// How long slots for computing would not have been taken up by waiting.
    gain_slot_us: u64,
    /// How much less time the runs that succeeded would have taken, by the runs here and there; null without enough of them.
    #[schema(required)]
    gain_wall_us: Option<u64>,
}

impl From<WhatIf> for WhatIfItem {
    fn from(WhatIf { key, executor, bound, totals, observed, would, rule, gain }: WhatIf) -> Self {
        Self {
            key,
            bound,
            executor,
            runs: totals.runs,
            wall_us: totals.wall_us,
            cpu_us: totals.cpu_us,
            held_runs: totals.held_runs,
            held_us: totals.held_us,
            longest_us: totals.longest_us,
            held_jobs: totals.held_jobs,
            observed,
            would,
            rule,
            gain_loop_us: gain.loop_us,
            gain_slot_us: gain.slot_us,
            gain_wall_us: gain.faster_us,
        }
    }
}

/// Ask what measured routing would have changed
///
/// From the sums of past days, which are kept for five weeks, and what is known of the workloads now: which runs held the event loop,
/// which would have run elsewhere, and what that would have gained. The last second may be missing.
#[utoipa::path(
    get, path = "/profiles/what-if", tag = "profiles", operation_id = "whatIf",
    params(WhatIfQuery),
    responses(
        (status = 200, description = "What would have changed", body = WhatIfView, example = example::what_if),
        answers::BadQuery, answers::Unavailable,
    ),
)]
pub(super) async fn what_if(State(api): State<ApiState>, Query(query): Query<WhatIfQuery>) -> Result<Json<WhatIfView>, Problem> {
    let until = query.until.unwrap_or_else(Timestamp::now);
    let since = query.since.unwrap_or_else(|| until.before(WEEK).max(Timestamp::YEAR_ZERO));
    if since > until {
        return Err(Problem::bad_query("since", "must not be after `until`"));
    }
    let mut found = api.dispatcher.what_if(day_of(since), day_of(until)).await?;
    found.retain(|found| query.workload.as_deref().is_none_or(|workload| workload == found.key.kind()));
    Ok(Json(WhatIfView::of(start_of(day_of(since)), until, found)))
}

impl WhatIfView {
    pub(super) fn of(since: Timestamp, until: Timestamp, found: Vec<WhatIf>) -> Self {
        Self {
            since,
            until,
            held_runs: found.iter().map(|found| found.totals.held_runs).sum(),
            held_us: found.iter().map(|found| found.totals.held_us).sum(),
            items: found.into_iter().map(WhatIfItem::from).collect(),
            next_cursor: None,
        }
    }
}
