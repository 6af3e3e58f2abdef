//! What each operation asks of a key: the one place where it is said. The entrance and the OpenAPI document go by it.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::Method;
use utoipa::openapi::path::{Operation as Described, Parameter, ParameterIn, Paths};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, OpenApi, PathItem, RefOr};

use crate::api::problem::Kind;
use crate::auth::Scope;

/// Operations that everyone may call: whoever watches over the server needs no key.
const OPEN: [&str; 2] = ["getHealth", "getReadiness"];

/// Operations that a server answers whose role is to run jobs alone: those of whoever watches over it.
const OF_WORKERS: [&str; 6] = ["getHealth", "getReadiness", "metrics", "getCluster", "drainNode", "resumeNode"];

/// Operations that are asked by probes and scrapers, which may add a query of their own.
const OF_WATCHERS: [&str; 3] = ["getHealth", "getReadiness", "metrics"];

/// Operations that look at an `Idempotency-Key`. Other requests that do something each time are refused if they have one.
const ONCE_BY_KEY: [&str; 2] = ["submitJob", "submitBatch"];

/// Operations by the scope that they ask for. One that stands nowhere is for administrators; a test finds it.
const SCOPES: [(Scope, &[&str]); 5] = [
    (
        Scope::Submit,
        &[
            "submitJob",
            "submitBatch",
            "retryJob",
            "retryJobs",
            "compare",
            "createSchedule",
            "putSchedule",
            "pauseSchedule",
            "resumeSchedule",
            "runSchedule",
            "removeSchedule",
            "redeliver",
            "getQuota",
        ],
    ),
    (
        Scope::Read,
        &[
            "listJobs",
            "getJob",
            "explainRoute",
            "followJob",
            "readLog",
            "listArtifacts",
            "getArtifact",
            "followJobs",
            "listResults",
            "summariseResults",
            "getResult",
            "listSchedules",
            "getSchedule",
            "listDeliveries",
            "listDeliveriesOfJob",
            "listProfiles",
            "getProfile",
            "listFindings",
            "whatIf",
            "metrics",
            "listComparisons",
            "getComparison",
            "getComparisonReport",
            "getComparisonSvg",
            "getComparisonPng",
            "listFunctions",
            "listFunctionVersions",
            "getFunctionVersion",
            "listWorkloads",
            "listExecutors",
            "getCluster",
        ],
    ),
    (Scope::Cancel, &["cancelJob", "cancelJobs", "cancelComparison", "removeResult"]),
    (Scope::Functions, &["deployFunction", "redeployFunction", "removeFunction"]),
    (
        Scope::Admin,
        &[
            "listKeys",
            "createKey",
            "getKey",
            "revokeKey",
            "rotateKey",
            "getKeyQuota",
            "setKeyQuota",
            "listActs",
            "listLimits",
            "drainNode",
            "resumeNode",
        ],
    ),
];

/// The name of the security scheme in the document.
const SCHEME: &str = "key";

/// An operation of the API.
#[expect(clippy::struct_excessive_bools, reason = "each says another thing of it, and none of them excludes another")]
pub(in crate::api) struct Operation {
    /// Its name in the OpenAPI document.
    pub(in crate::api) id: Arc<str>,
    /// What it asks of a key; `None` if it needs none.
    pub(in crate::api) scope: Option<Scope>,
    /// Whether it is written down: what changes the server for others.
    pub(in crate::api) is_recorded: bool,
    /// Whether a server answers it that only runs jobs.
    pub(in crate::api) is_of_workers: bool,
    /// Whether it submits jobs: it looks at an `Idempotency-Key`, and what it changes in memory follows the store.
    pub(in crate::api) submits: bool,
    /// Whether it is refused with a query: it looks at none.
    pub(in crate::api) refuses_queries: bool,
}

/// All operations, by method and path.
#[derive(Default)]
pub(in crate::api) struct Operations(HashMap<String, HashMap<Method, Arc<Operation>>>);

impl Operations {
    /// Adds those that are described.
    pub(in crate::api) fn add(&mut self, paths: &mut Paths) {
        for (path, item) in &mut paths.paths {
            for (method, described) in methods(item) {
                let id = described.operation_id.clone().unwrap_or_default();
                let scope = scope(&id);
                let is_of_workers = OF_WORKERS.contains(&id.as_str());
                let is_recorded = method != Method::GET && matches!(scope, Some(Scope::Admin | Scope::Functions));
                let submits = ONCE_BY_KEY.contains(&id.as_str());
                let refuses_queries = refuses_queries(described);
                let operation = Operation { id: id.into(), scope, is_recorded, is_of_workers, submits, refuses_queries };
                self.0.entry(path.clone()).or_default().insert(method, Arc::new(operation));
            }
        }
    }

