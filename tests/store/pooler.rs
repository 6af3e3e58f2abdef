//! A pooler between a server and its PostgreSQL.

use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, mpsc};
use std::time::{Duration, Instant};

use trine::store::postgres::{PostgresOptions, PostgresStore};
use trine::store::{Store, StoreError};

use crate::port::Port;
use crate::postgres::Schema;
use crate::{PATIENCE, end_one, io_job};

/// A pooler that knows no prepared statements.
const OLD: &str = "/usr/sbin/pgbouncer";
/// One that does.
const NEWER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-pgbouncer");

/// Where the one of this test program is that keeps prepared statements and no sessions. It ends with the thread that has started it.
static IN_TRANSACTIONS: LazyLock<String> = LazyLock::new(|| {
    let (started, is_started) = mpsc::channel();
    std::thread::spawn(move || {
        let more = "max_prepared_statements = 200\ndefault_pool_size = 60\nmax_client_conn = 2000";
        let pooler = Pooler::start(NEWER, "transaction", more);
        started.send(pooler.url.clone()).unwrap();
        loop {
            std::thread::park();
        }
    });
    is_started.recv().unwrap()
});

/// A pgbouncer with its usual settings, but for how long a client keeps its session. It ends with this value.
struct Pooler {
    process: Child,
    url: String,
    _port: Port,
}

/// The URL of a database through a pooler that keeps prepared statements and no sessions.
pub(crate) fn in_transactions() -> &'static str {
    &IN_TRANSACTIONS
}

impl Pooler {
    /// One that keeps sessions for as long as `mode` says, with these settings besides.
    fn start(program: &str, mode: &str, more: &str) -> Self {
        static POOLERS: AtomicU32 = AtomicU32::new(0);
        // Removed with the database's, and of one who may not go into every folder.
        let folder = Path::new(Schema::socket()).join(format!("pooler-{}", POOLERS.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir(&folder).unwrap();
        let port = Port::free();
        // Nothing may go by what another client has left behind.
        let settings = format!(
            "[databases]\npostgres = host={} port=5432 user=trine connect_query='SET default_transaction_isolation = serializable'\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = {mode}\n{more}\n",
            Schema::socket(),
            port.number
        );
        let file = folder.join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        for path in [&folder, &file] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let program = if program == NEWER { copied(&folder) } else { program.into() };
        // Nobody may run it as root.
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig=KILL");
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
        }
        let process = command.arg(program).arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.expect("pgbouncer: see scripts/install-test-deps.sh");
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port.number)).is_err() {
            assert!(begun.elapsed() < PATIENCE, "the pooler does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        let url = format!("postgres://trine@127.0.0.1:{}/postgres", port.number);
        Self { process, url, _port: port }
    }

    fn options(&self, place: &Schema) -> PostgresOptions {
        PostgresOptions { urls: vec![self.url.clone()], clock: None, ..place.options() }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A copy of the newer one in this folder.
fn copied(folder: &Path) -> PathBuf {
    let copied = Command::new("cp").args(["-r", NEWER]).arg(folder).status();
    assert!(copied.is_ok_and(|copied| copied.success()), "no newer pgbouncer: see scripts/install-test-deps.sh");
    folder.join("test-pgbouncer/pgbouncer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_pooler_that_keeps_sessions_all_is_as_without() {
    let (pooler, place) = (Pooler::start(OLD, "session", ""), Schema::new());
    let store: Arc<dyn Store> = Arc::new(PostgresStore::open(pooler.options(&place)).await.unwrap());
    let job = io_job();
    store.accept(vec![job.clone()]).await.unwrap();
    end_one(&store).await;
    // In the schema that was asked for, not in the one that the database would take.
    let mut raw = place.raw().await;
    let jobs: i64 = sqlx::query_scalar("SELECT count(*) FROM results").fetch_one(&mut raw).await.unwrap();
    assert_eq!(jobs, 1);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_keeps_neither_sessions_nor_statements_is_refused_before_anything_is_written() {
    // Where Debian's is the newer one, it keeps statements unless it is told not to.
    let is_old = !Path::new(NEWER).join("pgbouncer").is_symlink();
    for (program, more) in [(NEWER, "max_prepared_statements = 0")].into_iter().chain(is_old.then_some((OLD, ""))) {
        let (pooler, place) = (Pooler::start(program, "transaction", more), Schema::new());
        match PostgresStore::open(pooler.options(&place)).await {
            Err(StoreError::Unusable(why)) => assert!(why.contains("neither sessions nor prepared statements"), "{why}"),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it is opened"),
        }
        let mut raw = place.raw().await;
        let text = "SELECT count(*) FROM pg_namespace WHERE nspname = $1";
        assert_eq!(sqlx::query_scalar::<_, i64>(text).bind(place.options().schema).fetch_one(&mut raw).await.unwrap(), 0);
    }
}
