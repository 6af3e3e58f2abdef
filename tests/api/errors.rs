use reqwest::Method;
use reqwest::header::{ALLOW, CONTENT_TYPE};
use rstest::rstest;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{PATIENCE, Send as _, Server, sleep, with};

const NOBODY: &str = "01997d3e-8c00-7000-8000-000000000000";

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let server = Server::start().await;
    for path in ["/nothing", "/jobs/", "/docs/nothing.js", "/results/x/y", "/functions/%FF", "/docs/%FF", "/schedules/%00"] {
        assert_eq!(server.get(path).await.problem(404).0, "not-found", "{path}");
    }
    for id in [NOBODY, "7", "%FF"] {
        for path in [format!("/jobs/{id}"), format!("/jobs/{id}?wait=1"), format!("/jobs/{id}/route"), format!("/results/{id}")] {
            assert_eq!(server.get(&path).await.problem(404).0, "unknown-job", "{path}");
        }
        assert_eq!(server.delete(&format!("/jobs/{id}")).await.problem(404).0, "unknown-job");
        assert_eq!(server.request(Method::POST, &format!("/jobs/{id}/retry")).answer().await.problem(404).0, "unknown-job");
    }
}

#[rstest]
#[case(Method::PUT, "/jobs", "GET,HEAD,POST")]
#[case(Method::POST, "/results", "GET,HEAD")]
#[case(Method::GET, "/jobs/batch", "POST")]
#[case(Method::POST, "/openapi.json", "GET,HEAD")]
#[tokio::test]
async fn a_wrong_method_gets_the_right_ones(#[case] method: Method, #[case] path: &str, #[case] allowed: &str) {
    let server = Server::start().await;
    let answer = server.request(method, path).answer().await;
    assert_eq!(answer.problem(405).0, "method-not-allowed");
    let mut methods: Vec<_> = answer.header(ALLOW.as_str()).split(',').map(str::trim).collect();
    methods.sort_unstable();
    assert_eq!(methods.join(","), allowed);
}

#[tokio::test]
async fn a_body_is_json_and_says_so() {
    let server = Server::start().await;
    let post = |path: &str, media_type: Option<&str>, body: &str| {
        let request = server.request(Method::POST, path).body(body.to_owned());
        media_type
            .map_or(request.try_clone(), |media_type| request.try_clone().map(|request| request.header(CONTENT_TYPE, media_type)))
    };
    let job = sleep(0).to_string();
    for path in ["/jobs", "/jobs/batch"] {
        for media_type in [None, Some("text/plain"), Some("application/jsonx"), Some("multipart/form-data; boundary=x")] {
            let answer = post(path, media_type, &job).unwrap().answer().await;
            assert_eq!(answer.problem(415).0, "unsupported-media-type", "{media_type:?}");
        }
        for body in ["", "{", "[1,", "nope", "\u{feff}{}"] {
            let answer = post(path, Some("application/json"), body).unwrap().answer().await;
            assert_eq!(answer.problem(400).0, "malformed-json", "{body}");
        }
    }
    let answer = post("/jobs", Some("application/json; charset=utf-8"), &job).unwrap().answer().await;
    assert_eq!(answer.status, 202);
    assert_eq!(server.get("/jobs").await.ids().len(), 1);
}

