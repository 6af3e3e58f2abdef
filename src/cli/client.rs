use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::answer::Page;
use super::error::CliError;
use crate::auth::Presented;
use crate::outbound::root_cause;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than the longest wait that is asked for.
const READ_TIMEOUT: Duration = Duration::from_secs(90);

/// The most items that the API puts on a page.
const PAGE: usize = 1_000;

/// The server that is asked when none is named.
pub(super) const USUAL_SERVER: &str = "http://127.0.0.1:8040";

/// The server that a command talks to.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Server {
    /// URL of the server
    #[arg(long = "server", env = "TRINE_SERVER", value_name = "URL", default_value = USUAL_SERVER, value_parser = server_url)]
    url: Url,
    #[command(flatten)]
    access: Access,
}

/// What it takes to be let in by a server, and to know it.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Access {
    /// API key, if the server asks for one; better by the variable, since others can see command lines
    #[arg(long = "key", env = "TRINE_KEY", value_name = "KEY", hide_env_values = true)]
    api_key: Option<Key>,
    /// Certificate that vouches for the server's, as PEM, where no public authority does
    #[arg(long, env = "TRINE_CA_CERT", value_name = "FILE")]
    ca_cert: Option<PathBuf>,
}

/// Reads the URL of a server.
pub(super) fn server_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or("a server is named by a URL such as http://127.0.0.1:8040")
}

/// The text of an API key, as a header; never shown.
#[derive(Clone)]
struct Key {
    header: HeaderValue,
    /// Whether it looks like one of Trine's. Others are sent as well: something in front of the server may want them.
    is_ours: bool,
}

impl FromStr for Key {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        let mut header = HeaderValue::try_from(format!("Bearer {text}")).map_err(|_| "not the text of a key")?;
        header.set_sensitive(true);
        Ok(Self { header, is_ours: Presented::parse(text).is_some() })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// A client of the API. Clones share its connections.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    server: String,
    key: Option<Key>,
    /// How long it waits for the next bytes of an answer.
    patience: Duration,
}

/// Problem Details (RFC 9457), or whatever else came with an error's status.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    details: Option<Details>,
    /// What to do about it on the command line.
    advice: Option<&'static str>,
}

#[derive(Debug, Deserialize)]
struct Details {
    title: String,
    #[serde(default)]
    detail: Option<String>,
    #[serde(default)]
    errors: Vec<Fault>,
}

#[derive(Debug, Deserialize)]
struct Fault {
    #[serde(default)]
    pointer: Option<String>,
    #[serde(default)]
    parameter: Option<String>,
    detail: String,
}

impl Server {
    /// A client of this server. Connects when it is first used.
    pub(super) fn client(&self) -> Result<Client, CliError> {
        self.access.client(&self.url)
    }
}

impl Access {
    /// A client of the server at `url`. Connects when it is first used.
    pub(super) fn client(&self, url: &Url) -> Result<Client, CliError> {
        let client = Client::trusting(url.as_str(), self.ca_cert.as_deref(), READ_TIMEOUT)?;
        Ok(Client { key: self.api_key.clone(), ..client })
    }
}

impl Client {
    /// A client of the server at `url`.
    pub(super) fn new(url: &str) -> Result<Self, CliError> {
        Self::trusting(url, None, READ_TIMEOUT)
    }

    /// The same, with one more authority that may vouch for it, and with what is waited for the next bytes of an answer.
    fn trusting(url: &str, ca_cert: Option<&Path>, patience: Duration) -> Result<Self, CliError> {
        let unusable = |error: &dyn fmt::Display| CliError::Usage(format!("no HTTP client can be made: {error}"));
        let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = ca_cert {
            let wrong = |error: &dyn fmt::Display| CliError::Usage(format!("{}: {error}", path.display()));
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
                roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
            }
        }
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            // The server is most often on this machine, where a proxy can't reach it.
            .no_proxy()
            .user_agent(concat!("trine/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(patience)
            .build()
            .map_err(|error| unusable(&error))?;
        Ok(Self { http, server: url.trim_end_matches('/').to_owned(), key: None, patience })
    }

    /// `GET path`, such as `/jobs`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<T, CliError> {
        self.answer(self.request(Method::GET, path).query(query)).await
    }

