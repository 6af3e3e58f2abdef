//! Events as a client gets them, over connections that break, servers that crash, and readers that hardly read.

use std::collections::VecDeque;

use nix::sys::signal::Signal;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::server::{PATIENCE, Server, folder, sleep, until, with};

/// An event as it was sent; one without a kind tells only where to go on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sent {
    pub(crate) id: u64,
    pub(crate) kind: String,
    pub(crate) data: Value,
}

/// A connection.
pub(crate) struct Stream {
    response: Response,
    unread: String,
    whole: VecDeque<Sent>,
}

impl Stream {
    async fn open(request: RequestBuilder) -> Self {
        let response = tokio::time::timeout(PATIENCE, request.send()).await.expect("an answer").unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        Self { response, unread: String::new(), whole: VecDeque::new() }
    }

    /// The next event; `None` when the server ends the stream or the connection breaks.
    pub(crate) async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some(sent) = self.whole.pop_front() {
                return Some(sent);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("an event").ok()??;
            self.unread.push_str(std::str::from_utf8(&chunk).unwrap());
            while let Some(end) = self.unread.find("\n\n") {
                let block: String = self.unread.drain(..end + 2).collect();
                let field =
                    |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default();
                if let Ok(id) = field("id").parse() {
                    let data = serde_json::from_str(field("data")).unwrap_or_default();
                    self.whole.push_back(Sent { id, kind: field("event").to_owned(), data });
                }
            }
        }
    }

    pub(crate) async fn rest(mut self) -> Vec<Sent> {
        let mut all = Vec::new();
        while let Some(sent) = self.next().await {
            all.push(sent);
        }
        all
    }
}

fn request(server: &Server, path: &str, after: Option<u64>) -> RequestBuilder {
    let request = server.client.get(format!("{}{path}", server.url));
    after.into_iter().fold(request, |request, id| request.header("Last-Event-ID", id))
}

pub(crate) async fn open(server: &Server, path: &str, after: Option<u64>) -> Stream {
    Stream::open(request(server, path, after)).await
}

async fn status(server: &Server, path: &str, after: &str) -> StatusCode {
    let request = server.client.get(format!("{}{path}", server.url)).header("Last-Event-ID", after);
    request.send().await.unwrap().status()
}

pub(crate) fn kinds(events: &[Sent]) -> Vec<&str> {
    events.iter().map(|sent| sent.kind.as_str()).collect()
}

