use axum::Router;
use axum::body::Body;
use axum::http::header;
use axum::response::{AppendHeaders, IntoResponse, Redirect};
use axum::routing::{any, get};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::super::testing::{Bench, Told};
use super::*;
use crate::job::{LogStream, Note};
use crate::workload::{Reporter, Sink, Stop};

/// A small site on an address of this machine; returns its origin.
async fn site(address: &str) -> String {
    let app = Router::new()
        .route("/text", get(|| async { "grüße" }))
        .route("/bytes", get(|| async { Bytes::from_static(&[0xff, 0x00]) }))
        .route("/headers", get(|| async { [("x-one", "1"), ("x-two", "2")] }))
        .route(
            "/many",
            get(|| async {
                let cookie = |value| (header::SET_COOKIE, value);
                AppendHeaders([
                    cookie("a=1; Expires=Sat, 31 Jan 2026 12:00:00 GMT"),
                    cookie("b=2"),
                    (header::VARY, "x"),
                    (header::VARY, "y"),
                ])
            }),
        )
        .route("/missing", get(|| async { (StatusCode::NOT_FOUND, "not here") }))
        .route("/big", get(|| async { "x".repeat(1000) }))
        .route(
            "/endless",
            get(|| async {
                Body::from_stream(futures_util::stream::repeat(Ok::<_, std::convert::Infallible>("x".repeat(1000))))
            }),
        )
        .route(
            "/slow",
            get(|| async {
                let piece = |_| async {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    Ok::<_, std::convert::Infallible>("x")
                };
                Body::from_stream(futures_util::StreamExt::then(futures_util::stream::iter(0..20), piece))
            }),
        )
        .route(
            "/long",
            get(|| async {
                let pieces = std::iter::repeat_n(Ok::<_, std::convert::Infallible>("x".repeat(1000)), 1000);
                Body::from_stream(futures_util::stream::iter(pieces))
            }),
        )
        .route("/never", get(std::future::pending::<()>))
        .route("/stalls", get(|| async { Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>()) }))
        .route("/loop", get(|| async { Redirect::temporary("/loop") }))
        .route("/nowhere", get(|| async { (StatusCode::FOUND, [(header::LOCATION, "http://[oops")]) }))
        .route(
            "/chain/{left}",
            get(|axum::extract::Path(left): axum::extract::Path<u32>| async move {
                let next = if left == 0 { "/text".to_owned() } else { format!("/chain/{}", left - 1) };
                Redirect::permanent(&next)
            }),
        )
        .route(
            "/to/{status}",
            any(|axum::extract::Path(status): axum::extract::Path<u16>, uri: axum::http::Uri| async move {
                let to = uri.query().unwrap().to_owned();
                (StatusCode::from_u16(status).unwrap(), [(header::LOCATION, to)], "moved").into_response()
            }),
        )
        .route(
            "/echo",
            any(|method: axum::http::Method, headers: HeaderMap, body: String| async move {
                let headers: BTreeMap<_, _> =
                    headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
                axum::Json(json!({ "method": method.as_str(), "headers": headers, "body": body }))
            }),
        );
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    origin
}

/// A bench that reaches 127.0.0.1 and 127.0.0.3, and nothing else of this machine.
fn bench() -> Bench {
    Bench::allowing(&["127.0.0.1/32", "127.0.0.3/32"])
}

fn fetch(url: impl AsRef<str>, options: &Value) -> Value {
    let mut workload = json!({ "type": "http", "url": url.as_ref() });
    workload.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    workload
}

