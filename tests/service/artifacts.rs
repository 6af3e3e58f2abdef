//! Files that jobs leave behind.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::header::{
    AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE,
    X_CONTENT_TYPE_OPTIONS,
};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::commands::{COMMANDS, script};
use crate::comparisons::{ask, until_state};
use crate::port::Port;
use crate::server::{Server, folder, program, sleep, trine, until, until_said, with};

fn python(executor: &str, body: &str) -> Value {
    let source = format!("import trine\ndef main(text='text'):\n    left = trine.artifacts()\n    {body}\n");
    json!({"bound": "io", "executor": executor, "workload": {"type": "python", "source": source}})
}

async fn succeeded(server: &Server, job: &Value) -> String {
    let job = server.ended(job).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    job["id"].as_str().unwrap().to_owned()
}

/// The names of what an attempt left, and what is in it.
async fn left(server: &Server, job: &str, query: &str) -> Vec<(String, String)> {
    let list = server.get(&format!("/jobs/{job}/artifacts{query}")).await;
    let mut found = Vec::new();
    for artifact in list["items"].as_array().unwrap() {
        let answer = server.client.get(format!("{}{}", server.url, artifact["href"].as_str().unwrap())).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.content_length(), artifact["bytes"].as_u64());
        found.push((artifact["name"].as_str().unwrap().to_owned(), answer.text().await.unwrap()));
    }
    found
}

/// Compares what a job runs: its tasks leave their files, of which none are kept.
async fn compared(folder: &Path, server: &Server, job: &Value, executors: &[&str]) {
    let kept = walk(&folder.join("data/artifacts"));
    let request = json!({"bound": "io", "workload": job["workload"], "tasks": 1, "concurrency": [1], "executors": executors, "budget_ms": 1_000});
    let ended = until_state(server, &ask(server, &request).await, "finished").await;
    assert!(ended["matrix"].as_array().unwrap().iter().all(|row| row["failures"] == 0), "{ended}");
    assert_eq!(walk(&folder.join("data/artifacts")), kept);
}

fn files(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
}

#[tokio::test]
async fn python_leaves_files_on_each_executor_and_each_job_its_own() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    for executor in ["async", "threads", "processes"] {
        let mut ids = Vec::new();
        for text in ["one", "two"] {
            let mut job = python(executor, "(left / 'dir').mkdir(); (left / 'dir' / 'a.txt').write_text(text)");
            job["workload"]["args"] = json!([text]);
            ids.push((server.submit(&job).await, text));
        }
        for (id, text) in ids {
            server.until_state(&id, "succeeded").await;
            assert_eq!(left(&server, &id, "").await, files(&[("dir/a.txt", text)]), "{executor}");
        }
        let none = succeeded(&server, &python(executor, "pass")).await;
        assert_eq!(left(&server, &none, "").await, []);
    }
    compared(folder.path(), &server, &python("async", "(left / 'a').write_text(text)"), &["async", "processes"]).await;
    // What was kept, or was a comparison's, is not in the scratch folders of the hosts any more.
    let scratch = folder.path().join("data/python/scratch");
    until("the files go from the scratch folders", async || walk(&scratch).is_empty().then_some(())).await;
}

#[tokio::test]
async fn an_attempt_that_fails_leaves_its_files_too() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let mut job = python("processes", "(left / 'n').write_text(str(trine.attempt())); 1 / (trine.attempt() - 2)\n    1 / 0");
    job["retry"] = json!({"attempts": 3, "backoff_ms": 1});
    let job = server.ended(&job).await;
    assert_eq!((&job["state"], &job["attempt"]), (&json!("failed"), &json!(3)));
    let id = job["id"].as_str().unwrap();
    assert_eq!(left(&server, id, "").await, files(&[("n", "3")]));
    for n in ["1", "2"] {
        assert_eq!(left(&server, id, &format!("?attempt={n}")).await, files(&[("n", n)]));
    }
}

