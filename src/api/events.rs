//! Server-sent events: what happens to jobs, while it happens and since.

use std::borrow::Cow;
use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event as SentEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::openapi::schema::AnyOfBuilder;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::access::Caller;
use super::jobs::find;
use super::list::Labels;
use super::problem::{Kind, Problem, answers};
use super::query::{Id, Query};
use super::state::States;
use super::view::{ErrorView, TimingView};
use super::{ApiState, example};
use crate::clock::Timestamp;
use crate::job::{Bound, Ending, Event, EventKind, Executor, JobId, LogStream, Owner, Timing, What};
use crate::store::{EventFilter, Follower, Store, StoreError};

/// How often a comment shows that a stream is alive on which nothing happens.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The id of an event: microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct EventId(pub(super) Timestamp);

impl TryFrom<String> for EventId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let micros = text.parse().ok().filter(|_| digits).ok_or("must be the id of an event, which is a decimal number")?;
        Ok(Self(Timestamp::from_micros(micros)))
    }
}

/// Kinds of events, separated by commas.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "String")]
struct Kinds(Vec<EventKind>);

impl TryFrom<String> for Kinds {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let kind = |name: &str| EventKind::from_str(name).map_err(|_| format!("{name:?} is no kind of event"));
        text.split(',').map(kind).collect::<Result<_, _>>().map(Self)
    }
}

/// Which events of a job are sent.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct JobEventsQuery {
    /// The id of an event: only those behind it are sent. The header `Last-Event-ID` goes before it.
    #[param(value_type = Option<String>)]
    after: Option<EventId>,
    /// Only these kinds, separated by commas, such as `finished,log`.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    kinds: Kinds,
}

/// Which events are sent.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// The id of an event: only those behind it are sent. The header `Last-Event-ID` goes before it. Without either, the stream begins
    /// now.
    #[param(value_type = Option<String>)]
    after: Option<EventId>,
    /// Only these kinds, separated by commas, such as `finished,log`.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    kinds: Kinds,
    /// Only those that leave their job in this state, or in one of several with commas between. `accepted` and `requeued` count as
    /// `queued`, also where the job waits for its time or for others first; no event counts as `blocked`.
    state: Option<States>,
    /// Only those of jobs with this tag of what they do.
    bound: Option<Bound>,
    /// Only those of jobs on this executor.
    executor: Option<Executor>,
    /// Only those of jobs with a workload of this `type`, such as `primes`.
    workload: Option<String>,
    /// Only those of jobs with this label, as `name:value`, such as `team:search`; may be repeated, for 16 at most, as a job has.
    #[serde(default)]
    #[param(value_type = Option<Vec<String>>)]
    tag: Labels,
}

/// What is sent as the data of an event.
#[derive(Serialize)]
pub(super) struct EventView<'a> {
    #[serde(flatten)]
    head: EventHead,
    #[serde(flatten)]
    what: WhatView<'a>,
}

/// What all events have.
#[derive(Serialize, ToSchema)]
struct EventHead {
    /// The job that it happened to.
    #[schema(value_type = String, format = "uuid")]
    job: JobId,
    /// When it was recorded.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

impl PartialSchema for EventView<'_> {
    /// Any of the kinds, each with what all have: derived, it would be the sum of a choice, of which generators of clients make nothing.
    fn schema() -> RefOr<Schema> {
        let (RefOr::T(Schema::Object(head)), RefOr::T(Schema::OneOf(kinds))) = (EventHead::schema(), WhatView::schema()) else {
            unreachable!("one is a struct and the other an enum")
        };
        let any =
            AnyOfBuilder::new().description(Some("What is sent as the data of an event: of which kind it is says its `event`."));
        let whole = |kind| match kind {
            RefOr::T(Schema::Object(mut kind)) => {
                kind.properties.extend(head.properties.clone());
                kind.required.extend(head.required.clone());
                kind.into()
            }
            other => other,
        };
        kinds.items.into_iter().map(whole).fold(any, AnyOfBuilder::item).into()
    }
}