    /// The operation behind a route, as the router matched it.
    pub(in crate::api) fn find(&self, method: &Method, path: &str) -> Option<&Arc<Operation>> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        self.0.get(path)?.get(method)
    }
}

/// Says in the document what each operation asks for.
pub(in crate::api) fn describe(document: &mut OpenApi) {
    let about = "An API key, `trine_…`. A server on a loopback address that has no keys asks for none. The scopes are those of the key: \
                 submit, read, cancel, functions; an admin may do everything.";
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(about)).build();
    let components = document.components.get_or_insert_with(Components::new);
    components.add_security_scheme(SCHEME, SecurityScheme::Http(scheme));
    for item in document.paths.paths.values_mut() {
        for (method, described) in methods(item) {
            let id = described.operation_id.clone().unwrap_or_default();
            // They have one status, of which the document tells the likeliest.
            let refused = [
                (Kind::BadIdempotencyKey, method == Method::POST && !ONCE_BY_KEY.contains(&id.as_str())),
                (Kind::BadQuery, refuses_queries(described)),
                (Kind::BadHost, true),
            ];
            for (kind, _) in refused.into_iter().filter(|(_, is)| *is) {
                let (status, problem) = kind.reference();
                described.responses.responses.entry(status).or_insert(problem);
            }
            let Some(scope) = scope(&id) else {
                // Said, so that it can be told from forgotten.
                described.security = Some(Vec::new());
                continue;
            };
            described.security = Some(vec![SecurityRequirement::new(SCHEME, [scope.as_str()])]);
            described.responses.responses.extend([Kind::Unauthenticated.reference()]);
        }
    }
}

fn scope(id: &str) -> Option<Scope> {
    if OPEN.contains(&id) {
        return None;
    }
    let found = SCOPES.iter().find(|(_, ids)| ids.contains(&id));
    Some(found.map_or(Scope::Admin, |&(scope, _)| scope))
}

fn refuses_queries(described: &Described) -> bool {
    let is_of_watchers = described.operation_id.as_deref().is_some_and(|id| OF_WATCHERS.contains(&id));
    let is_of_query = |parameter: &_| matches!(parameter, RefOr::T(Parameter { parameter_in: ParameterIn::Query, .. }));
    !is_of_watchers && !described.parameters.iter().flatten().any(is_of_query)
}

/// The operations of a path.
pub(in crate::api) fn methods(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Described)> {
    let all = [
        (Method::GET, item.get.as_mut()),
        (Method::PUT, item.put.as_mut()),
        (Method::POST, item.post.as_mut()),
        (Method::DELETE, item.delete.as_mut()),
    ];
    all.into_iter().filter_map(|(method, described)| Some((method, described?)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_operation_stands_in_the_table_once_and_nothing_else_does() {
        let mut there = BTreeSet::new();
        crate::api::operations(&mut |(_, mut paths, _)| {
            let described = paths.paths.values_mut().flat_map(methods);
            there.extend(described.map(|(_, described)| described.operation_id.clone().expect("an operation has an id")));
        });
        let listed: Vec<_> = OPEN.into_iter().chain(SCOPES.iter().flat_map(|(_, ids)| ids.iter().copied())).collect();
        let known: BTreeSet<_> = listed.iter().map(|&id| id.to_owned()).collect();
        assert_eq!(known.len(), listed.len(), "an operation stands in the table twice");
        let missing: Vec<_> = there.difference(&known).collect();
        assert!(missing.is_empty(), "src/api/access/operations.rs does not say what these ask for: {missing:?}");
        assert!(OF_WORKERS.iter().all(|&id| known.contains(id)));
        let gone: Vec<_> = known.difference(&there).collect();
        assert!(gone.is_empty(), "src/api/access/operations.rs has operations that are none: {gone:?}");
    }

    #[test]
    fn what_changes_the_server_for_others_is_written_down() {
        let mut operations = Operations::default();
        crate::api::operations(&mut |(_, mut paths, _)| operations.add(&mut paths));
        let recorded = |method, path| operations.find(&method, path).unwrap().is_recorded;
        assert!(recorded(Method::POST, "/keys") && recorded(Method::PUT, "/functions/{name}"));
        assert!(!recorded(Method::GET, "/keys") && !recorded(Method::POST, "/jobs") && !recorded(Method::DELETE, "/jobs/{id}"));
        assert!(operations.find(&Method::HEAD, "/jobs").is_some() && operations.find(&Method::PUT, "/jobs").is_none());
    }
}
