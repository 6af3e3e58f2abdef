//! What a page in a browser can do to a server that asks for no key.

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HOST, HeaderMap, ORIGIN};
use serde_json::json;

use super::{Send as _, Server, sleep};

fn policy(headers: &HeaderMap) -> &str {
    headers["content-security-policy"].to_str().unwrap()
}

#[tokio::test]
async fn a_page_from_elsewhere_can_submit_nothing() {
    let server = Server::start().await;
    let port = server.url.rsplit(':').next().unwrap();
    let (own, other) = (format!("http://127.0.0.1:{port}"), "https://evil.example.com".to_owned());
    let rebound = format!("evil.example.com:{port}");
    let by_rebinding = format!("http://{rebound}");
    let requests = [
        (Method::POST, "/jobs"),
        (Method::POST, "/jobs/batch"),
        (Method::GET, "/jobs"),
        (Method::GET, "/events"),
        (Method::PUT, "/functions/f"),
        (Method::DELETE, "/functions/f"),
        (Method::GET, "/healthz"),
    ];
    for (method, path) in requests {
        let ask = || server.request(method.clone(), path).json(&sleep(0));
        for request in [
            ask().header(ORIGIN, &other),
            ask().header(ORIGIN, "null"),
            ask().header(HOST, &rebound),
            ask().header(HOST, &rebound).header(ORIGIN, &by_rebinding),
        ] {
            let answer = request.answer().await;
            assert_eq!(answer.problem(403).0, "forbidden", "{method} {path}");
            assert!(!answer.headers.contains_key("access-control-allow-origin"));
        }
    }
    // What a form can send without asking the browser first is no submission, even where no origin is told.
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let answer = server.request(Method::POST, "/jobs").header(CONTENT_TYPE, media_type).body(sleep(0).to_string());
        assert_eq!(answer.answer().await.problem(415).0, "unsupported-media-type");
    }
    // Nor does a browser get the permission to send more.
    let preflight = server.request(Method::OPTIONS, "/jobs").header(ORIGIN, &other);
    let answer = preflight.header("Access-Control-Request-Method", "POST").answer().await;
    assert!(!answer.status.is_success() && !answer.headers.contains_key("access-control-allow-origin"));
    assert!(server.get("/jobs").await.ids().is_empty());
    // The server's own pages can.
    let answer = server.request(Method::POST, "/jobs").header(ORIGIN, own).json(&sleep(0)).answer().await;
    assert_eq!(answer.status, 202);
}

#[tokio::test]
async fn the_operator_names_pages_and_hosts_that_may() {
    let settings = ["--cors-allow", "https://app.example.com", "--allowed-hosts", "trine.example.com"];
    let server = Server::start_with(&settings).await;
    let from = |origin: &str| server.request(Method::POST, "/jobs").header(ORIGIN, origin).json(&sleep(0));
    let answer = from("https://app.example.com").answer().await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (202, "https://app.example.com"));
    assert_eq!(from("https://evil.example.com").answer().await.problem(403).0, "forbidden");
    let preflight = server.request(Method::OPTIONS, "/jobs").header(ORIGIN, "https://app.example.com");
    let preflight = preflight.header("Access-Control-Request-Method", "POST");
    let answer = preflight.header("Access-Control-Request-Headers", "content-type").answer().await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (200, "https://app.example.com"));
    assert!(answer.header("access-control-allow-methods").contains("POST"));
    for header in ["authorization", "if-none-match", "if-range", "range", "last-event-id", "idempotency-key"] {
        assert!(answer.header("access-control-allow-headers").contains(header), "{:?}", answer.headers);
    }
    assert!(!answer.headers.contains_key("access-control-allow-credentials"));
    let named = server.request(Method::GET, "/jobs").header(HOST, "trine.example.com:8040").answer().await;
    assert_eq!(named.status, 200);
    let any = Server::start_with(&["--cors-allow", "*"]).await;
    let answer = any.request(Method::GET, "/jobs").header(ORIGIN, "https://who.example.com").answer().await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (200, "*"));
}

#[tokio::test]
async fn every_answer_tells_browsers_to_be_careful() {
    let server = Server::start().await;
    server.submit(&sleep(0)).await;
    for path in ["/jobs", "/jobs?format=csv", "/healthz", "/nothing", "/jobs/1", "/openapi.json", "/", "/docs/"] {
        let answer = server.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin");
        assert!(policy(&answer.headers).contains("frame-ancestors 'none'"));
        if path == "/docs/" {
            assert!(policy(&answer.headers).starts_with("default-src 'self'; "));
            // Swagger UI shows the pictures that were answered.
            assert!(policy(&answer.headers).contains("img-src 'self' data: blob:;"));
            assert_eq!(answer.header("x-frame-options"), "DENY");
            assert_eq!(answer.header("referrer-policy"), "no-referrer");
            // Its policy lets no script of the page itself run, and it has none.
            let scripts: Vec<_> = answer.text.split("<script").skip(1).collect();
            assert!(!scripts.is_empty() && scripts.iter().all(|script| script.contains("src=")), "{}", answer.text);
        } else {
            assert!(policy(&answer.headers).starts_with("default-src 'none'"), "{path}");
            assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        }
    }
}

#[tokio::test]
async fn errors_do_not_tell_where_the_server_lives() {
    let server = Server::start().await;
    let source = "import os\ndef main(): raise RuntimeError('x')";
    let jobs = [
        json!({ "bound": "io", "workload": { "type": "file", "path": "../../etc/passwd" } }),
        json!({ "bound": "io", "workload": { "type": "file", "action": "read", "path": "nothing" } }),
        json!({ "bound": "io", "workload": { "type": "python", "source": source } }),
        json!({ "bound": "io", "workload": { "type": "command", "command": "none" } }),
        json!({ "bound": "io" }),
        json!([]),
    ];
    let folder = server.folder.path().display().to_string();
    for job in jobs {
        let answer = server.request(Method::POST, "/jobs").header("Prefer", "wait=30").json(&job).answer().await;
        for told in [folder.as_str(), "src/", ".rs:", "panicked", "RUST_BACKTRACE", "/root/", "/home/"] {
            assert!(!answer.text.contains(told), "{told} is told: {}", answer.text);
        }
    }
}
