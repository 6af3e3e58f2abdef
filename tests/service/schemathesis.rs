//! The server and its OpenAPI document, held against each other by schemathesis: no request that it makes up gets a `5xx`, a status or a
//! body that the document does not tell of, or more rights than it should.

use std::path::Path;
use std::process::Command;

use regex::Regex;

use crate::server::{Server, folder, log, number, trine};

/// How many requests are made up for each operation, besides those at the limits of what it takes: `TRINE_EXAMPLES=150` is the long form.
/// They are the same each time; `TRINE_SEED=n` makes others.
const EXAMPLES: usize = 5;
/// How many requests there have to be in all, at least.
const REQUESTS: u64 = 5_000;

/// Runs it on a part of the operations; how many requests it made.
async fn run(part: &[&str], examples: usize) -> u64 {
    let folder = folder();
    let database = format!("sqlite:{}", folder.path().join("data/trine.db").display());
    let made = trine().args(["keys", "create", "tester", "--scopes", "admin", "--database", &database]).output().unwrap();
    let key = String::from_utf8(made.stdout).unwrap();
    // It can't get at anything but itself: no address may be reached, and Python has no network.
    let settings = [("TRINE_KEYS", "required"), ("TRINE_HTTP_DENY", "0.0.0.0/0,::/0")];
    let server = Server::start(folder.path(), &settings).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tester = Command::new(root.join("target/test-schemathesis/bin/st"));
    tester
        .arg("--config-file")
        .arg(root.join("tests/service/schemathesis.toml"))
        .args(["run", &format!("{}/openapi.json", server.url), "--header", &format!("Authorization: Bearer {}", key.trim())])
        .args(["--no-color", "--checks", "all", "--phases", "examples,coverage,fuzzing", "--max-examples", &examples.to_string()])
        .args(["--max-response-time", "90", "--suppress-health-check", "all"])
        .args(["--seed", &number("TRINE_SEED", 1).to_string()])
        .args(part)
        .env("SCHEMATHESIS_HOOKS", "schemathesis_hooks")
        .env("PYTHONPATH", root.join("tests/service"))
        .current_dir(folder.path());
    let said = tokio::task::spawn_blocking(move || tester.output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success(), "{text}\n{}", String::from_utf8_lossy(&said.stderr));
    let log = log(folder.path());
    assert!(!log.contains("panicked"), "{log}");
    let generated = Regex::new(r"(\d+) generated").unwrap();
    generated.captures(&text).unwrap_or_else(|| panic!("{text}"))[1].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_at_random_find_the_server_as_its_document_describes_it() {
    let examples = number("TRINE_EXAMPLES", EXAMPLES);
    let most = run(&["--exclude-path-regex", "^/keys/"], examples).await;
    // Whoever may do everything with keys takes its own away; so that comes apart from all else, and last.
    let keys = run(&["--include-path-regex", "^/keys/"], examples.div_ceil(4)).await;
    println!("{} requests", most + keys);
    assert!(most + keys >= REQUESTS, "only {} requests", most + keys);
}
