//! `http`: fetches a URL.

mod hop;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use reqwest::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use url::Url;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use self::hop::Hop;
use super::content::text_or_base64;
use super::{Context, Environment, Invalid, Likeness, Pace, Work, Workload, distinct, pointer};
use crate::job::{Bound, Failure, FailureKind, Form};

const MAX_REDIRECTS: usize = 5;
const DEFAULT_TIMEOUT_MS: u64 = 30_000;
const MAX_TIMEOUT_MS: u64 = 300_000;

/// Headers that say how a message travels. The HTTP library sets them; others would let a job lie about where it ends.
const TRAVEL_HEADERS: [HeaderName; 12] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

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
    #[serde(default, deserialize_with = "distinct")]
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
    /// How long everything may take, redirects and the body included, in milliseconds; 10,000 of it at the most until a server is reached.
    #[serde(default = "default_timeout_ms")]
    #[schema(minimum = 1, maximum = 300_000, default = 30_000)]
    timeout_ms: u64,
}

/// The method of the request. `GET` and `HEAD` are sent once more where, after a redirect within the same origin, the connection ends
/// before there is an answer.
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

#[derive(Deserialize)]
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
    /// The headers of the response, in lower case; equal ones are joined by a comma, cookies by a line break.
    headers: BTreeMap<String, String>,
    /// The length of the body.
    bytes: usize,
    /// The body: text, or what `encoding` says.
    body: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
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
        // A URL can be longer than what can be asked for.
        self.url.as_str().parse::<hyper::Uri>().map_err(|error| Invalid::new("/url", format!("can't be asked for: {error}")))?;
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
        let content = self.body.map(Bytes::from);
        let mut hop = Hop { method: self.method.into(), url: self.url, headers, content, follows: false };
        for _ in 0..=MAX_REDIRECTS {
            let mut response = hop.send(environment).await?;
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
            let max_bytes = self.max_bytes.unwrap_or(environment.http_max_bytes);
            let (body, room) = environment
                .outbound
                .read_body(&mut response, max_bytes, told)
                .await
                .map_err(|error| Failure::error(format!("the body from {} {error}", hop.origin())))?;
            context.reporter.keep(room);
            return Ok(Page::new(&response, hop.url, body));
        }
        Err(Failure::error(format!("more than {MAX_REDIRECTS} redirects, the last one to {}", hop.origin())))
    }
}

impl Page {
    fn new(response: &Response, url: Url, body: Vec<u8>) -> Self {
        let mut headers = BTreeMap::<_, String>::new();
        for (name, value) in response.headers() {
            let value = String::from_utf8_lossy(value.as_bytes());
            // There are commas in the times of cookies.
            let between = if name == SET_COOKIE { "\n" } else { ", " };
            headers
                .entry(name.to_string())
                .and_modify(|joined| {
                    joined.push_str(between);
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
        let invalid = |message: &str| Invalid::new(format!("/headers/{}", pointer::token(name)), message);
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

impl PartialSchema for ExpectStatus {
    fn schema() -> RefOr<Schema> {
        let code = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(100)).maximum(Some(599)).build();
        let codes = ArrayBuilder::new().items(code.clone()).min_items(Some(1));
        OneOfBuilder::new().item(code).item(codes).into()
    }
}

impl ToSchema for ExpectStatus {}

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
mod tests;
