//! `http`: fetches a URL.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderMap,
    HeaderName, HeaderValue, LOCATION, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use url::Url;
use utoipa::ToSchema;

use super::content::text_or_base64;
use super::{Context, Environment, Invalid, Likeness, Pace, Work, Workload};
use crate::job::{Bound, Failure, FailureKind, Form};
use crate::outbound::{read_body, root_cause};

const MAX_REDIRECTS: usize = 5;
const DEFAULT_TIMEOUT_MS: u64 = 30_000;
const MAX_TIMEOUT_MS: u64 = 300_000;

/// Headers that say how a message travels. The HTTP library sets them; others would let a job lie about where it ends.
const TRAVEL_HEADERS: [HeaderName; 9] =
    [CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// The request, and what to expect of the response.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Http {
    /// What to fetch, by http or https. Its host must have a public address, or one in a network that the operator allowed.
    #[serde(deserialize_with = "absolute_url")]
    #[schema(value_type = String, format = "uri", example = "https://example.com/")]
    url: Url,
    #[serde(default)]
    #[schema(inline)]
    method: Method,
    /// Headers of the request. `Authorization` and `Cookie` are dropped when a redirect leads to another origin.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The body of the request.
    body: Option<String>,
    /// The status (100 to 599), or a list of those, with which the job succeeds; each other one is a failure. Without it every
    /// status will do.
    #[schema(inline)]
    expect_status: Option<ExpectStatus>,
    /// Whether redirects are followed: up to five, each of them checked like the first address.
    #[serde(default = "yes")]
    #[schema(default = true)]
    follow_redirects: bool,
    /// The longest body of a response that is accepted, in bytes. The operator's limit if it is not given.
    max_bytes: Option<u64>,
    /// How long everything may take, redirects and the body included, in milliseconds.
    #[serde(default = "default_timeout_ms")]
    #[schema(minimum = 1, maximum = 300_000, default = 30_000)]
    timeout_ms: u64,
}

/// The method of the request.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schema(default = "GET")]
enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a status code or a list of them")]
enum ExpectStatus {
    One(u16),
    AnyOf(Vec<u16>),
}

/// What was fetched.
#[derive(Serialize)]
struct Page {
    /// The status code.
    status: u16,
    /// Where it was found in the end.
    url: String,
    /// The headers of the response, in lower case; equal ones are joined by a comma.
    headers: BTreeMap<String, String>,
    /// The length of the body.
    bytes: usize,
    /// The body: text, or what `encoding` says.
    body: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
}

/// One request of the chain of redirects.
struct Hop {
    method: reqwest::Method,
    url: Url,
    headers: HeaderMap,
    content: Option<Bytes>,
}

impl Workload for Http {
    const TYPE: &'static str = "http";
    const ABOUT: &'static str = "Fetches a URL and returns status, headers and body.";
    const BOUND: Bound = Bound::Io;
    const FORM: Form = Form::Async;

    fn example() -> serde_json::Value {
        json!({ "url": "https://example.com/", "expect_status": 200 })
    }

    fn check(&self, environment: &Environment) -> Result<(), Invalid> {
        environment.outbound.check(&self.url).map_err(|refused| Invalid::new("/url", refused.to_string()))?;
        header_map(&self.headers)?;
        if let Some(expected) = &self.expect_status {
            let codes = expected.codes();
            if codes.is_empty() || codes.iter().any(|code| !(100..600).contains(code)) {
                return Err(Invalid::new("/expect_status", "status codes lie from 100 to 599, and there is at least one"));
            }
        }
        if self.max_bytes.is_some_and(|bytes| bytes > environment.http_max_bytes) {
            return Err(Invalid::new("/max_bytes", format!("at most {} on this server", environment.http_max_bytes)));
        }
        if !(1..=MAX_TIMEOUT_MS).contains(&self.timeout_ms) {
            return Err(Invalid::new("/timeout_ms", format!("from 1 to {MAX_TIMEOUT_MS}")));
        }
        Ok(())
    }

    fn likeness(&self) -> Likeness {
        let host = self.url.host_str().unwrap_or_default();
        // The usual port of a scheme is none to the URL.
        let name = self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Likeness::of(Self::TYPE).name(name)
    }