#[tokio::test]
async fn a_command_leaves_files() {
    let folder = folder();
    std::fs::write(folder.path().join("trine.toml"), COMMANDS).unwrap();
    let server = Server::start(folder.path(), &[]).await;
    let id = succeeded(&server, &script("cd $TRINE_ARTIFACT_FOLDER && echo 1 > a && ln -s /etc/passwd b && mkfifo c")).await;
    assert_eq!(left(&server, &id, "").await, files(&[("a", "1\n")]));
    let id = succeeded(&server, &script("echo 2 > artifacts/a")).await;
    assert_eq!(left(&server, &id, "").await, files(&[("a", "2\n")]));
    compared(folder.path(), &server, &script("echo 4 > artifacts/a"), &["processes"]).await;
    let failed = server.ended(&script("echo 3 > artifacts/a; exit 3")).await;
    assert_eq!(failed["state"], "failed");
    assert_eq!(left(&server, failed["id"].as_str().unwrap(), "").await, files(&[("a", "3\n")]));
    // A folder in the place of which there is something else costs the job its success, and nobody else anything.
    let failed = server.ended(&script("rmdir artifacts; ln -s / artifacts")).await;
    assert!(failed["error"]["message"].as_str().unwrap().contains("its artifacts can't be kept"), "{failed}");
}

#[tokio::test]
async fn there_is_a_limit() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_ARTIFACT_BYTES", "1000")]).await;
    let failed = server.ended(&python("processes", "(left / 'a').write_bytes(bytes(1001))")).await;
    assert_eq!(failed["state"], "failed");
    let message = failed["error"]["message"].as_str().unwrap();
    assert_eq!(message, "its artifacts can't be kept: they are longer than the 1000 bytes that an attempt may leave");
    assert_eq!(left(&server, failed["id"].as_str().unwrap(), "").await, []);
    succeeded(&server, &python("processes", "(left / 'a').write_bytes(bytes(1000))")).await;
}

#[tokio::test]
async fn what_another_job_does_to_their_host_is_nothing_to_files_that_were_left() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    // The host is killed as soon as the second one is stopped, which holds the loop.
    let leaves = python("async", "[(left / str(n)).write_bytes(bytes(500_000)) for n in range(300)]");
    let holds = json!({"bound": "io", "executor": "async", "deadline_ms": 100, "workload": {
        "type": "python", "source": "def main():\n    while True: pass\n"}});
    for _ in 0..3 {
        let first = server.submit(&leaves).await;
        let second = server.submit(&holds).await;
        server.until_ended(&second).await;
        let job = server.until_ended(&first).await;
        // Either it had not ended when its host was, or all of its files are there.
        if job["state"] == "succeeded" {
            let list = server.get(&format!("/jobs/{first}/artifacts")).await;
            assert_eq!(list["items"].as_array().unwrap().len(), 300);
        } else {
            assert!(job["error"]["message"].as_str().unwrap().contains("the Python process"), "{job}");
        }
    }
}

#[tokio::test]
async fn a_job_that_is_stopped_leaves_nothing() {
    let folder = folder();
    std::fs::write(folder.path().join("trine.toml"), COMMANDS).unwrap();
    let server = Server::start(folder.path(), &[]).await;
    let mut python = python("processes", "(left / 'a').touch(); open('/proc/self/status').read()\n    while True: pass");
    python["deadline_ms"] = json!(300);
    let command = with(script("echo > artifacts/a; while true; do true; done"), json!({ "deadline_ms": 300 }));
    for job in [python, command] {
        let job = server.ended(&job).await;
        assert_eq!((&job["state"], &job["error"]["kind"]), (&json!("failed"), &json!("timeout")), "{job}");
        assert_eq!(left(&server, job["id"].as_str().unwrap(), "").await, []);
    }
    assert_eq!(walk(&folder.path().join("data/artifacts")), [""; 0]);
}

#[tokio::test]
async fn a_file_is_had_whole_or_in_part_and_never_shown_as_a_page() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let id = succeeded(&server, &python("async", "(left / 'ä.html').write_text('<script>0123456789')")).await;
    let get = async |name: &str, range: Option<&str>| {
        let request = server.client.get(format!("{}/jobs/{id}/artifacts/{name}", server.url));
        range.into_iter().fold(request, |request, range| request.header(RANGE, range)).send().await.unwrap()
    };
    let whole = get("%C3%A4.html", None).await;
    assert_eq!(whole.status(), 200);
    assert_eq!(whole.headers()[CONTENT_TYPE], "application/octet-stream");
    assert_eq!(whole.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert_eq!(whole.headers()[CONTENT_DISPOSITION], "attachment; filename*=UTF-8''%C3%A4%2Ehtml");
    for (range, status, place, content) in [
        ("bytes=8-11", 206, Some("bytes 8-11/18"), "0123"),
        ("bytes=-2", 206, Some("bytes 16-17/18"), "89"),
        ("bytes=16-", 206, Some("bytes 16-17/18"), "89"),
        ("bytes=0-1,4-5", 200, None, "<script>0123456789"),
    ] {
        let answer = get("%C3%A4.html", Some(range)).await;
        assert_eq!(answer.status(), status, "{range}");
        assert_eq!(answer.headers().get(CONTENT_RANGE).map(|place| place.to_str().unwrap()), place);
        assert_eq!(answer.text().await.unwrap(), content);
    }
    for (name, range, status, kind) in [
        ("%C3%A4.html", Some("bytes=18-"), 416, "/problems/range-not-satisfiable"),
        ("other", None, 404, "/problems/unknown-artifact"),
        ("%C3%A4.html%2Fx", None, 404, "/problems/unknown-artifact"),
        ("..%2F..%2Ftrine.db", None, 404, "/problems/unknown-artifact"),
        ("%FF", None, 404, "/problems/unknown-job"),
    ] {
        let answer = get(name, range).await;
        assert_eq!(answer.status(), status, "{name}");
        let place = answer.headers().get(CONTENT_RANGE).map(|place| place.to_str().unwrap());
        assert_eq!(place, (status == 416).then_some("bytes */18"), "{name}");
        assert_eq!(answer.json::<Value>().await.unwrap()["type"], kind, "{name}");
    }
}