impl ToSchema for EventView<'_> {
    fn name() -> Cow<'static, str> {
        "EventData".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        WhatView::schemas(schemas);
    }
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum WhatView<'a> {
    /// `running`
    Running { attempt: u32, executor: Executor },
    /// `progress`
    Progress {
        attempt: u32,
        #[schema(value_type = serde_json::Value)]
        value: &'a RawValue,
    },
    /// `log`
    Log { attempt: u32, stream: LogStream, line: &'a str },
    /// `retrying`
    Retrying {
        attempt: u32,
        error: ErrorView<'a>,
        #[schema(required)]
        timing: Option<TimingView>,
        #[schema(value_type = String, format = DateTime)]
        due_at: Timestamp,
    },
    /// `finished`, with the fields of a result
    Finished {
        state: Ending,
        attempt: u32,
        #[schema(required, value_type = Option<serde_json::Value>)]
        output: Option<&'a RawValue>,
        #[schema(required)]
        error: Option<ErrorView<'a>>,
        #[schema(required)]
        timing: Option<TimingView>,
    },
    /// `accepted` and `requeued`
    Plain {},
}

impl<'a> From<&'a Event> for EventView<'a> {
    fn from(event: &'a Event) -> Self {
        let timing = |timing: &Timing| TimingView::of(event.bound, event.executor, timing);
        let what = match &event.what {
            What::Accepted | What::Requeued => WhatView::Plain {},
            What::Running { attempt } => WhatView::Running { attempt: *attempt, executor: event.executor },
            What::Progress { attempt, value } => WhatView::Progress { attempt: *attempt, value },
            What::Log { attempt, stream, line } => WhatView::Log { attempt: *attempt, stream: *stream, line },
            What::Retrying { attempt, error, timing: measured, due_at } => WhatView::Retrying {
                attempt: *attempt,
                error: error.into(),
                timing: measured.as_deref().map(timing),
                due_at: *due_at,
            },
            What::Finished { attempt, finished } => WhatView::Finished {
                state: finished.ending,
                attempt: *attempt,
                output: finished.outcome.output(),
                error: finished.outcome.failure().map(ErrorView::from),
                timing: finished.timing.as_ref().map(timing),
            },
        };
        Self { head: EventHead { job: event.job, at: event.at }, what }
    }
}

/// Follow a job
///
/// Everything that happens to the job, from its acceptance to its end: `accepted`, `running`, `progress`, `log`, `retrying`,
/// `requeued`, `finished`. Each event is sent exactly once and in order; whoever was cut off goes on where it was with
/// `Last-Event-ID`, also after a restart of the server. The stream ends after `finished`; whoever comes back after that is told so by
/// `204`, at which browsers stop.
#[utoipa::path(
    get, path = "/jobs/{id}/events", tag = "events", operation_id = "followJob",
    params(
        ("id" = String, Path, description = "The job's id", format = "uuid"), JobEventsQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen"),
    ),
    responses(
        (status = 200, description = "The events, as they happen; the data of each is an `EventData`",
            content((serde_json::Value = "text/event-stream", example = example::events))),
        (status = 204, description = "The job has ended, and nothing happened behind that event"),
        answers::BadQuery, answers::UnknownJob, answers::Unavailable,
    ),
)]
pub(super) async fn of_job(
    State(api): State<ApiState>,
    holder: Option<Extension<Owner>>,
    Id(id): Id,
    Query(query): Query<JobEventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let after = after(&api, &headers, query.after).await?;
    let filter = EventFilter { job: Some(id), ..EventFilter::default() };
    // Made before looking at the job, so that its end is not missed.
    let follower = api.dispatcher.follow(filter, Some(after.unwrap_or(Timestamp::from_micros(0))));
    let job = find(&api, id).await?;
    if job.state.finished().zip(after).is_some_and(|(finished, after)| after >= finished.finished_at) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    // A job's stream sees every kind, because it ends with one of them. Whoever does not want to see the end learns its id all the
    // same: coming back behind it is answered with 204.
    let Kinds(kinds) = query.kinds;
    let shown = move |event: &Event| match event.kind() {
        kind if kinds.is_empty() || kinds.contains(&kind) => Some(sent(event)),
        EventKind::Finished => Some(position(event.at)),
        _ => None,
    };
    send(&api, holder.map(|Extension(owner)| owner), follower, None, shown)
}

