//! One request after the other, as redirects lead.

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, COOKIE, HeaderMap, LOCATION};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use url::Url;

use crate::job::Failure;
use crate::outbound::root_cause;
use crate::workload::Environment;

/// One request of the chain of redirects.
pub(super) struct Hop {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) content: Option<Bytes>,
}

impl Hop {
    pub(super) fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    pub(super) fn request(&self, environment: &Environment) -> Result<RequestBuilder, Failure> {
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

    pub(super) fn unanswered(&self, error: &reqwest::Error) -> Failure {
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
