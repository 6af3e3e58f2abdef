//! `/cluster`: the servers that share a database, and which of them take work.

use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::json::Json;
use super::problem::{Kind, Problem, answers};
use super::{ApiState, example};
use crate::clock::{Timestamp, millis};
use crate::job::{Labels, Role};
use crate::store::{Bloat, NodeStatus, Store, TableBloat};

/// The servers that share a database.
#[derive(Serialize, ToSchema)]
#[schema(as = Cluster)]
pub(super) struct ClusterView {
    /// All of them, by name; a server that keeps its jobs in SQLite is the only one.
    items: Vec<NodeView>,
    /// Null: all are on one page.
    #[schema(required)]
    next_cursor: Option<String>,
    /// What their PostgreSQL has to clean up; null of SQLite, and of databases that do not say.
    #[schema(required)]
    database: Option<DatabaseView>,
}

/// What a database has to clean up.
#[derive(Serialize, ToSchema)]
#[schema(as = DatabaseUpkeep)]
struct DatabaseView {
    /// For how long the oldest transaction is open, in milliseconds; null if none is that this server may see. What was deleted since takes
    /// room until it ends.
    #[schema(required)]
    oldest_transaction_ms: Option<u64>,
    /// The tables that change all the time, or are large.
    tables: Vec<TableView>,
    /// What somebody should look at, a sentence each. The log has it too.
    alarms: Vec<String>,
}

/// The rows of a table, as the database has counted them lately.
#[derive(Serialize, ToSchema)]
#[schema(as = TableUpkeep)]
struct TableView {
    /// Its name.
    name: String,
    /// Rows that are there.
    live: u64,
    /// Rows that were there, and still take room.
    dead: u64,
}

impl From<Bloat> for DatabaseView {
    fn from(bloat: Bloat) -> Self {
        let alarms = bloat.alarms();
        let table = |TableBloat { name, live, dead }| TableView { name, live, dead };
        Self {
            oldest_transaction_ms: bloat.oldest_transaction.map(millis),
            tables: bloat.tables.into_iter().map(table).collect(),
            alarms,
        }
    }
}

/// A server of a cluster.
#[derive(Serialize, ToSchema)]
#[schema(as = Node)]
pub(super) struct NodeView {
    /// What it is called.
    name: String,
    /// Whether it is the one that answers.
    #[serde(rename = "self")]
    is_self: bool,
    /// How it is.
    state: NodeState,
    /// What it does.
    role: Role,
    /// What is said of it: jobs may require it.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    labels: Labels,
    /// The number of its start: the higher, the later.
    start: i64,
    /// The version of its program.
    version: String,
    /// How many jobs it has claimed.
    leases: u64,
    /// When it took its place.
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// When it said last that it is there.
    #[schema(value_type = String, format = DateTime)]
    seen_at: Timestamp,
    /// How long ago that was, in milliseconds, by the clock of the database.
    heartbeat_age_ms: u64,
    /// When others take over its jobs if it is not heard of again; null where there are no others.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

/// How a server of a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum NodeState {
    /// It takes work.
    Up,
    /// It claims nothing more, and still runs jobs.
    Draining,
    /// It claims nothing more, and runs nothing.
    Drained,
    /// It was not heard of for so long that its jobs are run elsewhere.
    Lost,
}

impl NodeState {
    /// All of them, with what they are called.
    pub(super) const ALL: [(Self, &str); 4] =
        [(Self::Up, "up"), (Self::Draining, "draining"), (Self::Drained, "drained"), (Self::Lost, "lost")];

    pub(super) fn of(node: &NodeStatus) -> Self {
        match node {
            NodeStatus { has_expired: true, .. } => Self::Lost,
            NodeStatus { is_draining: true, leases: 0, .. } => Self::Drained,
            NodeStatus { is_draining: true, .. } => Self::Draining,
            _ => Self::Up,
        }
    }
}

impl From<NodeStatus> for NodeView {
    fn from(node: NodeStatus) -> Self {
        let state = NodeState::of(&node);
        let NodeStatus {
            name, role, labels, start, version, started_at, seen_at, unheard_for, expires_at, leases, is_this, ..
        } = node;
        Self {
            name,
            is_self: is_this,
            state,
            role,
            labels,
            start,
            version,
            leases,
            started_at,
            seen_at,
            heartbeat_age_ms: millis(unheard_for),
            expires_at,
        }
    }
}

impl ClusterView {
    /// What is known of these.
    pub(super) fn of(nodes: Vec<NodeStatus>, bloat: Option<Bloat>) -> Self {
        Self { items: nodes.into_iter().map(NodeView::from).collect(), next_cursor: None, database: bloat.map(Into::into) }
    }

    async fn now(store: &dyn Store) -> Result<Json<Self>, Problem> {
        Ok(Json(Self::of(store.nodes().await?, store.bloat().await?)))
    }
}

/// Look at the cluster
///
/// The servers that share this one's database: whether each takes work, when it was heard of last, and how many jobs it has claimed. And what their
/// database has to clean up, with an alarm where it does not.
#[utoipa::path(
    get, path = "/cluster", tag = "service", operation_id = "getCluster",
    responses(
        (status = 200, description = "All servers", body = ClusterView, example = example::cluster),
        answers::Unavailable,
    ),
)]
pub(super) async fn get(State(api): State<ApiState>) -> Result<Json<ClusterView>, Problem> {
    ClusterView::now(api.dispatcher.store()).await
}

/// Drain a node
///
/// It claims nothing more, and is not ready any more; what runs there goes on to its end, and its API answers as before. It can be asked of
/// any node. It lasts until the node is resumed, or its process is started anew.
#[utoipa::path(
    post, path = "/cluster/nodes/{name}/drain", tag = "service", operation_id = "drainNode",
    params(("name" = String, Path, description = "What the node is called")),
    responses(
        (status = 200, description = "All servers", body = ClusterView, example = example::draining_cluster),
        answers::UnknownNode, answers::Unavailable,
    ),
)]
pub(super) async fn drain(State(api): State<ApiState>, Path(name): Path<String>) -> Result<Json<ClusterView>, Problem> {
    set_draining(&api, &name, true).await
}

/// Resume a node
///
/// One that was drained claims jobs again.
#[utoipa::path(
    post, path = "/cluster/nodes/{name}/resume", tag = "service", operation_id = "resumeNode",
    params(("name" = String, Path, description = "What the node is called")),
    responses(
        (status = 200, description = "All servers", body = ClusterView, example = example::cluster),
        answers::UnknownNode, answers::Unavailable,
    ),
)]
pub(super) async fn resume(State(api): State<ApiState>, Path(name): Path<String>) -> Result<Json<ClusterView>, Problem> {
    set_draining(&api, &name, false).await
}

async fn set_draining(api: &ApiState, name: &str, draining: bool) -> Result<Json<ClusterView>, Problem> {
    let store = api.dispatcher.store();
    if !store.set_draining(name, draining).await? {
        return Err(Problem::new(Kind::UnknownNode, format!("no node is called {name:?}")));
    }
    ClusterView::now(store).await
}
