//! Requests that ask for too much.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::access::with_key;
use super::{PATIENCE, Send as _, Server, sleep, with};

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(0), |inner, _| json!([inner]))
}

#[tokio::test]
async fn json_is_not_nested_without_end() {
    let server = Server::start().await;
    let job = |depth| {
        let workload = json!({ "type": "python", "source": "def main(x): pass", "args": [nested(depth)] });
        json!({ "bound": "io", "workload": workload })
    };
    assert_eq!(server.post("/jobs", &job(90)).await.status, 202);
    assert_eq!(server.post("/jobs", &job(110)).await.problem(422).1.as_deref(), Some("/workload"));
    let batch = json!([sleep(0), job(110)]);
    assert_eq!(server.post("/jobs/batch", &batch).await.problem(422), ("invalid-job".to_owned(), Some("/1/workload".to_owned())));
    let comparison = json!({ "bound": "io", "workload": job(110)["workload"] });
    assert_eq!(server.post("/comparisons", &comparison).await.problem(422).1.as_deref(), Some("/workload"));
    // Megabytes of brackets cost no stack.
    let brackets = "[".repeat(4 << 20);
    for text in [brackets.clone(), format!("{{\"bound\":\"io\",\"workload\":{brackets}")] {
        for path in ["/jobs", "/jobs/batch"] {
            let request = server.request(Method::POST, path).header("Content-Type", "application/json").body(text.clone());
            assert!(request.answer().await.status.is_client_error());
        }
    }
    assert_eq!(server.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn urls_have_an_end() {
    let server = Server::start().await;
    assert_eq!(server.get(&format!("/jobs?tag=a:{}", "x".repeat(1_000))).await.status, 200);
    assert_eq!(server.get(&format!("/jobs?tag=a:{}", "x".repeat(9_000))).await.problem(414).0, "uri-too-long");
    assert_eq!(server.get(&format!("/jobs/{}", "x".repeat(9_000))).await.problem(414).0, "uri-too-long");
    // Beyond that nothing is looked at.
    let address = server.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(format!("GET /{} HTTP/1.1\r\nHost: t\r\n\r\n", "x".repeat(1 << 20)).as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 414") || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn a_body_for_which_there_is_no_memory_is_refused_for_the_moment() {
    let server = Server::start_with(&["--max-body-memory-bytes", "100000", "--max-body-bytes", "100000"]).await;
    let post = || {
        let body = sleep(0).to_string() + &" ".repeat(60_000);
        server.request(Method::POST, "/jobs").header("Content-Type", "application/json").body(body)
    };
    let head = "POST /jobs HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n";
    let unfinished = head.to_owned() + &" ".repeat(50_000);
    // What is refused, and what is taken or broken off, gives its part back.
    for _ in 0..3 {
        // If the other one comes first, it is this one that has no room, and has to come again.
        let blocked = async || {
            let mut slow = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
            slow.write_all(unfinished.as_bytes()).await.unwrap();
            Some(post().answer().await).filter(|answer| answer.status != 202)
        };
        let refused = server.until(blocked).await;
        assert_eq!((refused.problem(503).0.as_str(), refused.header("retry-after")), ("unavailable", "2"));
        server.until(|| async { (post().answer().await.status == 202).then_some(()) }).await;
    }
}

/// Others can have the room of its body: it does not need that any more.
#[tokio::test]
async fn a_request_that_waits_for_its_job_gives_the_memory_of_its_body_back() {
    let server = Server::start_with(&["--max-body-memory-bytes", "100000", "--max-body-bytes", "100000"]).await;
    let post = |body: &Value| {
        let body = body.to_string() + &" ".repeat(60_000);
        server.request(Method::POST, "/jobs").header("Content-Type", "application/json").body(body)
    };
    let waits = tokio::spawn(post(&with(sleep(0), json!({ "delay_ms": 600_000 }))).header("Prefer", "wait=60").send());
    server.until(|| async { (server.get("/jobs").await.ids().len() == 1).then_some(()) }).await;
    assert_eq!(post(&sleep(0)).answer().await.status, 202);
    assert!(!waits.is_finished());
    waits.abort();
}

#[tokio::test]
async fn a_page_of_long_jobs_is_short() {
    let server = Server::start().await;
    // A workload is kept as it is written, with its spaces.
    let spaces = " ".repeat(3 << 20);
    let job = format!(r#"{{"bound":"io","delay_ms":600000,"workload":{{"type":"sleep","ms":1{spaces}}}}}"#);
    for _ in 0..3 {
        let request = server.request(Method::POST, "/jobs").header("Content-Type", "application/json").body(job.clone());
        assert_eq!(request.answer().await.status, 202);
    }
    // One that is longer than a page is alone on its page.
    let long = job.replace(&spaces, &" ".repeat(9 << 20));
    let request = server.request(Method::POST, "/jobs").header("Content-Type", "application/json").body(long);
    assert_eq!(request.answer().await.status, 202);
    let (mut lengths, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("/jobs?limit=10{cursor}")).await;
        lengths.push(page.ids().len());
        let page = page.json();
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(lengths, [1, 2, 1]);
}

#[tokio::test]
async fn so_many_streams_of_events_may_be_open() {
    let server = Server::start_with(&["--max-event-streams", "2"]).await;
    let open = async || server.request(Method::GET, "/events").send().await.unwrap();
    let (first, second) = (open().await, open().await);
    assert!(first.status() == 200 && second.status() == 200);
    let refused = server.get("/events").await;
    assert_eq!(refused.problem(503).0, "unavailable");
    assert!(!refused.header("retry-after").is_empty());
    // Other requests are answered, and there is a place again when one has gone.
    assert_eq!(server.get("/jobs").await.status, 200);
    drop(first);
    server.until(|| async { (open().await.status() == 200).then_some(()) }).await;
}

#[tokio::test]
async fn one_key_has_a_quarter_of_the_streams_of_events_also_an_administrators() {
    let server = Server::start_with(&["--max-event-streams", "4"]).await;
    let (_, one) = server.key("", &["admin"]).await;
    let (_, other) = server.key(&one, &["admin"]).await;
    let open = async |key: &str| with_key(server.request(Method::GET, "/events"), key).send().await.unwrap();
    let first = open(&one).await;
    let statuses = [first.status(), open(&one).await.status(), open(&other).await.status()];
    assert_eq!(statuses.map(|status| status.as_u16()), [200, 503, 200]);
}
