//! `/findings`: what speaks against how workloads are tagged or run.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::json::Json;
use super::list::List;
use super::problem::answers;
use super::query::Query;
use super::{ApiState, example};
use crate::clock::Timestamp;
use crate::job::{Executor, FindingKind, ProfileKey};
use crate::profile::Finding;

/// Something that speaks against how a workload is tagged or run, seen often enough to be no accident.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Finding)]
pub(super) struct FindingView {
    /// What.
    kind: FindingKind,
    /// The key of the profile of the runs that show it.
    #[schema(value_type = String)]
    key: ProfileKey,
    /// The workload's `type`.
    workload: String,
    /// What ran them.
    executor: Executor,
    /// How many showed it.
    jobs: u64,
    /// Of how many.
    of: u64,
    /// When the first of these ended.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// When the last of these ended.
    #[schema(value_type = String, format = DateTime)]
    last_seen: Timestamp,
    /// What was measured.
    evidence: String,
    /// What to do.
    advice: String,
}

impl From<Finding> for FindingView {
    fn from(finding: Finding) -> Self {
        let Finding { kind, key, executor, jobs, of, since, last_seen, evidence, advice } = finding;
        Self { kind, workload: key.kind().to_owned(), key, executor, jobs, of, since, last_seen, evidence, advice }
    }
}

/// Which findings a list holds.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FindingQuery {
    /// What they are.
    kind: Option<FindingKind>,
    /// The `type` of their workload.
    workload: Option<String>,
    /// Of runs on this executor.
    executor: Option<Executor>,
}

/// List findings
///
/// What speaks against how workloads are tagged or run; what was seen last comes first. The results that show one are found by
/// `GET /results?advice=…`.
#[utoipa::path(
    get, path = "/findings", tag = "profiles", operation_id = "listFindings",
    params(FindingQuery),
    responses(
        (status = 200, description = "All that were found", body = List<FindingView>, example = example::findings),
        answers::BadQuery,
    ),
)]
pub(super) async fn list(State(api): State<ApiState>, Query(query): Query<FindingQuery>) -> Json<List<FindingView>> {
    let FindingQuery { kind, workload, executor } = query;
    let mut found = all(&api);
    found.retain(|finding| {
        kind.is_none_or(|kind| kind == finding.kind)
            && workload.as_deref().is_none_or(|workload| workload == finding.key.kind())
            && executor.is_none_or(|executor| executor == finding.executor)
    });
    found.sort_by_key(|finding| std::cmp::Reverse(finding.last_seen));
    Json(List::whole(found.into_iter().map(FindingView::from)))
}

/// All that is found now.
pub(super) fn all(api: &ApiState) -> Vec<Finding> {
    let (profiles, machine) = (api.dispatcher.profiles(), api.dispatcher.machine());
    let keys = profiles.keys(None).into_iter();
    keys.filter_map(|key| Some(profiles.get(key.as_str())?.findings(&key, &machine))).flatten().collect()
}
