//! How much a key may have the server do: `/quota` for whoever has one, `/keys/{id}/quota` for administrators.

use axum::extract::{Path, Request, State};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::ApiState;
use super::access::Caller;
use super::json::Json;
use super::keys::{self, KeyView};
use super::problem::{Kind, Problem, answers};
use crate::auth::Quota;
use crate::dispatch::QuotaStatus;
use crate::store::Usage;
use crate::workload::Invalid;

/// How much an owner may have the server do, and what it has it do. A number that is null has no limit.
#[derive(Serialize, ToSchema)]
#[schema(as = Quotas)]
pub(super) struct QuotaView {
    /// Jobs and comparisons that wait.
    queued: PartView,
    /// Jobs that run.
    running: PartView,
    /// Jobs and comparisons that were submitted in the last minute.
    per_minute: PartView,
    /// Bytes of the workloads of all that waits.
    bytes: PartView,
}

/// One part of a quota.
#[derive(Serialize, ToSchema)]
#[schema(as = QuotaPart)]
struct PartView {
    /// How much it allows; null for any number.
    #[schema(required)]
    most: Option<u64>,
    /// How much of it is used.
    used: u64,
}

impl From<QuotaStatus> for QuotaView {
    fn from(status: QuotaStatus) -> Self {
        let QuotaStatus { quota, usage: Usage { queued, running, bytes }, submitted } = status;
        Self {
            queued: PartView { most: quota.queued, used: queued },
            running: PartView { most: quota.running.map(u64::from), used: running },
            per_minute: PartView { most: quota.per_minute.map(u64::from), used: submitted },
            bytes: PartView { most: quota.bytes, used: bytes },
        }
    }
}

/// See how much of a quota is used
///
/// Of the key with which this is asked, and of those that it took the place of. What an administrator makes has no quota; nor is there
/// one where no keys are asked for.
#[utoipa::path(
    get, path = "/quota", tag = "keys", operation_id = "getQuota",
    responses(
        (status = 200, description = "The quota of the caller's key", body = QuotaView, example = example),
        answers::UnknownKey, answers::Unavailable,
    ),
)]
pub(super) async fn own(State(api): State<ApiState>, Caller(owner): Caller) -> Result<Json<QuotaView>, Problem> {
    let owner = owner.ok_or_else(|| Problem::new(Kind::UnknownKey, "whoever may do everything has no quota"))?;
    Ok(Json(api.dispatcher.quotas().status(owner).await?.into()))
}

/// Look at a key's quota
///
/// With what is used of it by all keys that have the same owner.
#[utoipa::path(
    get, path = "/keys/{id}/quota", tag = "keys", operation_id = "getKeyQuota",
    params(("id" = String, Path, description = "The key's id")),
    responses(
        (status = 200, description = "Its quota", body = QuotaView, example = example),
        answers::UnknownKey, answers::Unavailable,
    ),
)]
pub(super) async fn get(State(api): State<ApiState>, Path(id): Path<String>) -> Result<Json<QuotaView>, Problem> {
    let key = id.parse().ok().and_then(|id| api.keyring.get(&id)).ok_or_else(|| keys::unknown(&id))?;
    Ok(Json(api.dispatcher.quotas().status(key.owner).await?.into()))
}

/// Give a key another quota
///
/// It replaces the one before, from the answer on, for all keys that have the same owner. What is not said is as the settings of the server
/// have it. What waits already stays, though it be more; a first number for `running` holds for jobs that are submitted from then on.
#[utoipa::path(
    put, path = "/keys/{id}/quota", tag = "keys", operation_id = "setKeyQuota",
    params(("id" = String, Path, description = "The key's id")),
    request_body(content = Quota, content_type = "application/json", example = wanted),
    responses(
        (status = 200, description = "The key", body = KeyView, example = keys::key_example),
        answers::MalformedJson, answers::BodyTimeout, answers::TooLarge, answers::UnsupportedMediaType, answers::InvalidKey,
        answers::UnknownKey, answers::Unavailable,
    ),
)]
pub(super) async fn set(State(api): State<ApiState>, Path(id): Path<String>, request: Request) -> Result<Json<KeyView>, Problem> {
    let quota = keys::read(&api, request).await?;
    check(quota, "")?;
    let Ok(parsed) = id.parse() else { return Err(keys::unknown(&id)) };
    api.keyring.set_quota(&parsed, quota).await?.map(|key| Json(KeyView::of(key, &api))).ok_or_else(|| keys::unknown(&id))
}

/// Refuses a quota with a number that it can't have; it stands at `pointer`.
pub(super) fn check(quota: Quota, pointer: &str) -> Result<(), Problem> {
    let Some((part, message)) = quota.fault() else { return Ok(()) };
    let invalid = Invalid::new(format!("{pointer}/{part}"), message);
    Err(Problem::from(invalid).of_what(Kind::InvalidKey))
}

fn wanted() -> Value {
    json!({ "queued": 10_000, "running": 50, "per_minute": 600, "bytes": 104_857_600 })
}

fn example() -> Value {
    json!({
        "queued": { "most": 10_000, "used": 312 }, "running": { "most": 50, "used": 50 },
        "per_minute": { "most": 600, "used": 17 }, "bytes": { "most": 104_857_600, "used": 25_116 },
    })
}