    fn work(self, context: Context) -> Work {
        Work::future(async move {
            let (origin, limit) = (self.url.origin().ascii_serialization(), self.timeout_ms);
            tokio::time::timeout(Duration::from_millis(limit), self.fetch(&context)).await.unwrap_or_else(|_| {
                Err(Failure::new(FailureKind::Timeout, format!("{origin} did not answer in full within {limit} ms")))
            })
        })
    }
}

impl Http {
    async fn fetch(self, context: &Context) -> Result<Page, Failure> {
        let environment = &context.environment;
        let headers = header_map(&self.headers).map_err(|invalid| Failure::error(invalid.to_string()))?;
        let mut hop = Hop { method: self.method.into(), url: self.url, headers, content: self.body.map(Bytes::from) };
        for _ in 0..=MAX_REDIRECTS {
            let mut response = hop.request(environment)?.send().await.map_err(|error| hop.unanswered(&error))?;
            let redirect = if self.follow_redirects { hop.redirect(&response)? } else { None };
            if let Some(next) = redirect {
                context.log(format!("{} from {}, on to {}", response.status().as_u16(), hop.origin(), next.origin()));
                hop = next;
                continue;
            }
            let status = response.status().as_u16();
            if let Some(expected) = self.expect_status.as_ref().filter(|expected| !expected.codes().contains(&status)) {
                return Err(Failure::error(format!("{} answered {status}, expected was {}", hop.origin(), expected.in_words())));
            }
            let (of, mut pace) = (response.content_length(), Pace::start());
            let told = |bytes| {
                if pace.is_due() {
                    context.progress(&json!({ "bytes": bytes, "of": of }));
                }
            };
            let body = read_body(&mut response, self.max_bytes.unwrap_or(environment.http_max_bytes), told)
                .await
                .map_err(|error| Failure::error(format!("the body from {} {error}", hop.origin())))?;
            return Ok(Page::new(&response, hop.url, body));
        }
        Err(Failure::error(format!("more than {MAX_REDIRECTS} redirects, the last one to {}", hop.origin())))
    }
}

impl Hop {
    fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    fn request(&self, environment: &Environment) -> Result<RequestBuilder, Failure> {
        let request = environment
            .outbound
            .request(self.method.clone(), self.url.clone())
            .map_err(|refused| Failure::error(refused.to_string()))?
            .headers(self.headers.clone());
        Ok(match &self.content {
            Some(content) => request.body(content.clone()),
            None => request,
        })
    }

    fn unanswered(&self, error: &reqwest::Error) -> Failure {
        let what = if error.is_connect() { "can't connect to" } else { "no answer from" };
        Failure::error(format!("{what} {}: {}", self.origin(), root_cause(error)))
    }

    /// The request that a response asks for instead, if it does.
    fn redirect(&self, response: &Response) -> Result<Option<Self>, Failure> {
        use reqwest::Method;

        let status = response.status();
        let keeps_method = match status {
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method != Method::POST,
            StatusCode::SEE_OTHER => matches!(self.method, Method::GET | Method::HEAD),
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
            _ => return Ok(None),
        };
        let Some(location) = response.headers().get(LOCATION) else { return Ok(None) };
        let url = location
            .to_str()
            .ok()
            .and_then(|location| self.url.join(location).ok())
            .ok_or_else(|| Failure::error(format!("{} redirects to something that is no URL", self.origin())))?;

        let mut next = Self { method: self.method.clone(), url, headers: self.headers.clone(), content: self.content.clone() };
        if next.url.origin() != self.url.origin() {
            next.headers.remove(AUTHORIZATION);
            next.headers.remove(COOKIE);
        }
        if !keeps_method {
            next.method = Method::GET;
            next.content = None;
            for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE] {
                next.headers.remove(name);
            }
        }
        Ok(Some(next))
    }
}

impl Page {
    fn new(response: &Response, url: Url, body: Vec<u8>) -> Self {
        let mut headers = BTreeMap::<_, String>::new();
        for (name, value) in response.headers() {
            let value = String::from_utf8_lossy(value.as_bytes());
            headers
                .entry(name.to_string())
                .and_modify(|joined| {
                    joined.push_str(", ");
                    joined.push_str(&value);
                })
                .or_insert_with(|| value.to_string());
        }
        let bytes = body.len();
        let (body, encoding) = text_or_base64(body);
        Self { status: response.status().as_u16(), url: url.into(), headers, bytes, body, encoding }
    }
}

