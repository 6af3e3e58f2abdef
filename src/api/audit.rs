//! `/audit`: what administrators did.

use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::ApiState;
use super::json::Json;
use super::problem::{Problem, answers};
use super::query::Query;
use crate::auth::{Act, KeyId};
use crate::clock::Timestamp;

const LIMIT: usize = 50;
const MAX_LIMIT: usize = 1000;

/// Which part of the log.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// How many at most.
    #[param(minimum = 1, maximum = 1000, default = 50)]
    limit: Option<usize>,
    /// Where the page begins: `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Something that an administrator did.
#[derive(Serialize, ToSchema)]
#[schema(as = Act)]
struct ActView {
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

/// A page of the audit log.
#[derive(Serialize, ToSchema)]
pub(super) struct Acts {
    /// The latest first.
    items: Vec<ActView>,
    /// Where the next page begins, as the parameter `cursor`; null on the last page.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// List what administrators did
///
/// Every change of keys, functions and nodes, with the key that it was made with, the latest first. An act is written down before it is done.
#[utoipa::path(
    get, path = "/audit", tag = "keys", operation_id = "listActs",
    params(AuditQuery),
    responses(
        (status = 200, description = "A page of the log", body = Acts, example = example),
        answers::BadQuery, answers::Unavailable,
    ),
)]
pub(super) async fn list(
    State(api): State<ApiState>,
    Query(AuditQuery { limit, cursor }): Query<AuditQuery>,
) -> Result<Json<Acts>, Problem> {
    let limit = limit.unwrap_or(LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::bad_query("limit", format!("must be 1 to {MAX_LIMIT}")));
    }
    let before =
        cursor.map(|cursor| place(&cursor).ok_or_else(|| Problem::bad_query("cursor", "is not one of this list"))).transpose()?;
    // One more than asked for tells whether there is a next page.
    let mut acts = api.dispatcher.store().acts(before, limit + 1).await?;
    let more = acts.len() > limit;
    acts.truncate(limit);
    let next_cursor = acts.last().filter(|_| more).map(|act| URL_SAFE_NO_PAD.encode(act.id.to_be_bytes()));
    let view = |Act { id: _, at, key, operation, target, status }| ActView { at, key, operation, target, status };
    Ok(Json(Acts { items: acts.into_iter().map(view).collect(), next_cursor }))
}

fn place(cursor: &str) -> Option<i64> {
    Some(i64::from_be_bytes(URL_SAFE_NO_PAD.decode(cursor).ok()?.try_into().ok()?))
}

fn example() -> Value {
    let act = json!({
        "at": "2026-01-31T12:00:00.000000Z", "key": "3f1c09a2b47d", "operation": "deployFunction", "target": "/functions/resize",
        "status": 201,
    });
    json!({ "items": [act], "next_cursor": null })
}
