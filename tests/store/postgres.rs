//! A PostgreSQL of the tests' own, with a schema for each test.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use trine::store::Store;
use trine::store::postgres::{LeaseRules, PostgresOptions, PostgresStore};

use crate::{Place, TestClock};

/// Makes a database in a folder of its own, says where that is, and serves until nobody holds its input any more: so it ends with the tests,
/// however they end. Its text is sorted by a locale, as that of most databases is, so that it shows where bytes are to be sorted by.
const SERVE: &str = r#"
set -eu
bin=$1 folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$bin/initdb" -D "$folder/data" -A trust -U trine -E UTF8 --locale=C.UTF-8 --locale-provider=icu --icu-locale=en-US --no-sync >&2
"$bin/postgres" -D "$folder/data" -k "$folder" -c listen_addresses= -c max_connections=200 -c log_min_messages=fatal >&2 &
until "$bin/pg_isready" -q -h "$folder"; do kill -0 $!; sleep 0.05; done
echo "$folder"
cat >/dev/null
kill -INT $!
wait $! || true
"#;

/// The server of this test program.
struct Server {
    folder: String,
    /// Its input is open as long as this program runs.
    _process: Child,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    // Nobody may run it as root.
    let mut command = if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--", "sh"]);
        command
    } else {
        Command::new("sh")
    };
    command.args(["-c", SERVE, "sh"]).arg(programs());
    // `mktemp` is asked by one who may not enter every folder.
    command.env("TMPDIR", "/tmp").current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = command.spawn().expect("a shell");
    let mut folder = String::new();
    BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut folder).unwrap();
    assert!(!folder.is_empty(), "PostgreSQL does not start: see scripts/install-test-deps.sh");
    Server { folder: folder.trim().to_owned(), _process: process }
});

/// Where PostgreSQL's programs are: Debian puts them out of the way.
fn programs() -> std::path::PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
    newest.expect("PostgreSQL: see scripts/install-test-deps.sh")
}

/// A schema of a test's own.
pub(crate) struct Schema {
    name: String,
    clock: Arc<TestClock>,
    durable: bool,
}

impl Schema {
    pub(crate) fn new() -> Self {
        static SCHEMAS: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", SCHEMAS.fetch_add(1, Ordering::Relaxed));
        Self { name, clock: Arc::default(), durable: true }
    }

    pub(crate) fn url(&self) -> String {
        let url = format!("postgres://trine@localhost/postgres?host={}", SERVER.folder);
        if self.durable { url } else { format!("{url}&options[synchronous_commit]=off") }
    }

    /// Opened by a node of this name, with leases that last longer than a busy machine keeps it from saying that it is there.
    pub(crate) async fn node(&self, name: &str) -> Arc<PostgresStore> {
        self.node_with(name, Duration::from_secs(15)).await
    }

    /// The same with leases that end after this time.
    pub(crate) async fn node_with(&self, name: &str, lease: Duration) -> Arc<PostgresStore> {
        let leases = LeaseRules { lease, give_up: lease * 5 / 6 };
        let options = PostgresOptions { node: name.into(), leases, clock: None, ..self.options() };
        Arc::new(PostgresStore::open(options).await.unwrap())
    }

    /// A connection past all stores.
    pub(crate) async fn raw(&self) -> PgConnection {
        PgConnection::connect(&format!("{}&options[search_path]={}", self.url(), self.name)).await.unwrap()
    }

    pub(crate) fn options(&self) -> PostgresOptions {
        PostgresOptions {
            url: self.url(),
            schema: self.name.clone(),
            // Whoever opens it again is the same node, so that it takes up at once what was left behind.
            node: "one".into(),
            leases: LeaseRules { lease: Duration::from_secs(30), give_up: Duration::from_secs(25) },
            connections: 4,
            clock: Some(Arc::<TestClock>::clone(&self.clock)),
            max_losses: 3,
            job_log_lines: 50,
            job_log_bytes: 10_000,
        }
    }
}

impl Place for Schema {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(PostgresStore::open(self.options()).await.unwrap())
    }

    fn another(&self) -> Self {
        Self::new()
    }

    fn light(self) -> Self {
        Self { durable: false, ..self }
    }

    fn clock(&self) -> &TestClock {
        &self.clock
    }
}
