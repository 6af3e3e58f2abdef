//! One version after the other on the same data.

use std::process::Stdio;

use sqlx::{Connection, SqliteConnection};

use crate::server::{Server, database, folder, trine};

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_and_left_alone() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &[]).await;
    server.signal(nix::sys::signal::Signal::SIGTERM);
    server.wait();
    let path = database(folder.path());
    let mut raw = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    let text = "INSERT INTO _sqlx_migrations VALUES (9999, 'from the future', CURRENT_TIMESTAMP, true, x'00', 0)";
    sqlx::query(text).execute(&mut raw).await.unwrap();
    raw.close().await.unwrap();
    let before = std::fs::read(&path).unwrap();
    let output = trine()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path().join("data"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("schema version 9999") && said.contains("use a newer trine"), "{said}");
    assert!(said.contains(&path.display().to_string()), "{said}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