/// A Python job that writes so many lines, in one go or with pauses. It does not end before this attempt.
fn lines(count: usize, pause_ms: usize, ends_in: usize) -> Value {
    let source = "
import time, trine

def main(count, pause_ms, ends_in):
    for n in range(count):
        print('line', n)
        time.sleep(pause_ms / 1000)
    while trine.attempt() < ends_in:
        time.sleep(0.01)
";
    let args = [count, pause_ms, ends_in];
    json!({ "bound": "io", "executor": "threads", "workload": { "type": "python", "source": source, "args": args } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_cut_off_a_hundred_times_sees_every_event_once_also_across_a_crash() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &[]).await;
    let id = server.submit(&lines(300, 5, 2)).await;
    let path = format!("/jobs/{id}/events");
    let (mut seen, mut after) = (Vec::new(), None);
    for connection in 0..100 {
        if connection == 50 {
            server.crash();
            server = Server::start(folder.path(), &[]).await;
        }
        let mut stream = open(&server, &path, after).await;
        for _ in 0..=connection % 4 {
            let sent = stream.next().await.expect("the job goes on");
            after = Some(sent.id);
            seen.push(sent);
        }
    }
    seen.extend(open(&server, &path, after).await.rest().await);
    // Whoever comes later sees the same.
    assert_eq!(seen, open(&server, &path, None).await.rest().await);
    assert!(seen.windows(2).all(|pair| pair[0].id < pair[1].id), "an event came twice, or too late");
    let retrying = seen.iter().position(|sent| sent.kind == "retrying").expect("the crash is told of");
    assert_eq!(seen[retrying].data["error"]["kind"], "lost");
    assert_eq!((seen[retrying + 1].kind.as_str(), &seen[retrying + 1].data["attempt"]), ("running", &json!(2)));
    // The lines of an attempt are those that it wrote, each once: of the first as far as it got.
    for (attempt, all) in [(1, false), (2, true)] {
        let of_attempt = seen.iter().filter(|sent| sent.kind == "log" && sent.data["attempt"] == attempt);
        let written: Vec<_> = of_attempt.map(|sent| sent.data["line"].as_str().unwrap().to_owned()).collect();
        assert_eq!(written, (0..written.len()).map(|n| format!("line {n}")).collect::<Vec<_>>());
        assert!(!all || written.len() == 300);
    }
    let last = seen.last().unwrap();
    assert_eq!((last.kind.as_str(), &last.data["state"]), ("finished", &json!("succeeded")));
    assert_eq!(status(&server, &path, &last.id.to_string()).await, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_all_goes_on_behind_a_crash() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    // Cut off before its first event, a client still knows where it was.
    let mut stream = open(&server, "/events", None).await;
    let first = stream.next().await.unwrap();
    assert_eq!(first.kind, "");
    drop(stream);
    let before = server.submit(&sleep(0)).await;
    server.until_state(&before, "succeeded").await;
    server.crash();
    let server = Server::start(folder.path(), &[]).await;
    let behind = server.submit(&sleep(0)).await;
    let mut stream = open(&server, "/events?kinds=accepted,finished", Some(first.id)).await;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let sent = stream.next().await.unwrap();
        seen.extend((!sent.kind.is_empty()).then_some(sent));
    }
    let happened: Vec<_> = seen.iter().map(|sent| (sent.data["job"].as_str().unwrap(), sent.kind.as_str())).collect();
    let expected = [&before, &behind].map(|id| [(id.as_str(), "accepted"), (id.as_str(), "finished")]).concat();
    assert_eq!(happened, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_holds_up_nobody_and_misses_nothing() {
    const JOBS: u64 = 10_000;
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        slow.push(open(&server, "/events", None).await);
    }
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    let run = async |jobs: u64| {
        for _ in 0..jobs / 1_000 {
            server.submit_all(&vec![sleep(0); 1_000]).await;
        }
    };
    let mut brisk = open(&server, "/events?kinds=finished", None).await;
    let finished = async |stream: &mut Stream, jobs: u64| {
        let mut count = 0;
        while count < jobs {
            count += u64::from(stream.next().await.expect("it goes on").kind == "finished");
        }
    };
    // What is kept for all of them together is full after the first jobs, and does not grow after that.
    run(JOBS).await;
    finished(&mut brisk, JOBS).await;
    let before = memory();
    run(JOBS).await;
    finished(&mut brisk, JOBS).await;
    let after = memory();
    assert!(after < before + 48, "{before} MiB, then {after} MiB");
    // One of them wakes up: it gets everything, though most of it has to be read again.
    let mut late = slow.pop().unwrap();
    let (mut last, mut ends) = (0, 0);
    while ends < 2 * JOBS {
        let sent = late.next().await.expect("it goes on");
        assert!(sent.id > last || sent.kind.is_empty());
        last = sent.id;
        ends += u64::from(sent.kind == "finished");
    }
}

#[tokio::test]
async fn a_job_is_followed_to_its_end() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let id = server.submit(&json!({ "bound": "io", "workload": { "type": "file", "op": "read", "path": "nowhere" }, "retry": { "attempts": 2, "backoff_ms": 0 } })).await;
    let path = format!("/jobs/{id}/events");
    let seen = open(&server, &path, None).await.rest().await;
    assert_eq!(kinds(&seen), ["accepted", "running", "retrying", "running", "finished"]);
    assert!(seen.iter().all(|sent| sent.data["job"] == *id));
    assert_eq!((&seen[1].data["attempt"], &seen[1].data["executor"]), (&json!(1), &json!("threads")));
    assert!(seen[2].data["error"]["message"].as_str().unwrap().contains("nowhere") && seen[2].data["due_at"].is_string());
    // The end is told as the result is.
    let (last, result) = (&seen[4].data, server.get(&format!("/results/{id}")).await);
    for field in ["state", "attempt", "output", "error", "timing"] {
        assert_eq!(last[field], result[field], "{field}");
    }
    assert_eq!((&result["started_at"], &result["finished_at"]), (&seen[3].data["at"], &last["at"]));
    assert!(last.get("workload").is_none());

    // From anywhere, by header or by query; the header is the later word.
    let from = |at: usize| format!("{path}?after={}", seen[at].id);
    assert_eq!(open(&server, &from(1), None).await.rest().await, seen[2..]);
    assert_eq!(open(&server, &from(0), Some(seen[3].id)).await.rest().await, seen[4..]);
    assert_eq!(
        kinds(&open(&server, &format!("{path}?kinds=finished,retrying"), None).await.rest().await),
        ["retrying", "finished"]
    );
    // Whoever does not want to see the end is told where it is.
    let retries = open(&server, &format!("{path}?kinds=retrying"), None).await.rest().await;
    assert_eq!((kinds(&retries), retries[1].id), (vec!["retrying", ""], seen[4].id));

    assert_eq!(status(&server, &path, &seen[4].id.to_string()).await, 204);
    for wrong in ["soon", "-1", "0x10", "99999999999999999", "1e3"] {
        assert_eq!(status(&server, &path, wrong).await, 400, "{wrong}");
    }
    let twice = request(&server, &path, Some(seen[0].id)).header("Last-Event-ID", "1").send().await.unwrap();
    assert_eq!(twice.status(), 400);
    assert_eq!(status(&server, "/jobs/01997d3e-8c00-7000-8000-000000000000/events", "1").await, 404);

    // Run again, it goes on where it ended.
    let answer = server.client.post(format!("{}/jobs/{id}/retry", server.url)).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let further = open(&server, &path, Some(seen[4].id)).await.rest().await;
    assert_eq!(kinds(&further)[..2], ["requeued", "running"]);
    assert_eq!(further.last().unwrap().kind, "finished");
    let all = open(&server, &path, None).await.rest().await;
    assert_eq!(all, [seen, further].concat());
}

#[tokio::test]
async fn filters_select_what_is_sent() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let begin = open(&server, "/events", None).await.next().await.unwrap().id;
    let tagged = with(sleep(0), json!({ "tags": { "team": "search", "level": "1" } }));
    let job = server.submit(&tagged).await;
    let other = server
        .submit(&json!({ "bound": "cpu", "workload": { "type": "primes", "below": 100 }, "tags": { "team": "search" } }))
        .await;
    for id in [&job, &other] {
        server.until_state(id, "succeeded").await;
    }
    for (query, expected) in [
        ("kinds=finished", vec![&job, &other]),
        ("state=succeeded&bound=cpu", vec![&other]),
        ("kinds=finished&executor=async", vec![&job]),
        ("kinds=finished&workload=primes", vec![&other]),
        ("kinds=finished&tag=team:search", vec![&job, &other]),
        ("kinds=finished&tag=team:search&tag=level:1", vec![&job]),
    ] {
        let mut stream = open(&server, &format!("/events?{query}"), Some(begin)).await;
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            let sent = stream.next().await.unwrap();
            if !sent.kind.is_empty() {
                seen.push(sent.data["job"].as_str().unwrap().to_owned());
            }
        }
        seen.sort();
        assert_eq!(seen.iter().collect::<Vec<_>>(), expected, "{query}");
    }
    for wrong in ["kinds=everything", "tag=team", "state=done", "after=x", "job=1"] {
        let answer = server.client.get(format!("{}/events?{wrong}", server.url)).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{wrong}");
    }
}