#[tokio::test]
async fn the_field_at_fault_is_pointed_at() {
    let server = Server::start().await;
    let below = |below: Value| json!({ "bound": "cpu", "workload": { "type": "primes", "below": below } });
    for (job, pointer) in [
        (json!({ "workload": { "type": "sleep", "ms": 0 } }), "/bound"),
        (with(sleep(0), json!({ "colour": "red" })), "/colour"),
        (with(sleep(0), json!({ "priority": 101 })), "/priority"),
        (with(sleep(0), json!({ "tags": { "a": "b\u{0}" } })), "/tags/a"),
        (with(sleep(0), json!({ "webhook": { "url": "file:///etc/passwd" } })), "/webhook/url"),
        (with(sleep(0), json!({ "executor": "fibres" })), "/executor"),
        (with(sleep(0), json!({ "executor": 1 })), "/executor"),
        (json!({ "bound": "io", "workload": { "type": "file", "op": 1, "path": "a" } }), "/workload/op"),
        (with(sleep(0), json!({ "executor": "threads", "isolated": true })), "/isolated"),
        (with(sleep(0), json!({ "retry": { "attempts": 101 } })), "/retry/attempts"),
        (json!({ "bound": "cpu", "workload": { "type": "dream" } }), "/workload/type"),
        (json!({ "bound": "cpu", "workload": { "type": "primes" } }), "/workload/below"),
        (below(json!("many")), "/workload/below"),
        (below(json!(-1)), "/workload/below"),
        (below(json!(4_000_000_000_u32)), "/workload/below"),
        (json!({ "bound": "io", "workload": { "type": "sleep", "ms": 1, "a/b": 1 } }), "/workload/a~1b"),
    ] {
        let problem = server.post("/jobs", &job).await.problem(422);
        assert_eq!(problem, ("invalid-job".to_owned(), Some(pointer.to_owned())), "{job}");
    }
    let refused = server.post("/jobs/batch", &json!([{ "bound": 1 }])).await;
    assert_eq!(refused.problem(422), ("invalid-job".to_owned(), Some("/0/bound".to_owned())));
    assert_eq!(refused.json()["detail"], "/0/bound: must be a string");
    let refused = server.post("/jobs", &with(sleep(0), json!({ "priority": 1.5 }))).await;
    assert_eq!(refused.json()["detail"], "/priority: invalid type: floating point `1.5`, expected a whole number");
    let refused = server.post("/jobs/cancel", &json!({ "executor": 1 })).await;
    assert_eq!(refused.problem(422), ("invalid-filter".to_owned(), Some("/executor".to_owned())));
    assert!(server.get("/jobs").await.ids().is_empty(), "bad input changes nothing");
}

