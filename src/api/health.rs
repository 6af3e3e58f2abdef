//! `/healthz` and `/readyz`: whether the server lives, and whether it can take work.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::json::Json;
use super::problem::{Problem, answers};

/// That all is well.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

const OK: Json<Health> = Json(Health { status: "ok" });

/// Whether the server lives
///
/// Answers as long as the process can answer at all; a server that does not should be restarted.
#[utoipa::path(
    get, path = "/healthz", tag = "health", operation_id = "getHealth",
    responses((status = 200, description = "It lives", body = Health, example = json!({ "status": "ok" }))),
)]
pub(super) async fn live() -> Json<Health> {
    OK
}

/// Whether the server can take work
///
/// Not while it starts or shuts down, can't write to its database, or can't keep worker processes alive.
#[utoipa::path(
    get, path = "/readyz", tag = "health", operation_id = "getReadiness",
    responses((status = 200, description = "It can", body = Health, example = json!({ "status": "ok" })), answers::NotReady),
)]
pub(super) async fn ready(State(api): State<ApiState>) -> Result<Json<Health>, Problem> {
    api.dispatcher.ready().await?;
    Ok(OK)
}
