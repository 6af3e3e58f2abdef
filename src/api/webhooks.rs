//! `/webhooks/deliveries` and `/jobs/{id}/deliveries`: what was told to whom. And what is told.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use url::Url;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, PathsBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, Paths, Ref, Required, ResponseBuilder};
use utoipa::{IntoParams, ToSchema};

use super::access::Caller;
use super::jobs::find as find_job;
use super::json::Json;
use super::list::{Limit, List, first};
use super::problem::{Kind, Problem, answers};
use super::query::{Id, Query};
use super::view::{ErrorView, TimingView};
use super::{ApiState, example};
use crate::clock::Timestamp;
use crate::job::{Ending, Job, JobId, Outcome, Secret, Tags, Webhook};
use crate::store::DeliveryFilter;
use crate::webhook::{Delivery, DeliveryAttempt, DeliveryState};
use crate::workload::Invalid;

/// The longest URL.
const MAX_URL: usize = 2_048;
/// The longest name that a host can have.
const MAX_HOST: usize = 253;
/// The longest output that a message has with it, in bytes.
const MAX_OUTPUT: usize = 256 << 10;

/// Whom to tell when the job has ended.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewWebhook)]
pub(super) struct Fields {
    /// Where the message is posted to, by http or https. Its host must have a public address, or one in a network that the operator allowed.
    #[schema(format = "uri", example = "https://example.com/hooks/trine")]
    url: String,
    /// What signs it, as `whsec_` and 24 to 64 bytes in Base64; without it the server's own secrets. It is never shown.
    #[serde(default)]
    secret: Option<String>,
    /// Of which endings to tell; without any, of all.
    #[serde(default)]
    #[schema(value_type = BTreeSet<Ending>)]
    events: Vec<Ending>,
}

impl TryFrom<Fields> for Webhook {
    type Error = Invalid;

    fn try_from(Fields { url, secret, events }: Fields) -> Result<Self, Invalid> {
        let parsed = Url::parse(&url).map_err(|error| Invalid::new("/url", format!("not an absolute URL: {error}")))?;
        // As it is kept: other letters than those of ASCII take several times as many bytes there.
        if parsed.as_str().len() > MAX_URL {
            return Err(Invalid::new("/url", format!("has more than {MAX_URL} bytes, with all that has to be encoded")));
        }
        let host = parsed.host_str().ok_or_else(|| Invalid::new("/url", "has no host, as addresses of http and https do"))?;
        if host.len() > MAX_HOST {
            return Err(Invalid::new("/url", format!("has a host of more than {MAX_HOST} bytes")));
        }
        if let Some(index) = (0..events.len()).find(|&index| events[..index].contains(&events[index])) {
            return Err(Invalid::new(format!("/events/{index}"), "is there already"));
        }
        // Without the port: a host has thousands of those.
        let host = host.trim_end_matches('.').to_owned();
        let secret = secret.map(|text| text.parse::<Secret>()).transpose();
        let secret = secret.map_err(|error| Invalid::new("/secret", error.to_string()))?;
        Ok(Self { host, secret, events, url: parsed.into() })
    }
}

/// Whom to tell when the job has ended.
#[derive(Serialize, ToSchema)]
#[schema(as = Webhook)]
pub(super) struct WebhookView<'a> {
    /// Where the message is posted to.
    url: &'a str,
    /// Of which endings; of all if there are none.
    events: &'a [Ending],
}

impl<'a> From<&'a Webhook> for WebhookView<'a> {
    fn from(webhook: &'a Webhook) -> Self {
        Self { url: &webhook.url, events: &webhook.events }
    }
}

/// A message that is to be delivered, or was.
#[derive(Serialize, ToSchema)]
#[schema(as = Delivery)]
pub(super) struct DeliveryView {
    /// The message's id: the header `webhook-id`, the same at every attempt.
    id: String,
    /// The job that has ended.
    #[schema(value_type = String, format = "uuid")]
    job: JobId,
    /// What it is about, such as `job.succeeded`.
    r#type: String,
    /// Where it is sent to.
    url: String,
    /// How it stands.
    state: DeliveryState,
    /// When it is tried next, while it is pending.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    due_at: Option<Timestamp>,
    /// When the job ended.
    #[schema(value_type = String, format = DateTime)]
    finished_at: Timestamp,
    /// What was tried, the latest 50 times, the earliest first.
    attempts: Vec<AttemptView>,
}

