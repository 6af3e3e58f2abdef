//! Keys from the command line, and a server that does not start without.

use std::process::{Output, Stdio};

use sqlx::Connection as _;

use crate::postgres::Postgres;
use crate::server::{Server, database, folder, log, refusal, trine};

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    trine().args(arguments).envs(variables.iter().copied()).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What a command prints, which must succeed.
fn printed(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = run(arguments, variables);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_others_reach_starts_with_a_key_only() {
    let folder = folder();
    let url = format!("sqlite:{}", database(folder.path()).display());
    let said = refusal(folder.path(), &[("TRINE_LISTEN", "0.0.0.0:0")]).await;
    assert!(
        said.contains(&format!("trine keys create admin --scopes admin --database {url}")) && said.contains("--keys off"),
        "{said}"
    );
    // As it says: the first key is made where nobody has to be asked.
    let admin = printed(&["keys", "create", "admin", "--scopes", "admin", "--database", &url], &[]);
    assert!(admin.starts_with("trine_") && admin.lines().count() == 1);
    // A path where nothing is may be a slip of the pen.
    let elsewhere = folder.path().join("elsewhere.db").display().to_string();
    let made =
        || text(&run(&["keys", "create", "x", "--scopes", "admin", "--database", &format!("sqlite:{elsewhere}")], &[]).stderr);
    let said = format!("Made a new database at {elsewhere}");
    assert!(made().contains(&said) && !made().contains(&said));
    let server = Server::start(folder.path(), &[]).await;
    let by = |key: &str| server.client.get(format!("{}/jobs", server.url)).bearer_auth(key).send();
    assert_eq!(
        (by(&admin).await.unwrap().status(), by("x").await.unwrap().status()),
        (reqwest::StatusCode::OK, reqwest::StatusCode::UNAUTHORIZED)
    );
    // Where a server runs, it is asked; its database is its own.
    let refused = run(&["keys", "create", "x", "--scopes", "admin", "--database", &url], &[]);
    assert!(text(&refused.stderr).contains("another server has"), "{}", text(&refused.stderr));
    let at = [("TRINE_SERVER", server.url.as_str()), ("TRINE_KEY", admin.as_str())];
    let key = printed(&["keys", "create", "ci", "--scopes", "submit,read", "--expires-in-days", "30"], &at);
    let id = key.split('_').nth(1).unwrap();
    let with = [("TRINE_SERVER", server.url.as_str()), ("TRINE_KEY", key.as_str())];
    printed(&["submit", "sleep", "ms=0", "--bound", "io", "--wait"], &with);
    let compare = ["compare", "sleep", "ms=1", "--tasks", "2", "--concurrency", "1", "--executors", "async", "--budget", "1s"];
    assert!(printed(&compare, &with).contains("The page with charts"));
    assert!(text(&run(&["keys", "list"], &with).stderr).contains("does not have the scope admin"));
    // Who may not see how it ends is told what was accepted.
    let blind = printed(&["keys", "create", "blind", "--scopes", "submit"], &at);
    let blind = [("TRINE_SERVER", server.url.as_str()), ("TRINE_KEY", blind.as_str())];
    let accepted = run(&["submit", "sleep", "ms=0", "--bound", "io", "--wait"], &blind);
    let latest = printed(&["jobs", "--limit", "1", "--json"], &at);
    let latest: serde_json::Value = serde_json::from_str(&latest).unwrap();
    assert_eq!(accepted.status.code(), Some(1));
    assert!(text(&accepted.stdout).contains(latest["id"].as_str().unwrap()), "{}", text(&accepted.stderr));
    let refused = |key: &[(&str, &str)]| text(&run(&["jobs"], &[&at[..1], key].concat()).stderr);
    let none = refused(&[]);
    assert!(none.contains("There is no valid API key") && none.contains("TRINE_KEY or by --key"), "{none}");
    let malformed = refused(&[("TRINE_KEY", "canary")]);
    assert!(malformed.contains("malformed") && !malformed.contains("canary"), "{malformed}");
    let wrong = refused(&[("TRINE_KEY", "trine_0123456789ab_x")]);
    assert!(wrong.contains("There is no valid API key") && !wrong.contains("TRINE_KEY"), "{wrong}");
    let listed = printed(&["keys", "list"], &at);
    assert!(
        listed.contains(id) && listed.contains("submit,read") && !listed.contains(key.splitn(3, '_').nth(2).unwrap()),
        "{listed}"
    );
    assert!(printed(&["keys", "quota", id, "--queued", "7"], &at).contains('7'));
    let quota = printed(&["keys", "quota"], &with);
    let words: Vec<&str> = quota.lines().find(|line| line.starts_with("queued")).unwrap().split_whitespace().collect();
    assert_eq!(words, ["queued", "0", "7"], "{quota}");
    let new = printed(&["keys", "rotate", id, "--grace", "0"], &at);
    assert!(!run(&["jobs"], &with).status.success());
    let new_id = new.split('_').nth(1).unwrap();
    assert!(printed(&["keys", "revoke", new_id], &at).contains("revoked"));
    let audit = printed(&["keys", "audit", "--limit", "2000"], &at);
    assert!(audit.contains("revokeKey") && audit.contains(new_id) && audit.contains("createKey"), "{audit}");
    assert_eq!(printed(&["keys", "audit", "--limit", "2", "--json"], &at).lines().count(), 2);
    printed(&["health"], &at[..1]);
    // Nothing of a key is in the log or in the database.
    let log = log(folder.path());
    drop(server);
    let mut kept = std::fs::read(database(folder.path())).unwrap();
    kept.extend(std::fs::read(database(folder.path()).with_extension("db-wal")).unwrap_or_default());
    for key in [&admin, &key, &new] {
        let secret = key.splitn(3, '_').nth(2).unwrap().as_bytes();
        assert!(!log.as_bytes().windows(secret.len()).any(|part| part == secret), "the log has a key");
        assert!(!kept.windows(secret.len()).any(|part| part == secret), "the database has a key");
    }
    // With a key that is live it starts anywhere.
    let everywhere = Server::start(folder.path(), &[("TRINE_KEYS", "required")]).await;
    assert_eq!(everywhere.client.get(format!("{}/jobs", everywhere.url)).send().await.unwrap().status(), 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_can_have_it_otherwise() {
    let folder = folder();
    let said = refusal(folder.path(), &[("TRINE_KEYS", "required")]).await;
    assert!(said.contains("trine keys create"), "{said}");
    let url = format!("sqlite:{}", database(folder.path()).display());
    printed(&["keys", "create", "admin", "--scopes", "admin", "--database", &url], &[]);
    let server = Server::start(folder.path(), &[("TRINE_KEYS", "off")]).await;
    server.get("/jobs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_not_named_is_that_of_the_settings() {
    let folder = folder();
    let create = |variables: &[(&str, &str)]| printed(&["keys", "create", "k", "--scopes", "admin", "--database"], variables);
    let url = format!("sqlite:{}", database(folder.path()).display());
    let file = folder.path().join("settings.toml").display().to_string();
    std::fs::write(&file, format!("database = '{url}'")).unwrap();
    let data = folder.path().join("data").display().to_string();
    let keys =
        [("TRINE_DATABASE", url.as_str()), ("TRINE_CONFIG", &file), ("TRINE_DATA_DIR", &data)].map(|named| create(&[named]));
    let server = Server::start(folder.path(), &[]).await;
    for key in &keys {
        let answer = server.client.get(format!("{}/jobs", server.url)).bearer_auth(key).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
}

#[test]
fn a_key_that_a_server_would_refuse_is_not_made_in_its_database() {
    let folder = folder();
    let path = folder.path().join("new.db");
    let url = format!("sqlite:{}", path.display());
    let long = "x".repeat(65);
    let wrong: [(&[&str], &str); 5] = [
        (&[" "], "the name of a key must have 1 to 64 characters"),
        (&["a\nb"], "the name of a key must have 1 to 64 characters"),
        (&[&long], "the name of a key must have 1 to 64 characters"),
        (&["k", "--running", "0"], "--running: must be 1 to 1000000"),
        (&["k", "--per-minute", "0"], "--per-minute: must be 1 to 1000000000"),
    ];
    for (arguments, said) in wrong {
        let refused = run(&[&["keys", "create", "--scopes", "submit", "--database", &url], arguments].concat(), &[]);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        assert!(text(&refused.stderr).contains(said), "{}", text(&refused.stderr));
        assert!(!path.exists(), "{arguments:?}");
    }
}

#[tokio::test]
async fn the_password_of_a_database_is_on_no_command_line() {
    let folder = folder();
    let postgres = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let database = format!("postgres://trine:canary@localhost/postgres?host={}", postgres.folder());
    let there = [("TRINE_DATABASE", database.as_str()), ("TRINE_DATABASE_SCHEMA", "theirs")];
    let said = refusal(folder.path(), &[&there[..], &[("TRINE_LISTEN", "0.0.0.0:0")]].concat()).await;
    assert!(
        said.contains("`trine keys create admin --scopes admin --database`, which takes the URL from TRINE_DATABASE"),
        "{said}"
    );
    assert!(!said.contains("canary"), "{said}");
    printed(&["keys", "create", "admin", "--scopes", "admin", "--database"], &there);
    let mut raw = sqlx::PgConnection::connect(&database).await.unwrap();
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM theirs.keys").fetch_one(&mut raw).await.unwrap();
    assert_eq!(kept, 1);
}
