//! One request after the other, as redirects lead.

use std::error::Error as _;
use std::io;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, COOKIE, HeaderMap, LOCATION};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use url::Url;

use crate::job::{Failure, FailureKind};
use crate::outbound::{CONNECT_TIMEOUT, root_cause};
use crate::workload::Environment;

/// One request of the chain of redirects.
pub(super) struct Hop {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) content: Option<Bytes>,
    /// Whether the same server has led to it by a redirect.
    pub(super) follows: bool,
}

impl Hop {
    pub(super) fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Sends it. A server may end a connection after a redirect, just as the next request is on its way: one that may be repeated is then sent
    /// once more, as browsers do. The first request is not, since whether an attempt is repeated is the client's to say.
    pub(super) async fn send(&self, environment: &Environment) -> Result<Response, Failure> {
        let mut sent = self.request(environment)?.send().await;
        if self.follows && matches!(self.method, Method::GET | Method::HEAD) && sent.as_ref().is_err_and(was_cut_off) {
            sent = self.request(environment)?.send().await;
        }
        sent.map_err(|error| self.unanswered(&error))
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
        if error.is_connect() && error.is_timeout() {
            let (origin, limit) = (self.origin(), CONNECT_TIMEOUT.as_millis());
            return Failure::new(FailureKind::Timeout, format!("{origin} could not be reached within {limit} ms"));
        }
        let what = if error.is_connect() { "can't connect to" } else { "no answer from" };
        Failure::error(format!("{what} {}: {}", self.origin(), root_cause(error)))
    }

    /// The request that a response asks for instead, if it does.
    pub(super) fn redirect(&self, response: &Response) -> Result<Option<Self>, Failure> {
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

        let follows = url.origin() == self.url.origin();
        let mut next =
            Self { method: self.method.clone(), url, headers: self.headers.clone(), content: self.content.clone(), follows };
        if !follows {
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

/// Whether a connection that was there has ended before the answer came.
fn was_cut_off(error: &reqwest::Error) -> bool {
    let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
    !error.is_connect()
        && causes.any(|cause| {
            let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
            matches!(io, Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
                || cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message)
        })
}