/// Follow all jobs
///
/// What happens to all jobs that pass the filters, from now on or behind `Last-Event-ID`. Each event is sent exactly once and in the
/// order in which it was recorded. The stream has no end of its own.
#[utoipa::path(
    get, path = "/events", tag = "events", operation_id = "followJobs",
    params(
        EventsQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen"),
    ),
    responses(
        (status = 200, description = "The events, as they happen; the data of each is an `EventData`",
            content((serde_json::Value = "text/event-stream", example = example::events))),
        answers::BadQuery, answers::Unavailable,
    ),
)]
pub(super) async fn all(
    State(api): State<ApiState>,
    Query(query): Query<EventsQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let (caller, holder) = (Caller::of(request.extensions()), request.extensions().get().copied());
    let after = after(&api, request.headers(), query.after).await?;
    let follower = api.dispatcher.follow(EventFilter { owner: caller.0, ..query.filter()? }, after);
    // Whoever is cut off before the first event knows where to go on.
    let first = position(follower.position());
    send(&api, holder, follower, Some(first), |event| Some(sent(event)))
}

impl EventsQuery {
    fn filter(self) -> Result<EventFilter, Problem> {
        self.state.iter().try_for_each(States::are_told)?;
        Ok(EventFilter {
            owner: None,
            job: None,
            kinds: self.kinds.0,
            states: States::of(self.state.as_ref()),
            bound: self.bound,
            executor: self.executor,
            workload: self.workload,
            tags: self.tag.into(),
        })
    }
}

/// Behind which event to begin. What a browser sends when it reconnects goes before what stands in its address.
async fn after(api: &ApiState, headers: &HeaderMap, query: Option<EventId>) -> Result<Option<Timestamp>, Problem> {
    let wrong = |detail: &str| Problem::bad_query("after", format!("{detail} (the header Last-Event-ID counts as well)"));
    let mut all = headers.get_all("last-event-id").iter().filter(|value| !value.is_empty());
    let header = all.next();
    if all.next().is_some() {
        return Err(wrong("is there more than once"));
    }
    let header =
        header.map(|value| EventId::try_from(value.to_str().unwrap_or_default().to_owned()).map_err(wrong)).transpose()?;
    let after = header.or(query).map(|EventId(at)| at);
    let store = api.dispatcher.store();
    // Between the latest event and now nothing has happened: to begin there is to miss none.
    match after.filter(|after| *after > store.latest_event().max(store.now())) {
        Some(after) if !has_happened(store, after).await? => Err(wrong("is the id of no event that can have happened")),
        _ => Ok(after),
    }
}

/// Whether there is an event with this id, or a later one, which another server has recorded before this one has heard of it.
async fn has_happened(store: &dyn Store, id: Timestamp) -> Result<bool, StoreError> {
    let before = Timestamp::from_micros(id.as_micros() - 1);
    Ok(store.is_shared() && !store.events(&EventFilter::default(), before).await?.events.is_empty())
}

/// Sends what a follower gives, as far as it is shown, until the server drains, or asks for keys and there was none; if there is a place for one
/// more stream of this key.
fn send(
    api: &ApiState,
    holder: Option<Owner>,
    follower: Follower,
    first: Option<SentEvent>,
    shown: impl Fn(&Event) -> Option<SentEvent> + Send + 'static,
) -> Result<Response, Problem> {
    let place = api.streams.open(holder).map_err(|full| Problem::new(Kind::Unavailable, full))?;
    let events = stream::unfold((follower, place), |(mut follower, place)| async move {
        match follower.next().await {
            Ok(event) => event.map(|event| (event, (follower, place))),
            Err(error) => {
                tracing::warn!(%error, "a stream of events broke off");
                None
            }
        }
    });
    let events = events.filter_map(move |event| std::future::ready(shown(&event)));
    let keyring = Arc::clone(&api.keyring);
    let closed = async move {
        match holder {
            // It ends with the key, for which the entrance cares.
            Some(_) => std::future::pending().await,
            None => keyring.closed().await,
        }
    };
    let events = stream::iter(first).chain(events).take_until(api.dispatcher.drained()).take_until(Box::pin(closed));
    let stream = Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive"));
    // Or nginx, and proxies that heed the same, would gather events until there are some KiB of them.
    Ok(([("x-accel-buffering", "no")], stream).into_response())
}

