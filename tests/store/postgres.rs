//! A PostgreSQL of the tests' own, with a schema for each test.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use trine::job::{Labels, Role};
use trine::store::Store;
use trine::store::postgres::{PostgresOptions, PostgresStore};

use crate::pooler::in_transactions;
use crate::server::Postgres;
use crate::{Place, TestClock};

/// The server of this test program.
static SERVER: LazyLock<Postgres> = LazyLock::new(Postgres::start);

/// Longer than a busy machine keeps a node from saying that it is there.
const LEASE: Duration = Duration::from_secs(15);

/// A schema of a test's own.
pub(crate) struct Schema {
    name: String,
    clock: Arc<TestClock>,
    durable: bool,
    divided: bool,
    pooled: bool,
}

impl Schema {
    pub(crate) fn new() -> Self {
        static SCHEMAS: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", SCHEMAS.fetch_add(1, Ordering::Relaxed));
        Self { name, clock: Arc::default(), durable: true, divided: false, pooled: false }
    }

    /// One whose tables are in partitions by day as soon as it is opened.
    pub(crate) fn divided() -> Self {
        Self { divided: true, ..Self::new() }
    }

    /// One that is reached through a pooler that keeps no sessions.
    pub(crate) fn pooled() -> Self {
        Self { pooled: true, ..Self::new() }
    }

    /// The folder of the database's socket.
    pub(crate) fn socket() -> &'static str {
        SERVER.folder()
    }

    pub(crate) fn url(&self) -> String {
        let url = SERVER.url();
        if self.durable { url } else { format!("{url}&options[synchronous_commit]=off") }
    }

    /// Opened by a node of this name.
    pub(crate) async fn node(&self, name: &str) -> Arc<PostgresStore> {
        self.node_with(name, LEASE).await
    }

    /// The same with leases that end after this time.
    pub(crate) async fn node_with(&self, name: &str, lease: Duration) -> Arc<PostgresStore> {
        self.node_of(name, labels(name), lease).await
    }

    /// Another node with this label besides.
    pub(crate) async fn node_labelled(&self, name: &str, label: (&str, &str)) -> Arc<PostgresStore> {
        let mut labels = labels(name);
        labels.insert(label.0.into(), label.1.into());
        self.node_of(name, labels, LEASE).await
    }

    async fn node_of(&self, name: &str, labels: Labels, lease: Duration) -> Arc<PostgresStore> {
        let options = PostgresOptions { node: name.into(), labels, lease, clock: None, ..self.options() };
        Arc::new(PostgresStore::open(options).await.unwrap())
    }

    /// A connection past all stores.
    pub(crate) async fn raw(&self) -> PgConnection {
        PgConnection::connect(&format!("{}&options[search_path]={}", self.url(), self.name)).await.unwrap()
    }

    /// Reached through a proxy on this port.
    pub(crate) fn through(&self, port: u16) -> PostgresOptions {
        let urls = vec![format!("postgres://trine@127.0.0.1:{port}/postgres?sslmode=disable")];
        PostgresOptions { urls, ..self.options() }
    }

    pub(crate) fn options(&self) -> PostgresOptions {
        PostgresOptions {
            urls: vec![if self.pooled { in_transactions().into() } else { self.url() }],
            schema: self.name.clone(),
            partitions: self.divided,
            // Whoever opens it again is the same node, so that it takes up at once what was left behind.
            node: "one".into(),
            role: Role::All,
            labels: labels("one"),
            lease: Duration::from_secs(30),
            connections: 4,
            clock: Some(Arc::<TestClock>::clone(&self.clock)),
            max_losses: 3,
            job_log_lines: 50,
            job_log_bytes: 10_000,
        }
    }
}

/// The options of a node on a database that is a test's own.
pub(crate) fn options_at(urls: Vec<String>, node: &str) -> PostgresOptions {
    PostgresOptions { urls, schema: "trine".into(), node: node.into(), clock: None, ..Schema::new().options() }
}

fn labels(name: &str) -> Labels {
    Labels::from([("node".to_owned(), name.to_owned())])
}

impl Place for Schema {
    // Each step takes several ways to the database.
    const CASES: u64 = 200;

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(PostgresStore::open(self.options()).await.unwrap())
    }

    fn another(&self) -> Self {
        Self { divided: self.divided, pooled: self.pooled, ..Self::new() }
    }

    fn light(self) -> Self {
        Self { durable: false, ..self }
    }

    fn clock(&self) -> &TestClock {
        &self.clock
    }
}