#[tokio::test]
async fn an_attempt_that_runs_again_after_a_crash_has_the_files_of_its_second_run_alone() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let holds = server.submit(&sleep(600_000)).await;
    let mut waits = python("processes", "(left / 'second').write_text('2')");
    waits["after"] = json!([{"job": holds, "on_failure": "run"}]);
    let leaves = server.submit(&waits).await;
    waits["workload"]["source"] = json!("def main():\n    return 1\n");
    let leaves_none = server.submit(&waits).await;
    // What a first run has left, of which no end was recorded: its folder is beside that of another job.
    let other = succeeded(&server, &python("processes", "(left / 'first').write_text('1')")).await;
    let kept = walk(&folder.path().join("data/artifacts"));
    assert_eq!(kept.len(), 1);
    for id in [&leaves, &leaves_none] {
        let first = PathBuf::from(kept[0].replace(&other, id));
        std::fs::create_dir_all(first.parent().unwrap()).unwrap();
        std::fs::copy(&kept[0], first).unwrap();
        assert_eq!(left(&server, id, "?attempt=1").await, files(&[("first", "1")]));
    }
    server.crash();

    let server = Server::start(folder.path(), &[]).await;
    server.cancel(&holds).await;
    for (id, expected) in [(&leaves, files(&[("second", "2")])), (&leaves_none, files(&[]))] {
        assert_eq!(server.until_state(id, "succeeded").await["attempt"], 1);
        assert_eq!(left(&server, id, "").await, expected);
    }
    assert_eq!(left(&server, &other, "").await, files(&[("first", "1")]));
}

#[tokio::test]
async fn who_goes_on_with_a_file_gets_all_of_the_one_that_took_its_place() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let id = succeeded(&server, &python("async", "(left / 'a').write_text(str(trine.attempt()) * 9)")).await;
    let url = format!("{}/jobs/{id}/artifacts/a", server.url);
    let rest = async |of: &str| {
        let answer = server.client.get(&url).header(RANGE, "bytes=4-").header(IF_RANGE, of).send().await.unwrap();
        let etag = answer.headers()[ETAG].to_str().unwrap().to_owned();
        (answer.status().as_u16(), etag, answer.text().await.unwrap())
    };
    let whole = server.client.get(&url).send().await.unwrap();
    let first = whole.headers()[ETAG].to_str().unwrap().to_owned();
    assert_eq!(rest(&first).await, (206, first.clone(), "11111".into()));
    // Neither a weak tag nor a date proves that it is the same.
    for other in [&format!("W/{first}"), "Sat, 31 Jan 2026 12:00:00 GMT"] {
        assert_eq!(rest(other).await, (200, first.clone(), "111111111".into()));
    }
    // What is there already is not sent again, and of what is not sent at all there are no parts.
    let known = server.client.get(&url).header(RANGE, "bytes=4-").header(IF_NONE_MATCH, &first).send().await.unwrap();
    assert_eq!((known.status().as_u16(), known.headers()[ETAG].to_str().unwrap()), (304, first.as_str()));
    let head = server.client.head(&url).header(RANGE, "bytes=4-").send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.headers()[CONTENT_LENGTH].to_str().unwrap()), (200, "9"));
    let again = server.client.post(format!("{}/jobs/{id}/retry", server.url)).send().await.unwrap();
    assert_eq!(again.status(), 202);
    server.until_state(&id, "succeeded").await;
    let (status, second, text) = rest(&first).await;
    assert_eq!((status, text.as_str()), (200, "222222222"));
    assert_ne!(second, first);
}