fn sent(event: &Event) -> SentEvent {
    SentEvent::default().id(event.at.as_micros().to_string()).event(event.kind().as_str()).data(data(event))
}

/// No event, but the id of one: what a client goes on behind.
fn position(at: Timestamp) -> SentEvent {
    SentEvent::default().id(at.as_micros().to_string())
}

/// One line of JSON. An output is kept as it was written: line breaks in it stand between values, never within.
fn data(event: &Event) -> String {
    // Views have text as names, so they always can be written as JSON.
    serde_json::to_string(&EventView::from(event)).unwrap_or_default().replace(['\n', '\r'], " ")
}

/// Events as they are sent, for the document.
pub(super) fn example(events: &[Event]) -> String {
    let text = |event: &Event| format!("id: {}\nevent: {}\ndata: {}\n\n", event.at.as_micros(), event.kind(), data(event));
    events.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StateFilter;
    use rstest::rstest;

    #[test]
    fn every_filter_is_read() {
        let query = Query::<EventsQuery>::parse(
            "tag=a%3Ab&kinds=log,finished&tag=c:d&state=failed,running&bound=io&executor=async&workload=http&after=7",
        );
        let Query(query) = query.unwrap();
        assert_eq!(query.after, Some(EventId(Timestamp::from_micros(7))));
        let filter = query.filter().ok().unwrap();
        assert_eq!(filter.tags, [("a".into(), "b".into()), ("c".into(), "d".into())]);
        assert_eq!(filter.kinds, [EventKind::Log, EventKind::Finished]);
        assert_eq!(
            (filter.bound, filter.executor, filter.workload.as_deref()),
            (Some(Bound::Io), Some(Executor::Async), Some("http"))
        );
        assert_eq!(filter.states, [StateFilter::Ended(Ending::Failed), StateFilter::Running]);
    }

    #[rstest]
    #[case("tag=team", "tag")]
    #[case("kinds=", "kinds")]
    #[case("kinds=log,line", "kinds")]
    #[case("after=-1", "after")]
    #[case("after=soon", "after")]
    #[case("after=99999999999999999999", "after")]
    #[case("job=1", "job")]
    #[case("state=queued,blocked", "state")]
    fn other_queries_are_refused(#[case] query: &str, #[case] parameter: &str) {
        let problem = Query::<EventsQuery>::parse(query).and_then(|Query(query)| query.filter()).err().unwrap();
        assert_eq!(serde_json::to_value(problem.body()).unwrap()["errors"][0]["parameter"], parameter);
    }

    #[test]
    fn data_is_one_line_with_the_fields_of_its_kind() {
        let lines: Vec<_> = example::events().as_str().unwrap().lines().map(str::to_owned).collect();
        let data = |line: usize| serde_json::from_str::<serde_json::Value>(lines[line].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!((lines[1].as_str(), lines[0].as_str()), ("event: accepted", "id: 1769860800000000"));
        assert_eq!(data(6)["executor"], "threads");
        assert_eq!(data(10)["value"], serde_json::json!({ "share": 0.5 }));
        assert_eq!((&data(14)["stream"], &data(14)["line"]), (&"stdout".into(), &"half of them are counted".into()));
        let finished = data(18);
        assert_eq!((&finished["state"], &finished["output"]["count"]), (&"succeeded".into(), &78_498.into()));
        assert!(finished["error"].is_null() && finished["timing"]["wall_us"].is_u64() && finished.get("workload").is_none());
    }
}
