//! `/jobs/{id}/logs`: the lines that a job wrote.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::events::EventId;
use super::format::preferred;
use super::jobs::find;
use super::json::Json;
use super::list::{Limit, List};
use super::problem::{Problem, answers};
use super::query::{Id, Query};
use super::{ApiState, example};
use crate::clock::Timestamp;
use crate::dispatch::Dispatcher;
use crate::job::{Event, EventKind, LogStream, What};
use crate::store::{EventFilter, EventPage, StoreError};

/// Which lines of a job are shown.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LogsQuery {
    /// How many on a page, as JSON.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 50)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<EventId>,
}

/// A line that a job wrote.
#[derive(Serialize, ToSchema)]
pub(super) struct LogLine {
    /// When it was recorded.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// The attempt that wrote it.
    attempt: u32,
    /// Where to.
    stream: LogStream,
    /// The line, without its end.
    line: String,
}

/// The lines among these events, `limit` at most; `more` is where others begin.
pub(super) fn lines(events: Vec<Event>, limit: usize, more: Option<Timestamp>) -> List<LogLine> {
    let last = if events.len() > limit { events[..limit].last().map(|event| event.at) } else { more };
    let items = events.into_iter().take(limit).filter_map(|event| {
        let What::Log { attempt, stream, line } = event.what else { return None };
        Some(LogLine { at: event.at, attempt, stream, line })
    });
    List { items: items.collect(), next_cursor: last.map(|at| at.as_micros().to_string()) }
}

#[derive(Clone, Copy)]
enum As {
    Json,
    Text,
}

/// Read a job's log
///
/// The lines that all attempts of the job wrote, in their order and as far as they are kept: a page of JSON or, with `Accept: text/plain`,
/// all lines from the cursor on as text.
#[utoipa::path(
    get, path = "/jobs/{id}/logs", tag = "events", operation_id = "readLog",
    params(("id" = String, Path, description = "The job's id", format = "uuid"), LogsQuery),
    responses(
        (status = 200, description = "The lines", content(
            (List<LogLine> = "application/json", example = example::log),
            (String = "text/plain", example = example::log_text),
        )),
        answers::BadQuery, answers::UnknownJob, answers::NotAcceptable, answers::Unavailable,
    ),
)]
pub(super) async fn get(
    State(api): State<ApiState>,
    Id(id): Id,
    Query(query): Query<LogsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let format = preferred(&headers, &[("application/json", As::Json), ("text/plain", As::Text)])?;
    find(&api, id).await?;
    let filter = EventFilter { job: Some(id), kinds: vec![EventKind::Log], ..EventFilter::default() };
    let after = query.cursor.map_or(Timestamp::from_micros(0), |EventId(at)| at);
    let Limit(limit) = query.limit;
    match format {
        As::Json => {
            let EventPage { events, more } = api.dispatcher.store().events(&filter, after).await?;
            Ok(Json(lines(events, limit, more)).into_response())
        }
        As::Text => {
            let pages = stream::try_unfold(Some(after), {
                let (dispatcher, filter) = (api.dispatcher.clone(), Arc::new(filter));
                move |after| page_of_text(dispatcher.clone(), Arc::clone(&filter), after)
            });
            let text = api.held.in_pieces(Bytes::new(), pages)?;
            Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
        }
    }
}

/// The next page of text, and where the one behind it begins.
async fn page_of_text(
    dispatcher: Dispatcher,
    filter: Arc<EventFilter>,
    after: Option<Timestamp>,
) -> Result<Option<(String, Option<Timestamp>)>, StoreError> {
    let Some(after) = after else { return Ok(None) };
    let EventPage { events, more } = dispatcher.store().events(&filter, after).await?;
    Ok(Some((text(&events), more)))
}

/// The lines among these events.
pub(super) fn text(events: &[Event]) -> String {
    let mut text = String::new();
    for event in events {
        if let What::Log { line, .. } = &event.what {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
