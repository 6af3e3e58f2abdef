//! `/keys`: who may do what.

use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::access::Created;
use super::json::Json;
use super::list::List;
use super::problem::{Kind, Problem, answers};
use super::{ApiState, body, quota, submission};
use crate::auth::{Key, KeyId, KeyState, Quota, Scope, Scopes, wrong_name};
use crate::clock::Timestamp;
use crate::workload::Invalid;

/// The longest body, in bytes.
const MAX_BYTES: usize = 16 * 1024;
/// How long a key is good for after it was rotated, unless the request says otherwise: a day.
const GRACE_SECONDS: u64 = 86_400;
const MAX_GRACE_SECONDS: u64 = 30 * 86_400;

/// An API key, without its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = Key)]
pub(super) struct KeyView {
    /// By what it is known: the first part of its text.
    id: KeyIdView,
    /// What people call it.
    name: String,
    /// What it may do.
    #[schema(value_type = Vec<Scope>)]
    scopes: Scopes,
    /// Whose things it is for: the id of the first key, if it took the place of others, or its own.
    #[schema(pattern = "^[0-9a-f]{12}$")]
    owner: String,
    /// How much it may have the server do; what is not said is as the settings of the server have it.
    quota: Quota,
    /// Whether it is good for anything.
    state: KeyState,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// From when on it is good for nothing; null if it does not expire.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// When it was revoked.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Timestamp>,
    /// When it was used last, give or take a minute.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
}

/// Twelve hexadecimal digits.
#[derive(Serialize, ToSchema)]
#[serde(transparent)]
#[schema(as = KeyId, value_type = String, pattern = "^[0-9a-f]{12}$")]
struct KeyIdView(KeyId);

/// A new API key, with its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedKey)]
pub(super) struct CreatedView {
    /// The text that requests are to send, as `Authorization: Bearer …`. It is shown this once and kept nowhere.
    key: String,
    /// What is kept.
    #[serde(flatten)]
    view: KeyView,
}

/// A key to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = wanted)]
pub(super) struct NewKey {
    /// What people call it: 1 to 64 characters.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    /// What it may do: at least one.
    #[schema(min_items = 1)]
    scopes: Vec<Scope>,
    /// From when on it is good for nothing; never, if it is not given.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// How much it may have the server do; what is not said is as the settings of the server have it. What an administrator makes has no
    /// quota.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Quota, default)]
    quota: Option<Box<RawValue>>,
}

/// Whatever is given, be it null.
fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(value).map(Some)
}

/// How a key is replaced.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = rotation)]
pub(super) struct Rotation {
    /// How long the old one is still good, in seconds.
    #[schema(minimum = 0, maximum = 2_592_000, default = 86_400)]
    grace_seconds: Option<u64>,
}

impl KeyView {
    /// The key as it is now.
    pub(super) fn of(key: Key, api: &ApiState) -> Self {
        let state = key.state(api.dispatcher.store().now());
        let Key { id, name, scopes, owner, quota, created_at, expires_at, revoked_at, last_used_at, hash: _ } = key;
        Self {
            id: KeyIdView(id),
            name,
            scopes,
            owner: owner.to_string(),
            quota,
            state,
            created_at,
            expires_at,
            revoked_at,
            last_used_at,
        }
    }
}

/// List keys
///
/// All that there ever were, the oldest first; those that are revoked stay, since the audit log names them.
#[utoipa::path(
    get, path = "/keys", tag = "keys", operation_id = "listKeys",
    responses((status = 200, description = "All keys", body = List<KeyView>, example = list_example)),
)]
pub(super) async fn list(State(api): State<ApiState>) -> Json<List<KeyView>> {
    Json(List::whole(api.keyring.list().into_iter().map(|key| KeyView::of(key, &api))))
}

/// Make a key
///
/// The answer has the text of the key, this once: only its hash is kept. The first key of a server that asked for none has to be an
/// admin's; from then on every request needs a key.
#[utoipa::path(
    post, path = "/keys", tag = "keys", operation_id = "createKey",
    request_body(content = NewKey, content_type = "application/json", example = wanted),
    responses(
        (status = 201, description = "The key", body = CreatedView, headers(("Location" = String, description = "The key")),
            example = created_example),
        answers::MalformedJson, answers::BodyTimeout, answers::TooLarge, answers::UnsupportedMediaType, answers::InvalidKey,
        answers::Unavailable,
    ),
)]
pub(super) async fn create(State(api): State<ApiState>, request: Request) -> Result<Response, Problem> {
    let NewKey { name, scopes, expires_at, quota } = read(&api, request).await?;
    let quota = quota.map_or(Ok(Quota::default()), |quota| {
        let quota = submission::object(quota.get().as_bytes(), "/quota");
        quota.map_err(|problem| problem.of_what(Kind::InvalidKey))
    })?;
    let wrong = |pointer, message: &str| Err(Problem::from(Invalid::new(pointer, message)).of_what(Kind::InvalidKey));
    if let Some(message) = wrong_name(&name) {
        return wrong("/name", &message);
    }
    if scopes.is_empty() {
        return wrong("/scopes", "must have at least one");
    }
    if expires_at.is_some_and(|expires_at| expires_at <= api.dispatcher.store().now()) {
        return wrong("/expires_at", "has passed already");
    }
    quota::check(quota, "/quota")?;
    Ok(created(&api, api.keyring.create(name, scopes.into_iter().collect(), expires_at, quota).await?))
}