#[tokio::test]
async fn what_is_there_twice_is_refused() {
    let server = Server::start().await;
    for (fields, workload, pointer) in [
        (r#""tags":{"a":"b","a":"c"},"#, r#""type":"sleep","ms":0"#, "/tags/a"),
        (r#""requires":{"a":"b","a":"c"},"#, r#""type":"sleep","ms":0"#, "/requires/a"),
        ("", r#""type":"http","url":"https://example.com/","headers":{"a":"b","a":"c"}"#, "/workload/headers/a"),
    ] {
        let job = format!(r#"{{"bound":"io",{fields}"workload":{{{workload}}}}}"#);
        let request = server.request(Method::POST, "/jobs").header(CONTENT_TYPE, "application/json").body(job);
        assert_eq!(request.answer().await.problem(422), ("invalid-job".to_owned(), Some(pointer.to_owned())));
    }
}

#[tokio::test]
async fn a_refusal_is_short_however_long_what_it_is_about() {
    let server = Server::start().await;
    let long = "\u{1}".repeat(1 << 20);
    for job in [
        json!({ (long.clone()): 1 }),
        json!({ "bound": long }),
        json!({ "bound": "io", "workload": { "type": long } }),
        json!({ "bound": "io", "workload": { "type": "http", "url": format!("{}://x", "y".repeat(1 << 20)) } }),
        with(sleep(0), json!({ "tags": { (long.clone()): "" } })),
        with(sleep(0), json!({ "after": [{ "name": long }] })),
    ] {
        let answer = server.post("/jobs", &job).await;
        assert_eq!(answer.problem(422).0, "invalid-job");
        assert!(answer.text.len() < 32 << 10, "{} bytes", answer.text.len());
    }
}

#[rstest]
#[case("/jobs?limit=0", "limit")]
#[case("/jobs?limit=1001", "limit")]
#[case("/jobs?state=queued,done", "state")]
#[case("/jobs?cursor=abc", "cursor")]
#[case("/jobs?page=2", "page")]
#[case("/jobs?bound=io&bound=cpu", "bound")]
#[case("/jobs?since=yesterday", "since")]
#[case("/results?tag=team", "tag")]
#[case("/results?state=failed,queued", "state")]
#[case("/results/summary?state=queued", "state")]
#[case("/results?format=xml", "format")]
#[case("/results/summary?by=colour", "by")]
#[case("/results/summary?limit=5", "limit")]
#[case("/executors?limit=5", "limit")]
#[tokio::test]
async fn a_query_is_checked(#[case] path: &str, #[case] parameter: &str) {
    let server = Server::start().await;
    let answer = server.get(path).await;
    assert_eq!(answer.problem(400).0, "bad-query");
    assert_eq!(answer.json()["errors"][0]["parameter"], parameter);
}

#[tokio::test]
async fn a_filter_has_no_more_labels_than_a_job_can_have() {
    let server = Server::start().await;
    let job = with(sleep(0), json!({ "tags": (0..16).map(|n| (n.to_string(), "x".into())).collect::<Map<_, _>>() }));
    let id = server.submit(&job).await;
    let tags = |count: usize| (0..count).map(|n| format!("{n}:x")).collect::<Vec<_>>();
    let query = |path: &str, tags: &[String]| format!("{path}?tag={}", tags.join("&tag="));
    // One that is there twice counts once.
    let most = [tags(16), tags(16), tags(1)].concat();
    assert_eq!(server.get(&query("/jobs", &most)).await.ids(), [id]);
    assert_eq!(server.request(Method::GET, &query("/events", &most)).send().await.unwrap().status(), 200);
    assert_eq!(server.post("/jobs/cancel", &json!({ "tag": most })).await.status, 200);
    for path in ["/jobs", "/results", "/events"] {
        let answer = server.get(&query(path, &tags(17))).await;
        assert_eq!(answer.problem(400).0, "bad-query");
        assert_eq!(answer.json()["errors"][0]["parameter"], "tag");
    }
    let refused = server.post("/jobs/cancel", &json!({ "tag": tags(17) })).await;
    assert_eq!(refused.problem(422), ("invalid-filter".into(), Some("/tag".into())));
}

#[tokio::test]
async fn what_looks_at_no_query_takes_none_but_from_probes() {
    let server = Server::start().await;
    let answer = server.post("/jobs?wait=5", &sleep(0)).await;
    assert_eq!((answer.problem(400).0, &answer.json()["errors"][0]["parameter"]), ("bad-query".into(), &json!("wait")));
    assert!(server.get("/jobs").await.ids().is_empty());
    for path in ["/healthz?from=probe", "/readyz?from=probe", "/metrics?from=scraper", "/executors?", "/docs/?from=page"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_job_has_at_most_twelve_mib() {
    let server = Server::start().await;
    let job = with(sleep(0), json!({ "tags": { "x": "y".repeat(12 << 20) } }));
    assert_eq!(server.post("/jobs", &job).await.problem(413).0, "too-large");
    assert_eq!(server.post("/jobs/batch", &json!([sleep(0), job])).await.problem(413).1.as_deref(), Some("/1"));
}

#[tokio::test]
async fn a_client_that_asks_first_need_not_send_what_is_too_long() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    let headers = "POST /jobs HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n";
    stream.write_all(format!("{headers}Content-Length: {}\r\n\r\n", (12 << 20) + 1).as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("the connection is closed").unwrap();
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("/problems/too-large"), "{answer}");
}

#[tokio::test]
async fn a_request_names_one_host() {
    let server = Server::start().await;
    let send = async |line: &str, hosts: &str| {
        let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
        stream.write_all(format!("{line}\r\n{hosts}Connection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("the connection is closed").unwrap();
        answer
    };
    for (line, hosts) in [
        ("GET /jobs HTTP/1.1", ""),
        ("GET /jobs HTTP/1.1", "Host: localhost\r\nHost: evil.example.com\r\n"),
        ("GET /healthz HTTP/1.1", "Host: localhost\r\nHost: localhost\r\n"),
        ("GET /jobs HTTP/1.0", "Host: localhost\r\nHost: evil.example.com\r\n"),
    ] {
        let answer = send(line, hosts).await;
        assert!(answer.starts_with("HTTP/1.") && answer.contains(" 400 ") && answer.contains("/problems/bad-host"), "{answer}");
    }
    // The first version knew no host.
    for (line, hosts) in [("GET /jobs HTTP/1.0", ""), ("GET /jobs HTTP/1.1", "Host: localhost\r\n")] {
        assert!(send(line, hosts).await.contains(" 200 OK\r\n"), "{line}");
    }
}

#[tokio::test]
async fn a_slow_request_is_cut_off() {
    let server = Server::start_with(&["--header-timeout-ms", "2000", "--body-timeout-ms", "2000"]).await;
    let address = server.url.trim_start_matches("http://").to_owned();
    let send = async |text: &str| {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("the connection is closed").unwrap();
        answer
    };
    let headers = "POST /jobs HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 100\r\n";
    assert!(!send(headers).await.contains("HTTP/1.1 2"));
    let answer = send(&format!("{headers}\r\n{{")).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("/problems/body-timeout"), "{answer}");
}
