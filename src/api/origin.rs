//! Pages in a browser, and which of them may talk to this server.
//!
//! A server that asks for no key takes whoever reaches it for a friend. A page from elsewhere reaches it through the browser of somebody
//! who does: by a form or a script that sends a request to 127.0.0.1, or by a name of its own that it points there (DNS rebinding).
//! The browser says in `Origin` where the page is from, and in `Host` by which name it found the server.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Version};

use super::problem::{Kind, Problem};

/// Who else may talk to the server by way of a browser, as the operator configured it.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    /// Origins such as `https://example.com`, whose pages may call the API; `*` for all.
    pub origins: Arc<[String]>,
    /// Names by which the server is known, besides those that nobody else can have.
    pub hosts: Arc<[String]>,
}

/// Refuses a request with more than one `Host`, and one of HTTP/1.1 with none (RFC 9112, section 3.2): a proxy in front could go by another
/// name than this server does.
pub(super) fn check_host(version: Version, headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get_all(HOST).iter().count() {
        1 => Ok(()),
        0 if version < Version::HTTP_11 => Ok(()),
        headers => Err(Problem::new(Kind::BadHost, format!("a request has one header `Host`, not {headers}"))),
    }
}

impl Pages {
    /// Refuses the request of a page from elsewhere. What is no browser sends no `Origin`, and a `Host` that it was told.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let host = headers.get(HOST).map(|host| host.to_str().unwrap_or_default());
        if let Some(host) = host.filter(|host| !self.knows(host)) {
            return Err(Problem::new(
                Kind::Forbidden,
                format!("this server is not known as {host:?}; `allowed_hosts` can permit the name"),
            ));
        }
        if let Some(origin) = headers.get(ORIGIN).filter(|origin| !self.welcomes(origin, host.unwrap_or_default())) {
            return Err(Problem::new(
                Kind::Forbidden,
                format!("pages of {:?} may not call this server; `cors_allow` can permit them", origin.to_str().unwrap_or("?")),
            ));
        }
        Ok(())
    }

    /// An address, a name of this machine, or one that no name server outside knows.
    fn knows(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        // What is taken for the name may be the beginning of a longer one, such as [::1].example.com.
        let is_port = |rest: &str| rest.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        if !host.strip_prefix(authority.host()).is_some_and(|rest| rest.is_empty() || is_port(rest)) {
            return false;
        }
        let name = authority.host().trim_end_matches('.');
        let literal = name.parse::<Ipv4Addr>().is_ok()
            || name
                .strip_prefix('[')
                .and_then(|name| name.strip_suffix(']'))
                .is_some_and(|name| name.parse::<Ipv6Addr>().is_ok());
        let of_this_machine = name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"));
        // A name without a dot is looked up in the network's own domain.
        let single = !name.is_empty() && !name.contains('.');
        literal || of_this_machine || single || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// Whether a page is from this server itself, or from an origin that the operator allowed.
    fn welcomes(&self, origin: &HeaderValue, host: &str) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        let own = ["http://", "https://"].iter().any(|scheme| {
            origin.strip_prefix(scheme).is_some_and(|authority| !authority.is_empty() && authority.eq_ignore_ascii_case(host))
        });
        own || self.origins.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn allowed(host: Option<&str>, origin: Option<&str>) -> bool {
        let pages = Pages {
            origins: ["https://app.example.com".to_owned()].into(),
            hosts: ["trine.internal.example.com".to_owned()].into(),
        };
        let header = |name, value: Option<&str>| value.map(|value| (name, HeaderValue::from_str(value).unwrap()));
        let headers = header(HOST, host).into_iter().chain(header(ORIGIN, origin)).collect();
        pages.check(&headers).is_ok()
    }

    #[rstest]
    #[case("127.0.0.1:8040")]
    #[case("127.0.0.1")]
    #[case("10.1.2.3:80")]
    #[case("[::1]:8040")]
    #[case("localhost:8040")]
    #[case("LOCALHOST")]
    #[case("localhost.:8040")]
    #[case("api.localhost:8040")]
    #[case("trine:8040")]
    #[case("trine.internal.example.com:8040")]
    fn names_that_nobody_else_can_have_are_known(#[case] host: &str) {
        assert!(allowed(Some(host), None));
        assert!(allowed(Some(host), Some(&format!("http://{host}"))));
    }

    #[rstest]
    #[case("evil.example.com:8040")]
    #[case("localhost.evil.example.com")]
    #[case("127.0.0.1.evil.example.com:8040")]
    #[case("evil-localhost.com")]
    #[case("1.2.3.4.5")]
    #[case("2130706433.com")]
    #[case("sub.trine.internal.example.com")]
    #[case("")]
    #[case("a b")]
    #[case("evil.com#localhost")]
    #[case("[::1].evil.com")]
    #[case("[::1]80")]
    #[case("127.0.0.1:8040.evil.com")]
    #[case("localhost:8040:80")]
    #[case("evil.com@localhost")]
    fn other_names_are_not(#[case] host: &str) {
        assert!(!allowed(Some(host), None));
        assert!(!allowed(Some(host), Some(&format!("http://{host}"))), "a page by that name");
    }

    #[rstest]
    #[case(None, true)]
    #[case(Some("http://127.0.0.1:8040"), true)]
    #[case(Some("https://127.0.0.1:8040"), true)]
    #[case(Some("https://app.example.com"), true)]
    #[case(Some("http://127.0.0.1:8041"), false)]
    #[case(Some("http://localhost:8040"), false)]
    #[case(Some("http://app.example.com"), false)]
    #[case(Some("https://app.example.com.evil.com"), false)]
    #[case(Some("https://evil.com"), false)]
    #[case(Some("null"), false)]
    #[case(Some("file://"), false)]
    #[case(Some(""), false)]
    fn a_page_from_elsewhere_is_refused(#[case] origin: Option<&str>, #[case] good: bool) {
        assert_eq!(allowed(Some("127.0.0.1:8040"), origin), good);
    }
}
