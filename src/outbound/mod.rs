//! The way out to the network, for whatever is sent to an address that a client chose. It leads to public addresses and to networks
//! that the operator allowed, nowhere else: a job must not be a way into the operator's own network (server-side request forgery).
//!
//! Names are resolved here, every address is checked, and a connection is made only to what was checked, so that a name can't
//! change its meaning in between. An address written in a URL is checked before, since the HTTP library resolves nothing then.

mod names;
mod rules;
mod special;

pub use names::LOOKUPS;
pub use rules::{Denied, Refused, Rules, network};

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use names::Names;

/// How long a server may take to be reached, of all the time that a request may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// As many as there may be jobs on the event loop by default: a burst to one host finds its connections again, and none is closed while the
/// others of the burst still wait for a core.
const MAX_IDLE_PER_HOST: usize = 16_384;
const FIRST_BODY_BYTES: usize = 64 * 1024;
/// So long may be together what comes in as bodies and is not recorded yet, in bytes, without the first ones of each; and so many more bodies.
const ROOM_BYTES: usize = 128 << 20;
const BEYOND: usize = 16;
/// So much of each body needs no room: nearly all are shorter.
const FREE_BYTES: usize = 16 * 1024;
/// What room is counted in.
const UNIT_BYTES: usize = 1024;

/// Where requests may go, as the operator configured it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboundSettings {
    /// What may be reached.
    pub rules: Rules,
    /// The name servers to ask; the system's way to resolve names if there are none.
    pub name_servers: Vec<SocketAddr>,
}

/// One HTTP client for all requests of the process, with its guard. Redirects are not followed, proxies not used, and nothing is
/// decompressed: a body is as long as it was sent.
///
/// A connection is driven by the runtime that opened it. Requests may come from several runtimes, as long as each keeps running
/// while its connections are in use; connections of a runtime that is gone are found dead and replaced.
#[derive(Debug)]
pub struct Outbound {
    client: Client,
    rules: Arc<Rules>,
    room: Arc<Semaphore>,
    /// Whoever finds no room may go on without, a few at a time: else all could wait for each other.
    beyond: Arc<Semaphore>,
}

/// What a body takes up of the room for all of them, until this is dropped.
#[derive(Debug, Default)]
pub struct Room {
    taken: Option<OwnedSemaphorePermit>,
    beyond: Option<OwnedSemaphorePermit>,
}

/// There is no way out.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// No HTTP client can be made.
    #[error("no HTTP client can be made: {0}")]
    Client(#[from] reqwest::Error),
    /// The TLS library refuses its settings.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The resolver refuses its settings.
    #[error("no name server can be asked: {0}")]
    Names(String),
}

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is longer than it may be.
    #[error("is longer than {0} bytes")]
    TooLong(u64),
    /// It broke off.
    #[error("broke off: {}", root_cause(.0))]
    BrokeOff(#[from] reqwest::Error),
}

impl Outbound {
    /// A client that goes where the rules let it.
    pub fn new(settings: &OutboundSettings) -> Result<Self, OutboundError> {
        let rules = Arc::new(settings.rules.clone());
        let client = Client::builder()
            .tls_backend_preconfigured(tls()?)
            .dns_resolver(Names::new(Arc::clone(&rules), &settings.name_servers)?)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .user_agent(concat!("trine/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .build()?;
        Ok(Self {
            client,
            rules,
            room: Arc::new(Semaphore::new(ROOM_BYTES / UNIT_BYTES)),
            beyond: Arc::new(Semaphore::new(BEYOND)),
        })
    }

    /// Refuses what can be refused by the look of a URL: its scheme, credentials, port, a forbidden name or address.
    pub fn check(&self, url: &Url) -> Result<(), Refused> {
        self.rules.check_url(url)
    }

    /// Begins a request, unless the URL is refused. Whoever follows a redirect comes back here with it.
    pub fn request(&self, method: Method, url: Url) -> Result<RequestBuilder, Refused> {
        self.check(&url)?;
        Ok(self.client.request(method, url))
    }

    /// Reads the body of a response to its end, or to the limit; `told` of its length so far with each piece that comes. With the room that it takes
    /// up: whatever is made of it is to keep that.
    pub async fn read_body(
        &self,
        response: &mut Response,
        max_bytes: u64,
        mut told: impl FnMut(usize),
    ) -> Result<(Vec<u8>, Room), BodyError> {
        let announced = response.content_length();
        if announced > Some(max_bytes) {
            return Err(BodyError::TooLong(max_bytes));
        }
        let mut room = Room::default();
        // Memory follows what has come, not what was promised.
        let mut body = Vec::with_capacity(usize::try_from(announced.unwrap_or(0)).unwrap_or(0).min(FIRST_BODY_BYTES));
        while let Some(chunk) = response.chunk().await? {
            let length = body.len() + chunk.len();
            if length as u64 > max_bytes {
                return Err(BodyError::TooLong(max_bytes));
            }
            self.make_room(&mut room, length.saturating_sub(FREE_BYTES)).await;
            body.extend_from_slice(&chunk);
            told(body.len());
        }
        Ok((body, room))
    }

    /// Takes as much room as so many bytes need; waits until there is some.
    async fn make_room(&self, room: &mut Room, bytes: usize) {
        let there = room.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(bytes.div_ceil(UNIT_BYTES).saturating_sub(there)).unwrap_or(u32::MAX);
        if more == 0 || room.beyond.is_some() {
            return;
        }
        tokio::select! {
            biased;
            // Neither is ever closed.
            Ok(more) = Arc::clone(&self.room).acquire_many_owned(more) => match &mut room.taken {
                Some(taken) => taken.merge(more),
                None => room.taken = Some(more),
            },
            Ok(beyond) = Arc::clone(&self.beyond).acquire_owned() => room.beyond = Some(beyond),
            else => {}
        }
    }
}

/// How servers are made sure of: by the authorities that browsers trust.
pub fn tls() -> Result<ClientConfig, rustls::Error> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let mut tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

/// The innermost cause: what the layers above it say is known from where the error is caught.
pub fn root_cause(error: &reqwest::Error) -> &dyn std::error::Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
}