fn header_map(headers: &BTreeMap<String, String>) -> Result<HeaderMap, Invalid> {
    /// Far more than any server takes, and far fewer than a map of headers can hold.
    const MOST: usize = 1_000;
    if headers.len() > MOST {
        return Err(Invalid::new("/headers", format!("there are more than {MOST} headers")));
    }
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let invalid = |message: &str| Invalid::new(format!("/headers/{}", name.replace('~', "~0").replace('/', "~1")), message);
        let parsed = HeaderName::try_from(name).map_err(|_| invalid("not a header's name"))?;
        if TRAVEL_HEADERS.contains(&parsed) {
            return Err(invalid("this header is set by the server itself"));
        }
        let value = HeaderValue::try_from(value).map_err(|_| invalid("a header's value is one line of visible text"))?;
        if map.insert(parsed, value).is_some() {
            return Err(invalid("given twice"));
        }
    }
    Ok(map)
}

impl ExpectStatus {
    fn codes(&self) -> &[u16] {
        match self {
            Self::One(code) => std::slice::from_ref(code),
            Self::AnyOf(codes) => codes,
        }
    }

    fn in_words(&self) -> String {
        self.codes().iter().map(u16::to_string).collect::<Vec<_>>().join(" or ")
    }
}

impl From<Method> for reqwest::Method {
    fn from(method: Method) -> Self {
        match method {
            Method::Get => Self::GET,
            Method::Head => Self::HEAD,
            Method::Post => Self::POST,
            Method::Put => Self::PUT,
            Method::Patch => Self::PATCH,
            Method::Delete => Self::DELETE,
            Method::Options => Self::OPTIONS,
        }
    }
}

fn absolute_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    Url::parse(&text).map_err(|error| serde::de::Error::custom(format!("not an absolute URL: {error}")))
}

const fn yes() -> bool {
    true
}

const fn default_timeout_ms() -> u64 {
    DEFAULT_TIMEOUT_MS
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::http::header;
    use axum::response::{IntoResponse, Redirect};
    use axum::routing::{any, get};
    use serde_json::Value;
    use tokio::net::TcpListener;

    use super::super::testing::Bench;
    use super::*;
    use crate::job::{LogStream, Note};

    /// A small site on an address of this machine; returns its origin.
    async fn site(address: &str) -> String {
        let app = Router::new()
            .route("/text", get(|| async { "grüße" }))
            .route("/bytes", get(|| async { Bytes::from_static(&[0xff, 0x00]) }))
            .route("/headers", get(|| async { [("x-one", "1"), ("x-two", "2")] }))
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
            .route("/never", get(std::future::pending::<()>))
            .route(
                "/stalls",
                get(|| async { Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>()) }),
            )
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
        let page = bench.run(fetch(format!("{site}/headers"), &json!({ "method": "HEAD" }))).await.unwrap();
        assert_eq!((&page["headers"]["x-one"], &page["headers"]["x-two"], &page["body"]), (&json!("1"), &json!("2"), &json!("")));
    }

    #[tokio::test]
    async fn requests_are_sent_as_asked() {
        let (bench, site) = (bench(), site("127.0.0.1").await);
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let request =
                json!({ "method": method, "headers": { "X-Mine": "yes", "Authorization": "Bearer a" }, "body": "hello" });
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
                assert!(
                    failure.message.starts_with("the address ") && failure.message.contains("is not public"),
                    "{to}: {failure}"
                );
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
        assert!(failure.message.starts_with(&format!("can't connect to {by_name}: the address ")), "{failure}");
        assert!(failure.message.contains("is not public"), "{failure}");
        assert_eq!(bench().run(fetch(format!("{by_name}/text"), &json!({}))).await.unwrap()["body"], "grüße");
    }

    #[tokio::test]
    async fn failures_are_sentences() {
        let bench = bench();
        // A port that is taken, but nobody listens on it.
        let taken = tokio::net::TcpSocket::new_v4().unwrap();
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
}