    /// Gives the first `most` items of the list at `path`, one by one, over as many pages as that takes. Returns whether there are more.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        most: usize,
        mut each: impl FnMut(T) -> Result<(), CliError>,
    ) -> Result<bool, CliError> {
        let (mut left, mut cursor) = (most, None);
        loop {
            let of_page = [("limit", Some(left.min(PAGE).to_string())), ("cursor", cursor)];
            let page: Page<T> = self.answer(self.request(Method::GET, path).query(query).query(&of_page)).await?;
            for item in page.items.into_iter().take(left) {
                left -= 1;
                each(item)?;
            }
            cursor = page.next_cursor;
            if cursor.is_none() || left == 0 {
                return Ok(cursor.is_some());
            }
        }
    }

    /// The same, all together.
    pub(super) async fn first<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        most: usize,
    ) -> Result<Vec<T>, CliError> {
        let mut items = Vec::new();
        let each = |item| {
            items.push(item);
            Ok(())
        };
        self.list(path, query, most, each).await?;
        Ok(items)
    }

    /// `POST path` with a JSON body.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, CliError> {
        self.answer(self.request(Method::POST, path).json(body)).await
    }

    /// The same with a key, by which the server knows the request if it comes again; and whether it did.
    pub(super) async fn post_once<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        key: Option<String>,
    ) -> Result<(T, bool), CliError> {
        let request = self.request(Method::POST, path).json(body);
        let request = key.into_iter().fold(request, |request, key| request.header("Idempotency-Key", key));
        let response = self.send(request).await?;
        let replayed = response.headers().contains_key("Idempotent-Replayed");
        Ok((self.read(response).await?, replayed))
    }

    /// `POST path` without a body.
    pub(super) async fn order<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.answer(self.request(Method::POST, path)).await
    }

    /// `PUT path` with a body of this media type.
    pub(super) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        media_type: &str,
        body: Vec<u8>,
    ) -> Result<T, CliError> {
        self.answer(self.request(Method::PUT, path).query(query).header("Content-Type", media_type).body(body)).await
    }

    /// `DELETE path`.
    pub(super) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.answer(self.request(Method::DELETE, path)).await
    }

    /// `GET path`, its answer unread. `after` is the id of the last event that was read of a stream; `None` if the server says that no more
    /// will come (204).
    pub(super) async fn stream(
        &self,
        path: &str,
        query: &impl Serialize,
        after: Option<&str>,
    ) -> Result<Option<Response>, CliError> {
        let request = self.request(Method::GET, path).query(query);
        let request = after.into_iter().fold(request, |request, id| request.header("Last-Event-ID", id));
        let response = self.send(request).await?;
        Ok((response.status() != StatusCode::NO_CONTENT).then_some(response))
    }

    /// `GET path`, where the answer is text.
    pub(super) async fn text(&self, path: &str) -> Result<String, CliError> {
        let response = self.send(self.request(Method::GET, path)).await?;
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        String::from_utf8(body.into()).map_err(|error| CliError::NotTrine(error.to_string()))
    }

    /// Where a path of the server is, for people.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, self.url(path));
        match &self.key {
            Some(Key { header, .. }) => request.header(AUTHORIZATION, header.clone()),
            None => request,
        }
    }

    /// Returns the answer unread, if it is one of success.
    async fn send(&self, request: RequestBuilder) -> Result<Response, CliError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        Err(self.refused(status, &body))
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, CliError> {
        self.read(self.send(request).await?).await
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, CliError> {
        let status = response.status();
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        // Where there is nothing to say, nothing is said.
        let body = if status == StatusCode::NO_CONTENT { b"null" } else { &body[..] };
        serde_json::from_slice(body).map_err(|error| CliError::NotTrine(error.to_string()))
    }

    /// The error of an answer that is none of success.
    fn refused(&self, status: StatusCode, body: &[u8]) -> CliError {
        let advice = match &self.key {
            _ if status != StatusCode::UNAUTHORIZED => None,
            None => Some("Give one by the variable TRINE_KEY or by --key; `trine keys create` makes them."),
            Some(Key { is_ours: false, .. }) => {
                Some("What TRINE_KEY or --key says is malformed: a key is trine_ID_SECRET, as `trine keys create` printed it.")
            }
            Some(_) => None,
        };
        CliError::Refused(Problem { status, details: serde_json::from_slice(body).ok(), advice })
    }

    /// The error of a server that has not answered for so long.
    pub(super) fn silent(&self, waited: Duration) -> CliError {
        CliError::Silent { server: self.server.clone(), waited }
    }

    pub(super) fn unreachable(&self, error: &reqwest::Error) -> CliError {
        if error.is_timeout() && !error.is_connect() {
            return self.silent(self.patience);
        }
        // The innermost cause says what happened; the others only that a request was sent.
        let reason = root_cause(error).to_string();
        let hint = self.hint(&reason).map(|hint| format!("; {hint}")).unwrap_or_default();
        CliError::Unreachable { server: self.server.clone(), reason: reason + &hint }
    }

    /// What may be behind a reason that only says how far the bytes went.
    fn hint(&self, reason: &str) -> Option<String> {
        match self.server.split_once("://")? {
            ("https", rest) if reason.contains("InvalidContentType") => {
                Some(format!("it does not speak HTTPS, but perhaps HTTP: http://{rest}"))
            }
            ("http", rest) if reason.contains("invalid HTTP version") => {
                Some(format!("it does not speak HTTP, but perhaps HTTPS: https://{rest}"))
            }
            ("https", _) if reason.contains("UnknownIssuer") => {
                Some("--ca-cert names the certificate of an authority that vouches for it".into())
            }
            ("https", _) if reason.contains("CaUsedAsEndEntity") => Some(
                "a certificate that signs itself vouches for no server: docs/security.md, under TLS, shows how to make two"
                    .into(),
            ),
            _ => None,
        }
    }
}

