//! A pooler between a server and its PostgreSQL.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use trine::store::postgres::{PostgresOptions, PostgresStore};
use trine::store::{Store, StoreError};

use crate::port::Port;
use crate::postgres::Schema;
use crate::{PATIENCE, end_one, io_job};

/// A pgbouncer with its usual settings, but for how long a client keeps its session. It ends with this value.
struct Pooler {
    process: Child,
    url: String,
    _port: Port,
    _folder: tempfile::TempDir,
}

impl Pooler {
    async fn start(mode: &str) -> Self {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let port = Port::free();
        let settings = format!(
            "[databases]\npostgres = host={} port=5432 user=trine\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = {mode}\n",
            Schema::socket(),
            port.number
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        // Nobody may run it as root.
        for path in [folder.path(), &file] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig=KILL");
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
        }
        let process =
            command.arg("/usr/sbin/pgbouncer").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.expect("pgbouncer: see scripts/install-test-deps.sh");
        let listens = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port.number)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, listens).await.expect("the pooler to listen");
        let url = format!("postgres://trine@127.0.0.1:{}/postgres", port.number);
        Self { process, url, _port: port, _folder: folder }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_pooler_that_keeps_sessions_all_is_as_without() {
    let (pooler, place) = (Pooler::start("session").await, Schema::new());
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
async fn one_that_keeps_none_is_refused_before_anything_is_written() {
    let (pooler, place) = (Pooler::start("transaction").await, Schema::new());
    match PostgresStore::open(pooler.options(&place)).await {
        Err(StoreError::Unusable(why)) => assert!(why.contains("does not keep sessions"), "{why}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it is opened"),
    }
    let mut raw = place.raw().await;
    let text = "SELECT count(*) FROM pg_namespace WHERE nspname = $1";
    assert_eq!(sqlx::query_scalar::<_, i64>(text).bind(place.options().schema).fetch_one(&mut raw).await.unwrap(), 0);
}