#[tokio::test]
async fn a_quiet_stream_outlives_every_timeout_and_ends_with_the_server() {
    let folder = folder();
    let settings = [
        ("TRINE_HEADER_TIMEOUT_MS", "2000"),
        ("TRINE_BODY_TIMEOUT_MS", "2000"),
        ("TRINE_IDLE_TIMEOUT_MS", "2000"),
        ("TRINE_GRACE_MS", "0"),
    ];
    let mut server = Server::start(folder.path(), &settings).await;
    let id = server.submit(&sleep(3_600_000)).await;
    let mut of_job = open(&server, &format!("/jobs/{id}/events"), None).await;
    let mut of_all = open(&server, "/events", None).await;
    for kind in ["accepted", "running"] {
        assert_eq!(of_job.next().await.unwrap().kind, kind);
    }
    assert_eq!(of_all.next().await.unwrap().kind, "");
    // Longer than connections without a stream may be silent, of which one is shut behind the other.
    for _ in 0..2 {
        let mut silent = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
        let mut answer = Vec::new();
        let shut = silent.read_to_end(&mut answer);
        tokio::select! {
            event = of_job.next() => panic!("{event:?}"),
            shut = tokio::time::timeout(PATIENCE, shut) => drop(shut.expect("a silent connection to be shut")),
        }
    }
    server.signal(Signal::SIGTERM);
    assert_eq!((of_job.next().await, of_all.rest().await), (None, Vec::new()));
    assert!(server.wait().success());
}

#[tokio::test]
async fn no_more_streams_are_open_than_may_be() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_MAX_EVENT_STREAMS", "2")]).await;
    let (first, _second) = (open(&server, "/events", None).await, open(&server, "/events", None).await);
    let refused = request(&server, "/events", None).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (503, true));
    // A client that goes away gives its place back.
    drop(first);
    let status = async || request(&server, "/events", None).send().await.unwrap().status();
    until("there is a place", async || (status().await == 200).then_some(())).await;
}

#[tokio::test]
async fn lines_are_read_as_json_and_as_text() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_JOB_LOG_LINES", "100")]).await;
    let id = server.submit(&lines(60, 0, 1)).await;
    server.until_state(&id, "succeeded").await;
    let path = format!("/jobs/{id}/logs");
    let page = server.get(&format!("{path}?limit=50")).await;
    let rest = server.get(&format!("{path}?cursor={}", page["next_cursor"].as_str().unwrap())).await;
    assert_eq!((page["items"].as_array().unwrap().len(), rest["items"].as_array().unwrap().len()), (50, 10));
    assert_eq!(
        (&rest["items"][9]["line"], &rest["items"][9]["stream"], &rest["next_cursor"]),
        (&json!("line 59"), &json!("stdout"), &Value::Null)
    );
    let text = request(&server, &path, None).header("Accept", "text/plain").send().await.unwrap().text().await.unwrap();
    assert_eq!(text.lines().collect::<Vec<_>>(), (0..60).map(|n| format!("line {n}")).collect::<Vec<_>>());
    assert_eq!(request(&server, &path, None).header("Accept", "text/csv").send().await.unwrap().status(), 406);

    let chatty = server.submit(&lines(1_000, 0, 1)).await;
    server.until_state(&chatty, "succeeded").await;
    let text = request(&server, &format!("/jobs/{chatty}/logs"), None)
        .header("Accept", "text/plain")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(text.lines().count(), 100);
    assert!(text.lines().last().unwrap().contains("dropped"), "{text}");
}