#[tokio::test]
async fn they_go_with_their_job() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let leave = python("threads", "(left / 'a').write_text('a')");
    let (first, second) = (succeeded(&server, &leave).await, succeeded(&server, &leave).await);
    let there = |id: &str| walk(&folder.path().join("data/artifacts")).iter().any(|path| path.contains(id));
    assert!(there(&first) && there(&second));
    let removed = server.client.delete(format!("{}/results/{first}", server.url)).send().await.unwrap();
    assert_eq!(removed.status(), 204);
    assert!(!there(&first) && there(&second));
    drop(server);

    let server = Server::start(folder.path(), &[("TRINE_RETENTION_AGE", "1ms")]).await;
    let status = async || server.client.get(format!("{}/jobs/{second}", server.url)).send().await.unwrap().status();
    until("the job is removed", async || (status().await == 404).then_some(())).await;
    drop(server);
    // A server looks for such files as it starts.
    let _server = Server::start(folder.path(), &[]).await;
    until("the artifacts of a job that was removed go", async || (!there(&second)).then_some(())).await;
}

fn walk(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { vec![entry.path().display().to_string()] })
        .collect()
}

#[tokio::test]
async fn the_command_line_shows_and_saves_them() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let id = succeeded(
        &server,
        &python("async", "(left / 'd').mkdir(); (left / 'd/x y').write_text('1'); (left / 'b').write_text('22')"),
    )
    .await;
    let run = |arguments: &[&str]| {
        let output = trine().args(["artifacts", "--server", &server.url, &id]).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, shown, _) = run(&[]);
    assert_eq!(code, Some(0));
    let names: Vec<_> = shown.lines().map(|line| line.split("  ").next().unwrap()).collect();
    assert_eq!(names, ["NAME", "b", "d/x y"], "{shown}");
    let into = folder.path().join("saved");
    let into = into.to_str().unwrap();
    assert_eq!(run(&["--save", into]).0, Some(0));
    assert_eq!(std::fs::read_to_string(format!("{into}/d/x y")).unwrap(), "1");
    let (_, shown, _) = run(&["--save", into, "--json", "b"]);
    let saved: Value = serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{error}: {shown}"));
    assert_eq!(saved["name"], "b");
    // The command is right: it is the job that has left no such file.
    let (code, _, said) = run(&["--save", into, "nothing"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("nothing"), "{said}");
    assert_eq!(walk(Path::new(into)).len(), 2);
}

/// A storage that speaks S3's protocol. It ends with this value.
struct Storage {
    process: Child,
    port: Port,
}

impl Storage {
    async fn start(bucket: &str) -> Self {
        let port = Port::free();
        let server = concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-moto/bin/moto_server");
        let mut command = program(server);
        command.args(["-H", "127.0.0.1", "-p", &port.number.to_string()]);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let storage = Self { process: process.expect("moto_server: see scripts/install-test-deps.sh"), port };
        let client = crate::server::client();
        let make = async || client.put(format!("{}/{bucket}", storage.url())).send().await.ok();
        until("the storage answers", make).await;
        storage
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number)
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Who may change what a server has stored: the storage does not look at signatures.
const SOMEBODY: &str = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// What servers are told of a storage at `url`.
fn stored_at(url: &str) -> [(&str, &str); 6] {
    [
        ("TRINE_ARTIFACTS", "s3://kept/of/trine"),
        ("AWS_ENDPOINT", url),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ]
}

#[tokio::test]
async fn nodes_share_them_in_a_storage() {
    let (cluster, storage) = (Cluster::of(2).await, Storage::start("kept").await);
    let url = storage.url();
    let settings = stored_at(&url);
    let one = cluster.start_with(0, &[&settings[..], &[("TRINE_NODE", "one")]].concat()).await;
    let two = cluster.start_with(1, &settings).await;
    // Longer than a part.
    let mut job = python(
        "processes",
        "(left / 'd').mkdir(); (left / 'd' / 'long').write_text('0123456789' * 1_000_000); (left / 'C:').touch()",
    );
    job["requires"] = json!({"node": "one"});
    let id = succeeded(&one, &job).await;
    let found = left(&two, &id, "").await;
    assert_eq!(
        found.iter().map(|(name, content)| (&**name, content.len())).collect::<Vec<_>>(),
        [("C:", 0), ("d/long", 10_000_000)]
    );
    let part =
        two.client.get(format!("{}/jobs/{id}/artifacts/d%2Flong", two.url)).header(RANGE, "bytes=9999995-").send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.text().await.unwrap()), (206, "56789".to_owned()));
    let removed = two.client.delete(format!("{}/results/{id}", two.url)).send().await.unwrap();
    assert_eq!(removed.status(), 204);
    let listed = crate::server::client().get(format!("{url}/kept?list-type=2")).send().await.unwrap().text().await.unwrap();
    assert!(listed.contains("<KeyCount>0</KeyCount>"), "{listed}");
}