/// Look at a key
///
/// What is known of it; not its secret.
#[utoipa::path(
    get, path = "/keys/{id}", tag = "keys", operation_id = "getKey",
    params(("id" = String, Path, description = "The key's id")),
    responses((status = 200, description = "The key", body = KeyView, example = key_example), answers::UnknownKey),
)]
pub(super) async fn get(State(api): State<ApiState>, Path(id): Path<String>) -> Result<Json<KeyView>, Problem> {
    let key = id.parse().ok().and_then(|id| api.keyring.get(&id));
    key.map(|key| Json(KeyView::of(key, &api))).ok_or_else(|| unknown(&id))
}

/// Revoke a key
///
/// It is good for nothing from the answer on. Streams of events that were opened with it end, and what waits with it is answered `401`.
#[utoipa::path(
    delete, path = "/keys/{id}", tag = "keys", operation_id = "revokeKey",
    params(("id" = String, Path, description = "The key's id")),
    responses(
        (status = 200, description = "It is revoked", body = KeyView, example = revoked_example),
        answers::UnknownKey, answers::Unavailable,
    ),
)]
pub(super) async fn revoke(State(api): State<ApiState>, Path(id): Path<String>) -> Result<Json<KeyView>, Problem> {
    let Ok(parsed) = id.parse() else { return Err(unknown(&id)) };
    api.keyring.revoke(&parsed).await?.map(|key| Json(KeyView::of(key, &api))).ok_or_else(|| unknown(&id))
}

/// Replace a key
///
/// Makes a key with the same name, scopes, quota and length of life. The old one stays good for `grace_seconds`, so that whoever uses it can change
/// to the new one in peace.
#[utoipa::path(
    post, path = "/keys/{id}/rotate", tag = "keys", operation_id = "rotateKey",
    params(("id" = String, Path, description = "The old key's id")),
    request_body(content = Rotation, content_type = "application/json", example = rotation),
    responses(
        (status = 201, description = "The new key", body = CreatedView, headers(("Location" = String, description = "The new key")),
            example = created_example),
        answers::MalformedJson, answers::BodyTimeout, answers::TooLarge, answers::UnsupportedMediaType, answers::InvalidKey,
        answers::UnknownKey, answers::Unavailable,
    ),
)]
pub(super) async fn rotate(State(api): State<ApiState>, Path(id): Path<String>, request: Request) -> Result<Response, Problem> {
    let Rotation { grace_seconds } = read(&api, request).await?;
    let seconds = grace_seconds.unwrap_or(GRACE_SECONDS);
    if seconds > MAX_GRACE_SECONDS {
        let invalid = Invalid::new("/grace_seconds", format!("must be 0 to {MAX_GRACE_SECONDS}"));
        return Err(Problem::from(invalid).of_what(Kind::InvalidKey));
    }
    let Ok(parsed) = id.parse() else { return Err(unknown(&id)) };
    let until = api.dispatcher.store().now().after(Duration::from_secs(seconds));
    api.keyring.rotate(&parsed, until).await?.map(|made| created(&api, made)).ok_or_else(|| unknown(&id))
}

/// Reads a body that is about a key.
pub(super) async fn read<T: for<'a> Deserialize<'a>>(api: &ApiState, request: Request) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    let content = body::json(&parts.headers, body, api.bodies.at_most(MAX_BYTES)).await?;
    submission::object(&content, "").map_err(|problem| problem.of_what(Kind::InvalidKey))
}

fn created(api: &ApiState, Created { key, secret }: Created) -> Response {
    let location = [(LOCATION, format!("/keys/{}", key.id))];
    (StatusCode::CREATED, location, Json(CreatedView { key: secret.reveal().to_owned(), view: KeyView::of(key, api) }))
        .into_response()
}

pub(super) fn unknown(id: &str) -> Problem {
    Problem::new(Kind::UnknownKey, format!("no key has the id {id:?}, or it was revoked"))
}

fn wanted() -> Value {
    json!({
        "name": "ci", "scopes": ["submit", "read"], "expires_at": "2027-01-31T12:00:00Z",
        "quota": { "queued": 10_000, "running": 50 },
    })
}

fn rotation() -> Value {
    json!({ "grace_seconds": 3600 })
}

pub(super) fn key_example() -> Value {
    json!({
        "id": "3f1c09a2b47d", "name": "ci", "scopes": ["submit", "read"], "owner": "3f1c09a2b47d", "quota": { "queued": 10_000, "running": 50 }, "state": "live",
        "created_at": "2026-01-31T12:00:00.000000Z", "expires_at": "2027-01-31T12:00:00.000000Z", "revoked_at": null,
        "last_used_at": "2026-01-31T12:34:56.789012Z",
    })
}

fn revoked_example() -> Value {
    let mut key = key_example();
    key["state"] = "revoked".into();
    key["revoked_at"] = "2026-02-01T08:00:00.000000Z".into();
    key
}

fn created_example() -> Value {
    let mut key = key_example();
    key["key"] = "trine_3f1c09a2b47d_q8Zx0cVb7…".into();
    key["last_used_at"] = Value::Null;
    key
}

fn list_example() -> Value {
    json!({ "items": [key_example()], "next_cursor": null })
}
