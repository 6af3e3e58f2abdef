//! The data folder: one server's alone, and nobody else's to look into.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use sqlx::Connection as _;

use crate::server::{Server, database, folder, log, program, raw, refusal, refusal_by, sleep, trine, until, until_said, with};

#[tokio::test]
async fn a_second_server_does_not_get_it_whatever_its_database_is() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    // What the jobs of the first one write is there as long as they run.
    let scratch = folder.path().join("data/commands/a-job");
    std::fs::create_dir_all(&scratch).unwrap();
    let other = format!("sqlite:{}", folder.path().join("other.db").display());
    // Its database would be reached later: whose it is does not matter.
    for database in [&*other, "postgres://nobody@localhost/nothing?host=/nowhere"] {
        let said = refusal(folder.path(), &[("TRINE_DATABASE", database)]).await;
        assert!(said.contains("another server has the data folder"), "{said}");
    }
    assert!(scratch.exists());
    // It is free as soon as the first one is gone.
    server.crash();
    Server::start(folder.path(), &[("TRINE_DATABASE", &other)]).await;
    assert!(!scratch.exists());
}

#[tokio::test]
async fn a_database_that_can_not_be_written_is_named_and_left_as_it_is() {
    // Only root may mount, and in a place that is gone with the server.
    let by = |script: &str, place: &Path| {
        let mut command = program("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(place).arg(trine().get_program());
        command
    };
    let read_only = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@""#;
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    server.stop();
    let path = database(folder.path());
    let beside = || ["-wal", "-shm"].map(|suffix| Path::new(&format!("{}{suffix}", path.display())).exists());
    assert_eq!(beside(), [false; 2]);
    let said = refusal_by(by(read_only, &path), folder.path(), &[]).await;
    assert!(said.contains(&format!("{} can't be read and written: Read-only file system", path.display())), "{said}");
    assert_eq!(beside(), [false; 2]);

    let small = r#"mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@""#;
    let said = refusal_by(by(small, &folder.path().join("data")), folder.path(), &[]).await;
    assert!(said.contains(&format!("there is no room where {} is", path.display())), "{said}");
    let few_files = r#"ulimit -n 17 && exec "$@""#;
    let said = refusal_by(by(few_files, &path), folder.path(), &[]).await;
    assert!(said.contains(&path.display().to_string()) && said.contains("ulimit -n"), "{said}");
}

/// Everything below a folder that others than its owner may do something with, links left out.
fn open_to_others(folder: &Path) -> Vec<String> {
    let found = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    found
        .flat_map(|entry| {
            let below = if entry.file_type().unwrap().is_dir() { open_to_others(&entry.path()) } else { Vec::new() };
            let mode = entry.metadata().unwrap().permissions().mode();
            let is_link = entry.file_type().unwrap().is_symlink();
            let own = (mode & 0o077 != 0 && !is_link).then(|| format!("{} {mode:o}", entry.path().display()));
            own.into_iter().chain(below)
        })
        .collect()
}

#[tokio::test]
async fn what_is_in_it_is_for_its_user_alone() {
    let folder = folder();
    let data = folder.path().join("data");
    let key = ["keys", "create", "admin", "--scopes", "admin", "--database"];
    let made = trine().args(key).arg(format!("sqlite:{}", database(folder.path()).display())).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    assert_eq!((open_to_others(&data), data.metadata().unwrap().permissions().mode() & 0o777), (vec![], 0o700));
    let server = Server::start(folder.path(), &[("TRINE_KEYS", "off")]).await;
    let source = "import trine\ndef main():\n    (trine.artifacts() / 'left').write_text('x')\n    return 1\n";
    let python = json!({ "bound": "cpu", "executor": "processes", "workload": { "type": "python", "source": source } });
    assert_eq!(server.ended(&python).await["output"], 1);
    server.stop();
    assert_eq!(open_to_others(&data), [""; 0]);
    let log = || log(folder.path());
    assert!(!log().contains("chmod"), "{}", log());
    // One that is open already stays as the operator has it, who is told.
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let _server = Server::start(folder.path(), &[("TRINE_KEYS", "off")]).await;
    until_said(folder.path(), "other users of this machine can look into the data folder").await;
}

/// A project that is installed in its virtual environment in editable form, and whose folder the server is started in.
#[tokio::test]
async fn one_that_an_interpreter_reads_is_a_gap_in_the_sandbox() {
    let project = folder();
    let environment = project.path().join("environment");
    let made = Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&environment).status().unwrap();
    assert!(made.success());
    let library = std::fs::read_dir(environment.join("lib")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(library.join("site-packages/project.pth"), project.path().to_str().unwrap()).unwrap();
    std::fs::write(project.path().join("trine.toml"), "async_slots = 5\n").unwrap();
    let interpreter = format!("project={}", environment.join("bin/python").display());
    let settings = [("TRINE_PYTHON_INTERPRETERS", &*interpreter)];
    let server = Server::start(project.path(), &settings).await;
    let said = server.get("/executors").await["sandbox"]["kernel"]["missing"].to_string();
    drop(server);
    let refused = refusal(project.path(), &[settings[0], ("TRINE_SANDBOX", "required")]).await;
    let log = log(project.path());
    for what in ["data folder", "database", "settings file", "folder of artifacts", "workspace"] {
        let told = |said: &str| said.contains(&format!("the {what} ")) && said.contains("that the Python interpreter");
        assert!(told(&said) && told(&refused) && told(&log), "{what}: {said} {refused} {log}");
    }
}

#[tokio::test]
async fn a_server_whose_files_are_taken_away_takes_nothing_new() {
    for file in ["data/server.lock", "data/trine.db"] {
        let folder = folder();
        // It hands nobody over: whoever is not refused yet would lose what it submits.
        let mut server = Server::start(folder.path(), &[("TRINE_HANDOVER_MS", "3600000")]).await;
        std::fs::rename(folder.path().join(file), folder.path().join("elsewhere")).unwrap();
        until("it stops", async || (!server.runs()).then_some(())).await;
        assert_eq!(server.wait().code(), Some(1));
        let log = log(folder.path());
        assert!(log.contains(&format!("{file} was removed or replaced: ")) && log.contains("shut down"), "{log}");
    }
}

/// A start that fails takes nothing on, so that nothing counts as lost by it.
#[tokio::test]
async fn a_start_that_fails_costs_no_job_an_attempt() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(server.submit(&with(sleep(1), json!({ "delay_ms": 3_600_000 }))).await);
    }
    server.stop();
    // Their time comes while no server is there.
    let mut raw = raw(&database(folder.path())).await;
    sqlx::query("UPDATE jobs SET due_at = 1").execute(&mut raw).await.unwrap();
    raw.close().await.unwrap();
    let secret = folder.path().join("data/webhook.secret");
    let good = std::fs::read(&secret).unwrap();
    std::fs::write(&secret, "damaged").unwrap();
    for _ in 0..4 {
        let said = refusal(folder.path(), &[]).await;
        assert!(said.contains("webhook.secret"), "{said}");
    }
    std::fs::write(&secret, good).unwrap();
    let server = Server::start(folder.path(), &[]).await;
    for id in ids {
        let job = server.until_ended(&id).await;
        assert_eq!((&job["state"], &job["attempt"], &job["losses"]), (&json!("succeeded"), &json!(1), &json!(0)), "{job}");
    }
}

/// What happened by a clock that has been set back is later than all that is asked for.
#[tokio::test]
async fn all_that_wait_are_cancelled_by_a_clock_that_was_set_back() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    server.ended(&sleep(1)).await;
    server.stop();
    let mut raw = raw(&database(folder.path())).await;
    sqlx::query("UPDATE results SET finished_at = finished_at + 86400000000").execute(&mut raw).await.unwrap();
    raw.close().await.unwrap();
    let server = Server::start(folder.path(), &[]).await;
    let id = server.submit(&with(sleep(1), json!({ "delay_ms": 3_600_000 }))).await;
    let answer = server.client.post(format!("{}/jobs/cancel", server.url)).json(&json!({"all": true})).send().await.unwrap();
    assert_eq!(answer.json::<serde_json::Value>().await.unwrap(), json!({"cancelled": 1, "stopping": 0}));
    assert_eq!(server.get(&format!("/jobs/{id}")).await["state"], "cancelled");
}