#[tokio::test]
async fn files_of_the_same_second_and_length_are_told_apart_in_a_storage() {
    let (folder, storage) = (folder(), Storage::start("kept").await);
    let (url, client) = (storage.url(), crate::server::client());
    let server = Server::start(folder.path(), &stored_at(&url)).await;
    let id = succeeded(&server, &python("threads", "(left / 'a').write_text('0')")).await;
    let listed = client.get(format!("{url}/kept?list-type=2")).send().await.unwrap().text().await.unwrap();
    let key = listed.split_once("<Key>").and_then(|(_, rest)| rest.split_once("</Key>")).unwrap().0;
    // As an attempt does that has the number of one that was handed back.
    let replaced = async |content: &'static str| {
        let put = client.put(format!("{url}/kept/{key}")).header(AUTHORIZATION, SOMEBODY).body(content);
        assert!(put.send().await.unwrap().status().is_success());
        let list = server.get(&format!("/jobs/{id}/artifacts")).await;
        let file = server.client.get(format!("{}/jobs/{id}/artifacts/a", server.url)).send().await.unwrap();
        let etag = file.headers()[ETAG].to_str().unwrap().to_owned();
        assert_eq!(file.text().await.unwrap(), content);
        (list["items"][0]["kept_at"].clone(), etag)
    };
    let in_one_second = async || {
        let ((first_at, first), (second_at, second)) = (replaced("1").await, replaced("2").await);
        (first_at == second_at).then_some((first, second))
    };
    let (first, second) = until("there are two files in one second", in_one_second).await;
    assert_ne!(first, second);
    let of = async |etag: &str| {
        let get = server.client.get(format!("{}/jobs/{id}/artifacts/a", server.url));
        get.header(RANGE, "bytes=0-0").header(IF_RANGE, etag).send().await.unwrap().status().as_u16()
    };
    assert_eq!((of(&second).await, of(&first).await), (206, 200));
}

#[tokio::test]
async fn a_storage_that_says_nothing_keeps_nobody_waiting_for_long() {
    let (folder, storage) = (folder(), Storage::start("kept").await);
    let url = storage.url();
    let server = Server::start(folder.path(), &stored_at(&url)).await;
    let id = succeeded(&server, &python("threads", "(left / 'a').write_text('0')")).await;
    let process = Pid::from_raw(storage.process.id().try_into().unwrap());
    kill(process, Signal::SIGSTOP).unwrap();
    let get = async |path: &str| {
        let get = server.client.get(format!("{}/jobs/{id}/artifacts{path}", server.url)).header(RANGE, "bytes=0-0");
        let answer = tokio::time::timeout(Duration::from_secs(30), get.send()).await.expect("an answer").unwrap();
        answer.status().as_u16()
    };
    let (list, file) = tokio::join!(get(""), get("/a"));
    assert_eq!((list, file), (503, 503));
    kill(process, Signal::SIGCONT).unwrap();
    assert_eq!(get("/a").await, 206);
}

#[tokio::test]
async fn a_storage_that_is_away_fails_what_needs_it_and_nothing_else() {
    let folder = folder();
    let nobody = Port::free();
    let url = format!("http://127.0.0.1:{}", nobody.number);
    let server = Server::start(folder.path(), &stored_at(&url)).await;
    let leaves = python("threads", "(left / 'a').touch()");
    let leaves_none = json!({"bound": "io", "workload": {"type": "python", "source": "def main(): return 1\n"}});
    let (failed, none) = tokio::join!(server.ended(&leaves), server.ended(&leaves_none));
    assert_eq!(none["state"], "succeeded");
    assert!(failed["error"]["message"].as_str().unwrap().starts_with("its artifacts can't be kept: "), "{failed}");
    let path = format!("{}/jobs/{}/artifacts", server.url, failed["id"].as_str().unwrap());
    let answer = server.client.get(path).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["detail"], "the storage of artifacts is not available now");
    until_said(folder.path(), "the storage of artifacts can't be used: jobs that leave files fail while it is so").await;
}