/// One try to deliver a message.
#[derive(Serialize, ToSchema)]
#[schema(as = DeliveryAttempt)]
struct AttemptView {
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// How long it took, in microseconds.
    took_us: u64,
    /// The status of the answer.
    #[schema(required)]
    status: Option<u16>,
    /// Why there was no answer.
    #[schema(required)]
    error: Option<String>,
}

impl From<Delivery> for DeliveryView {
    fn from(delivery: Delivery) -> Self {
        let Delivery { id, job, ending, finished_at, url, state, due_at, attempts, .. } = delivery;
        let attempt = |DeliveryAttempt { at, took_us, status, error }| AttemptView { at, took_us, status, error };
        Self {
            id,
            job,
            r#type: kind(ending),
            url,
            state,
            due_at: (state == DeliveryState::Pending).then_some(due_at),
            finished_at,
            attempts: attempts.into_iter().map(attempt).collect(),
        }
    }
}

/// Which deliveries, and which page of them.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// How they stand.
    state: Option<DeliveryState>,
    /// How many on a page.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 50)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Place>,
}

/// The place of the last delivery on a page.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Place(i64);

impl TryFrom<String> for Place {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        text.parse().map(Self).map_err(|_| "must be the next_cursor of a page")
    }
}

/// List deliveries
///
/// The messages of all webhooks, the latest first.
#[utoipa::path(
    get, path = "/webhooks/deliveries", tag = "webhooks", operation_id = "listDeliveries",
    params(ListQuery),
    responses(
        (status = 200, description = "A page of deliveries", body = List<DeliveryView>, example = example::deliveries),
        answers::BadQuery, answers::Unavailable,
    ),
)]
pub(super) async fn list(
    State(api): State<ApiState>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    page(&api, caller, None, query).await
}

/// List a job's deliveries
///
/// The messages about its ends, the latest first: one for each time that it ended.
#[utoipa::path(
    get, path = "/jobs/{id}/deliveries", tag = "webhooks", operation_id = "listDeliveriesOfJob",
    params(("id" = String, Path, description = "The job's id", format = "uuid"), ListQuery),
    responses(
        (status = 200, description = "A page of deliveries", body = List<DeliveryView>, example = example::deliveries),
        answers::BadQuery, answers::UnknownJob, answers::Unavailable,
    ),
)]
pub(super) async fn of_job(State(api): State<ApiState>, Id(id): Id, Query(query): Query<ListQuery>) -> Result<Response, Problem> {
    find_job(&api, id).await?;
    page(&api, Caller::default(), Some(id), query).await
}

/// Deliver a message again
///
/// With the same id, whatever came of it before; with as many attempts as a new one has.
#[utoipa::path(
    post, path = "/webhooks/deliveries/{id}/redeliver", tag = "webhooks", operation_id = "redeliver",
    params(("id" = String, Path, description = "The message's id")),
    responses(
        (status = 202, description = "It will be tried", body = DeliveryView, example = example::delivery),
        answers::UnknownDelivery, answers::Unavailable,
    ),
)]
pub(super) async fn redeliver(State(api): State<ApiState>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    let unknown = || Problem::new(Kind::UnknownDelivery, format!("no message has the id {id:?}"));
    let delivery = api.dispatcher.store().redeliver(&id, caller.0).await?.ok_or_else(unknown)?;
    Ok((StatusCode::ACCEPTED, Json(DeliveryView::from(delivery))).into_response())
}

async fn page(api: &ApiState, Caller(owner): Caller, job: Option<JobId>, query: ListQuery) -> Result<Response, Problem> {
    let ListQuery { state, limit: Limit(limit), cursor } = query;
    let before = cursor.map(|Place(place)| place);
    let deliveries = api.dispatcher.store().deliveries(DeliveryFilter { owner, job, state }, before, limit + 1).await?;
    let (deliveries, next_cursor) = first(deliveries, limit, |last| last.place.to_string());
    let items: Vec<_> = deliveries.into_iter().map(DeliveryView::from).collect();
    Ok(Json(List { items, next_cursor }).into_response())
}

/// A message, as it is posted.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookMessage)]
pub(super) struct Message<'a> {
    /// `job.` and how the job ended.
    r#type: String,
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    data: Data<'a>,
}