/// What the site's `/echo` saw.
fn echoed(page: &Value) -> Value {
    serde_json::from_str(page["body"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_job_says_where_it_is_led_and_how_much_has_come() {
    let (bench, site) = (bench(), site("127.0.0.1").await);
    let told = bench.told(fetch(format!("{site}/chain/0"), &json!({}))).await;
    let [Note::Log(LogStream::Stdout, line)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(*line, format!("308 from {site}, on to {site}"));
    let told = bench.told(fetch(format!("{site}/slow"), &json!({}))).await;
    let Some(Note::Progress(first)) = told.first() else { panic!("{told:?}") };
    let first: Value = serde_json::from_str(first.get()).unwrap();
    assert!((1..=20).contains(&first["bytes"].as_u64().unwrap()) && first["of"].is_null(), "{first}");
}

#[tokio::test]
async fn pages_are_fetched_whole() {
    let (bench, site) = (bench(), site("127.0.0.1").await);
    let page = bench.run(fetch(format!("{site}/text"), &json!({}))).await.unwrap();
    assert_eq!((&page["status"], &page["body"], &page["bytes"]), (&json!(200), &json!("grüße"), &json!(7)));
    assert_eq!((&page["url"], &page.get("encoding")), (&json!(format!("{site}/text")), &None));
    assert_eq!(page["headers"]["content-type"], "text/plain; charset=utf-8");
    let page = bench.run(fetch(format!("{site}/bytes"), &json!({}))).await.unwrap();
    assert_eq!((&page["body"], &page["encoding"], &page["bytes"]), (&json!("/wA="), &json!("base64"), &json!(2)));
    let page = bench.run(fetch(format!("{site}/many"), &json!({}))).await.unwrap();
    let cookies = "a=1; Expires=Sat, 31 Jan 2026 12:00:00 GMT\nb=2";
    assert_eq!((&page["headers"]["set-cookie"], &page["headers"]["vary"]), (&json!(cookies), &json!("x, y")));
    let page = bench.run(fetch(format!("{site}/headers"), &json!({ "method": "HEAD" }))).await.unwrap();
    assert_eq!((&page["headers"]["x-one"], &page["headers"]["x-two"], &page["body"]), (&json!("1"), &json!("2"), &json!("")));
}

#[tokio::test]
async fn requests_are_sent_as_asked() {
    let (bench, site) = (bench(), site("127.0.0.1").await);
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let request = json!({ "method": method, "headers": { "X-Mine": "yes", "Authorization": "Bearer a" }, "body": "hello" });
        let seen = echoed(&bench.run(fetch(format!("{site}/echo"), &request)).await.unwrap());
        assert_eq!((&seen["method"], &seen["body"]), (&json!(method), &json!("hello")));
        assert_eq!((&seen["headers"]["x-mine"], &seen["headers"]["authorization"]), (&json!("yes"), &json!("Bearer a")));
        assert!(seen["headers"]["user-agent"].as_str().unwrap().starts_with("trine/"));
    }
}

#[tokio::test]
async fn an_unexpected_status_is_a_failure() {
    let (bench, site) = (bench(), site("127.0.0.1").await);
    let missing = format!("{site}/missing");
    for expected in [json!(null), json!(404), json!([200, 404])] {
        let page = bench.run(fetch(&missing, &json!({ "expect_status": expected }))).await.unwrap();
        assert_eq!((&page["status"], &page["body"]), (&json!(404), &json!("not here")));
    }
    for (expected, words) in [(json!(200), "200"), (json!([200, 204]), "200 or 204")] {
        let failure = bench.run(fetch(&missing, &json!({ "expect_status": expected }))).await.unwrap_err();
        assert_eq!(failure, Failure::error(format!("{site} answered 404, expected was {words}")));
    }
}

#[tokio::test]
async fn bodies_are_cut_off_at_the_limit() {
    let (bench, site) = (bench(), site("127.0.0.1").await);
    assert!(bench.run(fetch(format!("{site}/big"), &json!({ "max_bytes": 1000 }))).await.is_ok());
    for (page, limit) in [("big", 999), ("endless", 100_000)] {
        let failure = bench.run(fetch(format!("{site}/{page}"), &json!({ "max_bytes": limit }))).await.unwrap_err();
        assert_eq!(failure.message, format!("the body from {site} is longer than {limit} bytes"));
    }
    // The limit of the server, where the job names none.
    let failure = bench.run(fetch(format!("{site}/endless"), &json!({}))).await.unwrap_err();
    assert_eq!(failure.message, format!("the body from {site} is longer than 1048576 bytes"));
}

#[tokio::test]
async fn what_takes_too_long_times_out() {
    let (bench, site) = (bench(), site("127.0.0.1").await);
    for page in ["never", "stalls"] {
        let failure = bench.run(fetch(format!("{site}/{page}"), &json!({ "timeout_ms": 50 }))).await.unwrap_err();
        assert_eq!(failure, Failure::new(FailureKind::Timeout, format!("{site} did not answer in full within 50 ms")));
    }
}

#[tokio::test]
async fn a_server_that_can_not_be_reached_times_out() {
    // Nobody takes connections in, and there is soon no room for more of them.
    let full = TcpSocket::new_v4().unwrap();
    full.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let full = full.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
        waiting.push(stream);
    }
    let failure = bench().run(fetch(format!("http://{address}"), &json!({ "timeout_ms": 60_000 }))).await.unwrap_err();
    assert_eq!(failure, Failure::new(FailureKind::Timeout, format!("http://{address} could not be reached within 10000 ms")));
}

/// A site that leads on by so many redirects, and ends the connection as the next request comes on it. On another one it answers.
async fn fickle(redirects: usize) -> String {
    async fn request(connection: &mut BufReader<TcpStream>) {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            connection.read_line(&mut line).await.unwrap();
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut first = BufReader::new(listener.accept().await.unwrap().0);
        let on = "HTTP/1.1 307 On\r\nLocation: /on\r\nContent-Length: 0\r\n\r\n";
        for _ in 0..redirects {
            request(&mut first).await;
            first.write_all(on.as_bytes()).await.unwrap();
        }
        request(&mut first).await;
        drop(first);
        let mut second = BufReader::new(listener.accept().await.unwrap().0);
        request(&mut second).await;
        second.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere").await.unwrap();
    });
    origin
}

#[tokio::test]
async fn what_may_be_repeated_is_sent_again_where_a_connection_ends_under_it_after_a_redirect() {
    let bench = bench();
    assert_eq!(bench.run(fetch(fickle(1).await, &json!({}))).await.unwrap()["body"], "here");
    for (redirects, method) in [(1, "POST"), (0, "GET"), (0, "HEAD")] {
        let site = fickle(redirects).await;
        let failure = bench.run(fetch(&site, &json!({ "method": method }))).await.unwrap_err();
        assert_eq!(failure, Failure::error(format!("no answer from {site}: connection closed before message completed")));
    }
}

#[tokio::test]
async fn redirects_are_followed_up_to_five() {
    let (bench, site) = (bench(), site("127.0.0.1").await);
    let page = bench.run(fetch(format!("{site}/chain/4"), &json!({}))).await.unwrap();
    assert_eq!((&page["url"], &page["body"]), (&json!(format!("{site}/text")), &json!("grüße")));
    for page in ["chain/5", "loop"] {
        let failure = bench.run(fetch(format!("{site}/{page}"), &json!({}))).await.unwrap_err();
        assert!(failure.message.starts_with("more than 5 redirects"), "{failure}");
    }
    let failure = bench.run(fetch(format!("{site}/nowhere"), &json!({}))).await.unwrap_err();
    assert_eq!(failure.message, format!("{site} redirects to something that is no URL"));
    let page = bench.run(fetch(format!("{site}/loop"), &json!({ "follow_redirects": false }))).await.unwrap();
    assert_eq!((&page["status"], &page["headers"]["location"]), (&json!(307), &json!("/loop")));
}

#[tokio::test]
async fn redirects_change_the_request_as_the_standard_says() {
    let (bench, site) = (bench(), site("127.0.0.1").await);
    let cases = [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (301, "PUT", "PUT"),
        (307, "POST", "POST"),
        (308, "PUT", "PUT"),
        (302, "GET", "GET"),
    ];
    for (status, method, then) in cases {
        let request = json!({ "method": method, "body": "hello", "headers": { "content-type": "text/x", "cookie": "a=b" } });
        let page = bench.run(fetch(format!("{site}/to/{status}?/echo"), &request)).await.unwrap();
        let seen = echoed(&page);
        let keeps_body = then != "GET" || method == "GET";
        assert_eq!(seen["method"], then, "{status} {method}");
        assert_eq!(seen["body"], if keeps_body { "hello" } else { "" }, "{status} {method}");
        assert_eq!(seen["headers"].get("content-type").is_some(), keeps_body, "{status} {method}");
        assert_eq!(seen["headers"]["cookie"], "a=b", "{status} {method}");
    }
}

#[tokio::test]
async fn credentials_stay_with_their_origin() {
    let (bench, here, there) = (bench(), site("127.0.0.1").await, site("127.0.0.3").await);
    let secrets = json!({ "headers": { "Authorization": "Bearer a", "Cookie": "a=b", "X-Mine": "yes" } });
    let away = bench.run(fetch(format!("{here}/to/307?{there}/echo"), &secrets)).await.unwrap();
    let back = bench.run(fetch(format!("{here}/to/307?{there}/to/307?{here}/echo"), &secrets)).await.unwrap();
    for page in [away, back] {
        let headers = &echoed(&page)["headers"];
        assert_eq!((headers.get("authorization"), headers.get("cookie")), (None, None));
        assert_eq!(headers["x-mine"], "yes");
    }
}

#[tokio::test]
async fn redirects_do_not_lead_to_forbidden_addresses() {
    let (bench, here, forbidden) = (bench(), site("127.0.0.1").await, site("127.0.0.2").await);
    let port = forbidden.rsplit(':').next().unwrap();
    let tricks = [
        forbidden.clone(),
        format!("//127.0.0.2:{port}/text"),
        format!("http://2130706434:{port}/text"),
        format!("http://0x7f000002:{port}/text"),
        format!("http://[::ffff:127.0.0.2]:{port}/text"),
        format!("http://[::1]:{port}/text"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://10.0.0.1/".to_owned(),
    ];
    for to in tricks {
        for from in [format!("{here}/to/302?{to}"), format!("{here}/to/307?{here}/to/308?{to}")] {
            let failure = bench.run(fetch(&from, &json!({}))).await.unwrap_err();
            assert!(failure.message.starts_with("the address ") && failure.message.contains("is not public"), "{to}: {failure}");
        }
    }
    let failure = bench.run(fetch(format!("{here}/to/302?file:///etc/passwd"), &json!({}))).await.unwrap_err();
    assert_eq!(failure.message, "only http and https can be fetched, not file");
}

#[tokio::test]
async fn names_of_forbidden_addresses_are_refused_when_they_are_resolved() {
    let site = site("127.0.0.1").await;
    let by_name = site.replace("127.0.0.1", "localhost");
    let failure = Bench::new().run(fetch(format!("{by_name}/text"), &json!({}))).await.unwrap_err();
    let expected = format!("can't connect to {by_name}: the name localhost leads to no address that may be reached: ");
    assert!(failure.message.starts_with(&expected), "{failure}");
    assert_eq!(bench().run(fetch(format!("{by_name}/text"), &json!({}))).await.unwrap()["body"], "grüße");
}

#[tokio::test]
async fn failures_are_sentences() {
    let bench = bench();
    // A port that is taken, but nobody listens on it.
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let closed = format!("http://{}", taken.local_addr().unwrap());
    let failure = bench.run(fetch(&closed, &json!({}))).await.unwrap_err();
    assert!(failure.message.starts_with(&format!("can't connect to {closed}: Connection refused")), "{failure}");
    // Whoever answers does not speak TLS.
    let secure = site("127.0.0.1").await.replace("http:", "https:");
    let failure = bench.run(fetch(&secure, &json!({}))).await.unwrap_err();
    assert!(failure.message.starts_with(&format!("can't connect to {secure}: ")), "{failure}");
}

#[test]
fn one_client_serves_several_runtimes() {
    let bench = bench();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let site = server.block_on(site("127.0.0.1"));
    for _ in 0..3 {
        // Each leaves an idle connection behind, which dies with its runtime.
        let page = runtime().block_on(bench.run(fetch(format!("{site}/text"), &json!({})))).unwrap();
        assert_eq!(page["body"], "grüße");
    }
}

#[test]
fn parameters_are_checked() {
    // More than a map of headers can hold.
    let many: serde_json::Map<_, _> = (0..30_000).map(|n| (format!("x-{n}"), "".into())).collect();
    let bench = bench();
    let url = "https://example.com/";
    let wrong = [
        (json!({ "type": "http" }), ""),
        (fetch("example.com", &json!({})), "/url"),
        (fetch("", &json!({})), "/url"),
        (fetch(format!("https://example.com/{}", "x".repeat(65_536)), &json!({})), "/url"),
        (fetch("ftp://example.com", &json!({})), "/url"),
        (fetch("http://10.0.0.1", &json!({})), "/url"),
        (fetch("http://2130706434", &json!({})), "/url"),
        (fetch("http://user:secret@example.com", &json!({})), "/url"),
        (fetch(url, &json!({ "method": "get" })), "/method"),
        (fetch(url, &json!({ "method": "CONNECT" })), "/method"),
        (fetch(url, &json!({ "headers": { "a b": "" } })), "/headers/a b"),
        (fetch(url, &json!({ "headers": { "a/b": "" } })), "/headers/a~1b"),
        (fetch(url, &json!({ "headers": { "x": "a\r\nb: c" } })), "/headers/x"),
        (fetch(url, &json!({ "headers": { "Host": "internal" } })), "/headers/Host"),
        (fetch(url, &json!({ "headers": { "transfer-encoding": "chunked" } })), "/headers/transfer-encoding"),
        (fetch(url, &json!({ "headers": { "Keep-Alive": "timeout=1" } })), "/headers/Keep-Alive"),
        (fetch(url, &json!({ "headers": { "Proxy-Connection": "close" } })), "/headers/Proxy-Connection"),
        (fetch(url, &json!({ "headers": { "HTTP2-Settings": "AAMAAABk" } })), "/headers/HTTP2-Settings"),
        (fetch(url, &json!({ "headers": { "x": "1", "X": "2" } })), "/headers/x"),
        (fetch(url, &json!({ "headers": { "x": 1 } })), "/headers/x"),
        (fetch(url, &json!({ "headers": many })), "/headers"),
        (fetch(url, &json!({ "expect_status": 600 })), "/expect_status"),
        (fetch(url, &json!({ "expect_status": [] })), "/expect_status"),
        (fetch(url, &json!({ "expect_status": "ok" })), "/expect_status"),
        (fetch(url, &json!({ "max_bytes": (1 << 20) + 1 })), "/max_bytes"),
        (fetch(url, &json!({ "timeout_ms": 0 })), "/timeout_ms"),
        (fetch(url, &json!({ "timeout_ms": MAX_TIMEOUT_MS + 1 })), "/timeout_ms"),
        (fetch(url, &json!({ "retries": 3 })), "/retries"),
    ];
    for (workload, pointer) in wrong {
        assert_eq!(bench.invalid(&workload).pointer, pointer, "{workload}");
    }
}

#[tokio::test]
async fn what_long_bodies_take_up_is_bounded_until_they_are_recorded() {
    // There is room for 136 of them, of each of which 16 KiB need none; and sixteen go on without.
    const ALL: usize = 152;
    let (site, bench, told) = (site("127.0.0.1").await, bench(), std::sync::Arc::<Told>::default());
    let fetch = async |path: &str, timeout_ms: u64| {
        let reporter = Reporter::new(std::sync::Arc::clone(&told) as std::sync::Arc<dyn Sink>);
        let workload = fetch(format!("{site}{path}"), &json!({ "timeout_ms": timeout_ms }));
        bench.run_with(workload, Stop::default(), reporter).await
    };
    for _ in 0..ALL {
        assert_eq!(fetch("/long", 60_000).await.unwrap()["bytes"], 1_000_000);
    }
    assert_eq!(fetch("/long", 500).await.unwrap_err().kind, FailureKind::Timeout);
    fetch("/text", 60_000).await.unwrap();
    told.record();
    fetch("/long", 60_000).await.unwrap();
}
