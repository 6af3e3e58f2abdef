//! `/audit`: what administrators did.

use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::ApiState;
use super::json::Json;
use super::list::{Limit, List, first};
use super::problem::{Problem, answers};
use super::query::Query;
use crate::auth::{Act, KeyId};
use crate::clock::Timestamp;

/// Which part of the log.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// How many at most.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 50)]
    limit: Limit,
    /// Where the page begins: `next_cursor` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<ActCursor>,
}

/// The last act of a page, as text that means nothing to clients.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct ActCursor(i64);

impl TryFrom<String> for ActCursor {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(i64::from_be_bytes).map(Self).ok_or("must be the next_cursor of a page")
    }
}

/// Something that an administrator did.
#[derive(Serialize, ToSchema)]
#[schema(as = Act)]
pub(super) struct ActView {
    /// When it was begun.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// The id of the key that it was done with; null where no key was asked for.
    #[schema(required, value_type = Option<String>)]
    key: Option<KeyId>,
    /// The operation, as this document calls it.
    operation: String,
    /// The path that it was asked for.
    target: String,
    /// The status of the answer; null if the server ended before there was one.
    #[schema(required)]
    status: Option<u16>,
}

/// List what administrators did
///
/// Every change of keys, functions and nodes, with the key that it was made with, the latest first. An act is written down before it is done.
#[utoipa::path(
    get, path = "/audit", tag = "keys", operation_id = "listActs",
    params(AuditQuery),
    responses(
        (status = 200, description = "A page of the log", body = List<ActView>, example = example),
        answers::BadQuery, answers::Unavailable,
    ),
)]
pub(super) async fn list(
    State(api): State<ApiState>,
    Query(AuditQuery { limit: Limit(limit), cursor }): Query<AuditQuery>,
) -> Result<Json<List<ActView>>, Problem> {
    let acts = api.dispatcher.store().acts(cursor.map(|ActCursor(id)| id), limit + 1).await?;
    let (acts, next_cursor) = first(acts, limit, |last| URL_SAFE_NO_PAD.encode(last.id.to_be_bytes()));
    let view = |Act { id: _, at, key, operation, target, status }| ActView { at, key, operation, target, status };
    Ok(Json(List { items: acts.into_iter().map(view).collect(), next_cursor }))
}

fn example() -> Value {
    let act = json!({
        "at": "2026-01-31T12:00:00.000000Z", "key": "3f1c09a2b47d", "operation": "deployFunction", "target": "/functions/resize",
        "status": 201,
    });
    json!({ "items": [act], "next_cursor": null })
}