/// What a message tells of a job. All but the first fields is null if the job was run again or removed since.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookData)]
struct Data<'a> {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    id: JobId,
    /// How it ended.
    state: Ending,
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    finished_at: Timestamp,
    /// Its workload's `type`.
    #[schema(required)]
    workload: Option<&'a str>,
    /// Its labels.
    #[schema(required)]
    tags: Option<&'a Tags>,
    /// Which attempt was the last.
    #[schema(required)]
    attempt: Option<u32>,
    /// What the workload produced; null if it did not.
    #[schema(required, value_type = Option<serde_json::Value>)]
    output: Option<&'a RawValue>,
    /// Whether there is an output that is not in the message.
    output_omitted: bool,
    /// Why there is no output.
    #[schema(required)]
    error: Option<ErrorView<'a>>,
    /// What was measured of the last attempt.
    #[schema(required)]
    timing: Option<TimingView>,
    /// When it was accepted.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    accepted_at: Option<Timestamp>,
    /// When its last attempt began.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    started_at: Option<Timestamp>,
}

/// What the document says of the messages.
pub(super) fn described() -> Paths {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let header = |name: &str, description: &str| {
        let header = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header).required(Required::True);
        header.schema(Some(text())).description(Some(description))
    };
    let message = ContentBuilder::new().schema(Some(Ref::from_schema_name(Message::name()))).example(Some(example::message()));
    let body = RequestBodyBuilder::new().content("application/json", message.build()).required(Some(Required::True));
    let told = OperationBuilder::new()
        .tag("webhooks")
        .operation_id(Some("jobEnded"))
        .summary(Some("A job has ended"))
        .description(Some(
            "What is posted to the `webhook` of a job when it has ended, as [Standard Webhooks](https://www.standardwebhooks.com) has \
             it: at least once, and in no particular order.",
        ))
        .parameter(header("webhook-id", "The message's id, the same each time that it comes"))
        .parameter(header("webhook-timestamp", "When it was sent, in seconds since the Unix epoch"))
        .parameter(header("webhook-signature", "A signature for each secret, as `v1,` and Base64, with spaces between"))
        .request_body(Some(body.build()))
        .response("2XX", ResponseBuilder::new().description("It has arrived"))
        .response("410", ResponseBuilder::new().description("No message to this URL is wanted any more"));
    PathsBuilder::new().path("jobEnded", PathItem::new(HttpMethod::Post, told)).build()
}

/// The message of a delivery, about a job whose result is still the one that it is about.
pub fn message(delivery: &Delivery, job: Option<&Job>) -> Vec<u8> {
    let finished = job.and_then(|job| job.state.finished());
    let outcome = finished.map(|finished| &finished.outcome);
    let whole = outcome.and_then(Outcome::output);
    let output = whole.filter(|output| output.get().len() <= MAX_OUTPUT);
    let data = Data {
        id: delivery.job,
        state: delivery.ending,
        finished_at: delivery.finished_at,
        workload: job.map(|job| job.submission.workload.kind.as_str()),
        tags: job.map(|job| &job.submission.tags),
        attempt: job.map(|job| job.attempt),
        output,
        output_omitted: output.is_none() && (whole.is_some() || finished.is_none() && delivery.ending == Ending::Succeeded),
        error: outcome.and_then(Outcome::failure).map(ErrorView::from),
        timing: job.and_then(TimingView::of_last),
        accepted_at: job.map(|job| job.accepted_at),
        started_at: finished.and_then(|finished| finished.started_at),
    };
    let message = Message { r#type: kind(delivery.ending), timestamp: delivery.finished_at, data };
    // Views have text as names, so they can always be written.
    serde_json::to_vec(&message).unwrap_or_default()
}

fn kind(ending: Ending) -> String {
    format!("job.{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("https://example.com/hook")]
    #[case("http://example.com:8080")]
    #[case("http://EXAMPLE.com.:8081/")]
    fn a_host_is_one_whatever_its_port(#[case] url: &str) {
        let webhook = Webhook::try_from(Fields { url: url.into(), secret: None, events: Vec::new() }).unwrap();
        assert_eq!((webhook.host.as_str(), webhook.url), ("example.com", Url::parse(url).unwrap().into()));
    }
}