impl Problem {
    /// Whether the server can't answer now, by its own word or by that of what stands in front of it.
    pub(super) fn is_unavailable(&self) -> bool {
        matches!(self.status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
    }

    /// Whether the body was longer than the server takes.
    pub(super) fn is_too_large(&self) -> bool {
        self.status == StatusCode::PAYLOAD_TOO_LARGE
    }

    /// With what to do about it.
    pub(super) fn with(self, advice: &'static str) -> Self {
        Self { advice: Some(advice), ..self }
    }

    /// With what to do about it, if it is about this field.
    pub(super) fn advised(self, pointer: &str, advice: &'static str) -> Self {
        let mut errors = self.details.iter().flat_map(|details| &details.errors);
        if errors.any(|fault| fault.pointer.as_deref() == Some(pointer)) { self.with(advice) } else { self }
    }

    /// Of a batch that stands in these lines of a file, with the lines in the place of where they were in the batch.
    pub(super) fn in_lines(mut self, lines: &[usize]) -> Self {
        let errors = self.details.iter_mut().flat_map(|details| &mut details.errors);
        for pointer in errors.filter_map(|fault| fault.pointer.as_mut()) {
            let place = pointer.strip_prefix('/').unwrap_or_default();
            let (index, field) = place.split_once('/').unwrap_or((place, ""));
            let Some(line) = index.parse().ok().and_then(|index: usize| lines.get(index)) else { continue };
            *pointer = if field.is_empty() { format!("line {line}") } else { format!("line {line}: /{field}") };
        }
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(details) = &self.details else { return write!(f, "the server answered {}", self.status) };
        write!(f, "{}", details.title)?;
        if details.errors.is_empty() {
            details.detail.iter().try_for_each(|detail| write!(f, ": {detail}"))?;
        }
        // Of many jobs the same may be wrong.
        let mut said: Vec<(&str, Vec<&str>)> = Vec::new();
        for Fault { pointer, parameter, detail } in &details.errors {
            let place = pointer.as_deref().or(parameter.as_deref()).filter(|place| !place.is_empty());
            match said.iter_mut().find(|(other, _)| other == detail) {
                Some((_, places)) => places.extend(place),
                None => said.push((detail, place.into_iter().collect())),
            }
        }
        for (n, (detail, places)) in said.iter().enumerate() {
            let between = if places.is_empty() { "" } else { ": " };
            write!(f, "{}{}{between}{detail}", if n == 0 { ": " } else { "; " }, places.join(", "))?;
        }
        self.advice.iter().try_for_each(|advice| write!(f, "\n{advice}"))
    }
}

/// Text as one segment of a path.
pub(super) fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(json: &str) -> String {
        Problem { status: StatusCode::BAD_GATEWAY, details: serde_json::from_str(json).ok(), advice: None }.to_string()
    }

    #[test]
    fn a_problem_is_one_line_that_names_the_field() {
        assert_eq!(
            problem(
                r#"{"title":"The job is not valid","detail":"/a: bad","errors":[{"pointer":"/workload/below","detail":"too big"}]}"#
            ),
            "The job is not valid: /workload/below: too big"
        );
        assert_eq!(
            problem(r#"{"title":"No job has this id","detail":"no job has the id 1"}"#),
            "No job has this id: no job has the id 1"
        );
        assert_eq!(
            problem(
                r#"{"title":"Bad query","errors":[{"parameter":"limit","detail":"1 to 1000"},{"pointer":"","detail":"empty"}]}"#
            ),
            "Bad query: limit: 1 to 1000; empty"
        );
        assert_eq!(
            problem(
                r#"{"title":"Not valid","errors":[{"pointer":"/0/a","detail":"bad"},{"pointer":"/1/b","detail":"new"},{"pointer":"/2/a","detail":"bad"}]}"#
            ),
            "Not valid: /0/a, /2/a: bad; /1/b: new"
        );
        assert_eq!(problem("<html>"), "the server answered 502 Bad Gateway");
    }

    #[test]
    fn the_other_scheme_is_pointed_at() {
        let hint = |url: &str, reason: &str| Client::new(url).unwrap().hint(reason).unwrap_or_default();
        assert!(hint("https://a:1", "received corrupt message of type InvalidContentType").ends_with("http://a:1"));
        assert!(hint("http://a:1", "invalid HTTP version parsed").ends_with("https://a:1"));
        assert_eq!(hint("http://a:1", "Connection refused (os error 111)"), "");
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_said_to_be_there() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let client = Client::trusting(&url, None, Duration::from_millis(50)).unwrap();
        let error = client.get::<serde_json::Value>("/jobs", &()).await.unwrap_err();
        assert!(error.may_pass() && error.to_string().contains("does not answer"), "{error}");
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_a_way_out() {
        // Bound, so that it is nobody else's, and not listened to.
        let nobody = tokio::net::TcpSocket::new_v4().unwrap();
        nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let free = nobody.local_addr().unwrap();
        let client = Client::new(&format!("http://{free}/")).unwrap();
        let error = client.get::<serde_json::Value>("/jobs", &()).await.unwrap_err();
        assert!(matches!(&error, CliError::Unreachable { server, .. } if *server == format!("http://{free}")));
        assert!(error.to_string().contains("trine serve"), "{error}");
    }
}
