//! One version after the other on the same data.

use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::cluster::Cluster;
use crate::load::Load;
use crate::server::{Server, database, folder, raw, refusal, until};

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_and_left_alone() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    server.stop();
    let path = database(folder.path());
    let mut raw = raw(&path).await;
    let text = "INSERT INTO _sqlx_migrations VALUES (9999, 'from the future', CURRENT_TIMESTAMP, true, x'00', 0)";
    sqlx::query(text).execute(&mut raw).await.unwrap();
    raw.close().await.unwrap();
    let before = std::fs::read(&path).unwrap();
    let said = refusal(folder.path(), &[]).await;
    assert!(said.contains("schema version 9999") && said.contains("use a newer trine"), "{said}");
    assert!(said.contains(&path.display().to_string()), "{said}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// What a newer version does to a database that older servers can go on with: columns with defaults, a table, and something of its own in the
/// row that all go by.
const NEWER: &str = r#"
BEGIN;
SELECT 1 FROM shared FOR UPDATE;
ALTER TABLE jobs ADD COLUMN added BIGINT NOT NULL DEFAULT 7;
ALTER TABLE work ADD COLUMN added BIGINT NOT NULL DEFAULT 7;
ALTER TABLE results ADD COLUMN added BIGINT NOT NULL DEFAULT 7;
CREATE TABLE added (id BIGINT NOT NULL PRIMARY KEY);
UPDATE shared SET state = (state::JSONB || '{"added": {"by": "99.1.0"}}')::TEXT;
INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'newer', true, '\x00', 1);
INSERT INTO nodes (name, version, role, labels, expires_at, knows)
    VALUES ('newer', '99.1.0', 'all', '{}', clock_timestamp() + INTERVAL '1 hour', 9999);
COMMIT;
"#;

async fn number(raw: &mut PgConnection, text: &'static str) -> i64 {
    sqlx::query_scalar(text).fetch_one(raw).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_go_on_while_a_newer_version_comes_and_one_of_them_starts_anew() {
    let cluster = Cluster::of(3).await;
    let (stays, goes) = (cluster.start(0).await, cluster.start(1).await);
    let mut raw = cluster.raw().await;
    let (load, mut clients) = Load::start(&stays.url, &[1, 20]);
    load.reach(200).await;
    raw.execute(NEWER).await.unwrap();
    load.reach(400).await;
    // One that starts again in the middle of it, or goes back.
    goes.stop();
    let comes = cluster.start(2).await;
    let here = load.accepted.lock().await.len();
    load.reach(here + 200).await;
    load.end(&mut clients).await;
    load.check(&comes).await;
    let said = cluster.log(2);
    assert!(said.contains("a newer version has changed the schema") && said.contains("found=9999 known="), "{said}");
    // One whose lease ran out on a machine that stood still has a second row, until that is taken away.
    let expected = [env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_VERSION"), "99.1.0"];
    let seen = async || {
        let items = comes.get("/cluster").await["items"].clone();
        let mut versions: Vec<_> =
            items.as_array().unwrap().iter().map(|node| node["version"].as_str().unwrap().to_owned()).collect();
        versions.sort_unstable();
        (versions == expected).then_some(())
    };
    until("the nodes are seen that are there, and no other", seen).await;
    for server in [stays, comes] {
        server.stop();
    }
    let added: String =
        sqlx::query_scalar("SELECT state::JSON -> 'added' ->> 'by' FROM shared").fetch_one(&mut raw).await.unwrap();
    assert_eq!(added, "99.1.0");
    assert_eq!(number(&mut raw, "SELECT count(*) FROM results WHERE added <> 7").await, 0);

    // A change that older servers can't follow is not for this one.
    raw.execute("UPDATE shared SET oldest = 9999").await.unwrap();
    let said = cluster.refusal(0).await;
    assert!(
        said.contains("schema version 9999") && said.contains("versions up to") && said.contains("use a newer trine"),
        "{said}"
    );
}
