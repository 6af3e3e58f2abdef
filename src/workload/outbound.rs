//! The way out to the network. It leads to public addresses and to networks that the operator allowed, nowhere else: a job must
//! not be a way into the operator's own network (server-side request forgery).
//!
//! Names are resolved here, every address is checked, and a connection is made only to what was checked, so that a name can't
//! change its meaning in between. An address written in a URL is checked before, since the HTTP library resolves nothing then.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use moka::future::Cache;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Method, RequestBuilder};
use rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

use super::EnvironmentError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Enough that bursts to one host find their connections again, few enough to leave file descriptors for others.
const MAX_IDLE_PER_HOST: usize = 1024;
/// Long enough that thousands of requests to one name ask for it once, short enough that a change is seen soon.
const NAME_TTL: Duration = Duration::from_secs(10);
const MAX_NAMES: u64 = 10_000;

/// One HTTP client for all requests of the process, with its guard. Redirects are not followed and proxies not used.
///
/// A connection is driven by the runtime that opened it. Requests may come from several runtimes, as long as each keeps running
/// while its connections are in use; connections of a runtime that is gone are found dead and replaced.
#[derive(Debug)]
pub(super) struct Outbound {
    client: Client,
    guard: Guard,
}

/// Why a request is not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// The URL has another scheme.
    #[error("only http and https can be fetched, not {0}")]
    Scheme(String),
    /// The URL has a user name or a password.
    #[error("credentials in a URL are refused, since URLs end up in logs; send them in a header")]
    Credentials,
    /// The address belongs to no public host.
    #[error("the address {address} is not public: {reason}; `http_allow` can permit its network")]
    Address {
        /// The address.
        address: IpAddr,
        /// What it is for.
        reason: String,
    },
    /// The name can't be resolved.
    #[error("the name {name} can't be resolved: {error}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        error: io::Error,
    },
}

impl Outbound {
    /// A client that reaches public addresses and those in `allow`.
    pub(super) fn new(allow: &[IpNet]) -> Result<Self, EnvironmentError> {
        let guard = Guard { allow: allow.into() };
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let mut tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(Resolver::new(guard.clone()))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .user_agent(concat!("trine/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .build()?;
        Ok(Self { client, guard })
    }

    /// Refuses what can be refused by the look of a URL: its scheme, credentials, a forbidden address.
    pub(super) fn check(&self, url: &Url) -> Result<(), Refused> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refused::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::Credentials);
        }
        match url.host() {
            Some(Host::Ipv4(address)) => self.guard.check(address.into()),
            Some(Host::Ipv6(address)) => self.guard.check(address.into()),
            Some(Host::Domain(_)) | None => Ok(()),
        }
    }

    /// Begins a request, unless the URL is refused.
    pub(super) fn request(&self, method: Method, url: Url) -> Result<RequestBuilder, Refused> {
        self.check(&url)?;
        Ok(self.client.request(method, url))
    }
}

/// Resolves names to the addresses that may be reached.
struct Resolver {
    guard: Guard,
    names: Cache<String, Arc<[SocketAddr]>>,
}

impl Resolver {
    fn new(guard: Guard) -> Self {
        Self { guard, names: Cache::builder().max_capacity(MAX_NAMES).time_to_live(NAME_TTL).build() }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, names) = (self.guard.clone(), self.names.clone());
        Box::pin(async move {
            let addresses = names.try_get_with_by_ref(name.as_str(), guard.lookup(name.as_str())).await?;
            Ok(Box::new(Vec::from(&*addresses).into_iter()) as Addrs)
        })
    }
}

/// Tells the addresses that may be reached from the others.
#[derive(Clone, Debug)]
struct Guard {
    allow: Arc<[IpNet]>,
}

impl Guard {
    /// The addresses of a name that may be reached; at least one.
    async fn lookup(&self, name: &str) -> Result<Arc<[SocketAddr]>, Refused> {
        let unknown = |error| Refused::Name { name: name.to_owned(), error };
        let mut refused = None;
        let mut permitted = Vec::new();
        // The HTTP library puts the port in.
        for address in tokio::net::lookup_host((name, 0)).await.map_err(unknown)? {
            match self.check(address.ip()) {
                Ok(()) => permitted.push(address),
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            _ if !permitted.is_empty() => Ok(permitted.into()),
            Some(error) => Err(error),
            None => Err(unknown(io::Error::other("it has no address"))),
        }
    }

    fn check(&self, address: IpAddr) -> Result<(), Refused> {
        // ::ffff:10.0.0.1 is 10.0.0.1: the same packets are sent.
        let address = address.to_canonical();
        if self.allow.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        let reason = match address {
            IpAddr::V4(address) => SPECIAL_V4
                .iter()
                .find(|(network, _)| network.contains(&address))
                .map(|(network, purpose)| format!("{network} is {purpose}")),
            IpAddr::V6(address) => SPECIAL_V6
                .iter()
                .find(|(network, _)| network.contains(&address))
                .map(|(network, purpose)| format!("{network} is {purpose}"))
                .or_else(|| (!GLOBAL_V6.contains(&address)).then(|| format!("it lies outside of {GLOBAL_V6}"))),
        };
        match reason {
            Some(reason) => Err(Refused::Address { address, reason }),
            None => Ok(()),
        }
    }
}

/// IPv4 networks that are not public, from the IANA registry of special-purpose addresses.
const SPECIAL_V4: [(Ipv4Net, &str); 17] = [
    v4([0, 0, 0, 0], 8, "this host"),
    v4([10, 0, 0, 0], 8, "private"),
    v4([100, 64, 0, 0], 10, "shared by a carrier's customers"),
    v4([127, 0, 0, 0], 8, "this host (loopback)"),
    v4([168, 63, 129, 16], 32, "the metadata service of a cloud"),
    v4([169, 254, 0, 0], 16, "link-local, where clouds keep metadata"),
    v4([172, 16, 0, 0], 12, "private"),
    v4([192, 0, 0, 0], 24, "reserved for protocols"),
    v4([192, 0, 2, 0], 24, "for documentation"),
    v4([192, 88, 99, 0], 24, "reserved (6to4 relays)"),
    v4([192, 168, 0, 0], 16, "private"),
    v4([198, 18, 0, 0], 15, "for benchmarks"),
    v4([198, 51, 100, 0], 24, "for documentation"),
    v4([203, 0, 113, 0], 24, "for documentation"),
    v4([224, 0, 0, 0], 4, "multicast"),
    v4([255, 255, 255, 255], 32, "broadcast"),
    v4([240, 0, 0, 0], 4, "reserved"),
];

/// The only IPv6 network of which any part is public.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0], 3, "").0;

/// IPv6 networks that are not public: parts of [`GLOBAL_V6`], and others that deserve a name.
const SPECIAL_V6: [(Ipv6Net, &str); 11] = [
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), "this host"),
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), "this host (loopback)"),
    v6([0x64, 0xff9b, 0], 96, "translated to IPv4"),
    v6([0x64, 0xff9b, 1], 48, "translated to IPv4"),
    v6([0x2001, 0, 0], 23, "reserved for protocols, such as Teredo tunnels"),
    v6([0x2001, 0xdb8, 0], 32, "for documentation"),
    v6([0x2002, 0, 0], 16, "a tunnel to IPv4 (6to4)"),
    v6([0x3fff, 0, 0], 20, "for documentation"),
    v6([0xfc00, 0, 0], 7, "private (unique local)"),
    v6([0xfe80, 0, 0], 10, "link-local"),
    v6([0xff00, 0, 0], 8, "multicast"),
];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8, purpose: &'static str) -> (Ipv4Net, &'static str) {
    (Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix), purpose)
}

const fn v6([a, b, c]: [u16; 3], prefix: u8, purpose: &'static str) -> (Ipv6Net, &'static str) {
    (Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix), purpose)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allow: &[&str], url: &str) -> Result<(), Refused> {
        let allow: Vec<IpNet> = allow.iter().map(|network| network.parse().unwrap()).collect();
        Outbound::new(&allow).unwrap().check(&Url::parse(url).unwrap())
    }

    #[test]
    fn addresses_that_are_not_public_are_refused() {
        let guard = Guard { allow: Arc::default() };
        #[rustfmt::skip]
        let forbidden = [
            "0.0.0.0", "0.1.2.3", "0.255.255.255", "10.0.0.0", "10.0.0.1", "10.255.255.255", "100.64.0.0", "100.100.100.200",
            "100.127.255.255", "127.0.0.1", "127.0.0.2", "127.1.2.3", "127.255.255.255", "168.63.129.16", "169.254.0.1",
            "169.254.169.254", "169.254.170.2", "172.16.0.0", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192",
            "192.0.2.1", "192.88.99.1", "192.168.0.1", "192.168.255.255", "198.18.0.1", "198.19.255.255", "198.51.100.1",
            "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "254.1.1.1", "255.255.255.255", "::", "::1", "::2",
            "::7f00:1", "::10.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
            "::ffff:0.0.0.0", "::ffff:192.168.1.1", "::ffff:0:8.8.8.8", "64:ff9b::1", "64:ff9b::a00:1", "64:ff9b::808:808",
            "64:ff9b:1::1", "100::1", "1fff:ffff::1", "2001::1", "2001:0:53aa:64c:0:fbff:f5ff:fffe", "2001:10::1", "2001:20::1",
            "2001:1ff:ffff::1", "2001:db8::1", "2002::1", "2002:a00:1::", "2002:7f00:1::1", "3fff::1", "3fff:fff::1", "4000::1",
            "5f00::1", "fc00::1", "fd00:ec2::254", "fdff::1", "fe80::1", "fe80::a9fe:a9fe", "febf::1", "fec0::1", "ff02::1",
            "ff0e::1",
        ];
        for address in forbidden {
            let refused = guard.check(address.parse().unwrap());
            assert!(matches!(refused, Err(Refused::Address { .. })), "{address} was let through");
        }
    }

    #[test]
    fn public_addresses_are_let_through() {
        let guard = Guard { allow: Arc::default() };
        #[rustfmt::skip]
        let public = [
            "1.0.0.1", "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
            "128.0.0.0", "168.63.129.15", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0",
            "192.0.3.0", "192.88.98.1", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "203.0.112.1",
            "203.0.114.1", "223.255.255.255", "::ffff:8.8.8.8", "2000::1", "2001:200::1", "2001:4860:4860::8888",
            "2606:4700:4700::1111", "2a00:1450::1", "3ffe::1",
        ];
        for address in public {
            assert!(guard.check(address.parse().unwrap()).is_ok(), "{address} was refused");
        }
    }

    #[test]
    fn disguises_in_urls_are_seen_through() {
        #[rustfmt::skip]
        let disguises = [
            "http://127.0.0.1", "http://127.1", "http://127.0.1", "http://2130706433", "http://0x7f000001", "http://0x7f.1",
            "http://0177.0.0.1", "http://017700000001", "http://0x7f.0x0.0x0.0x1", "http://127.0.0.1.",
            "http://%31%32%37.0.0.1", "http://127。0。0。1", "http://１２７.0.0.1", "http://①②⑦.0.0.1", "http://0", "http://0.0.0.0",
            "http://0x0", "http:\\\\127.0.0.1", "http:127.0.0.1", "http:///127.0.0.1", "HTTP://127.0.0.1:80/", "https://10.1",
            "http://0xa9fea9fe/latest/meta-data", "http://2852039166", "http://0251.0376.0251.0376", "http://[::1]",
            "http://[::]", "http://[0:0:0:0:0:0:0:1]", "http://[::ffff:127.0.0.1]", "http://[::ffff:7f00:1]",
            "http://[0:0:0:0:0:ffff:7f00:0001]", "http://[::127.0.0.1]", "http://[64:ff9b::127.0.0.1]",
            "http://[2002:7f00:1::]", "http://[fd00:ec2::254]/", "http://127.0.0.1#@1.1.1.1", "http://127.0.0.1?@1.1.1.1",
            "http://\t127.0.0.1", "http://127.0.0.1:8080\\@1.1.1.1/",
        ];
        for url in disguises {
            assert!(matches!(check(&[], url), Err(Refused::Address { .. })), "{url} was let through");
        }
    }

    #[test]
    fn schemes_and_credentials_are_checked() {
        for url in
            ["ftp://example.com", "file:///etc/passwd", "gopher://127.0.0.1", "data:text/plain,a", "javascript:1", "ws://a.b"]
        {
            assert!(matches!(check(&[], url), Err(Refused::Scheme(_))), "{url}");
        }
        for url in ["http://user@example.com", "http://:secret@example.com", "http://1.1.1.1@127.0.0.1"] {
            assert!(matches!(check(&[], url), Err(Refused::Credentials)), "{url}");
        }
        assert!(check(&[], "https://example.com:8443/a?b#c").is_ok());
    }

    #[test]
    fn allowed_networks_are_let_through_and_no_others() {
        let allow = ["10.1.0.0/16", "127.0.0.1/32", "fd00::/8"];
        for url in ["http://10.1.2.3", "http://127.0.0.1", "http://[::ffff:10.1.2.3]", "http://[fd12::1]", "http://1.1.1.1"] {
            assert!(check(&allow, url).is_ok(), "{url}");
        }
        for url in ["http://10.2.0.0", "http://127.0.0.2", "http://[::1]", "http://[::ffff:127.0.0.2]", "http://[fc00::1]"] {
            assert!(check(&allow, url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_refusal_says_why() {
        assert_eq!(
            check(&[], "http://10.0.0.1").unwrap_err().to_string(),
            "the address 10.0.0.1 is not public: 10.0.0.0/8 is private; `http_allow` can permit its network"
        );
        assert_eq!(
            check(&[], "http://[4000::1]").unwrap_err().to_string(),
            "the address 4000::1 is not public: it lies outside of 2000::/3; `http_allow` can permit its network"
        );
    }

    #[tokio::test]
    async fn a_name_gives_only_the_addresses_that_may_be_reached() {
        let resolve = |allow: &str| {
            let guard = Guard { allow: allow.split_terminator(',').map(|network| network.parse().unwrap()).collect() };
            Resolver::new(guard).resolve("localhost".parse().unwrap())
        };
        let Err(refused) = resolve("").await else { panic!("localhost was let through") };
        assert!(refused.to_string().contains("(loopback)"), "{refused}");
        // Of both of its addresses, where there are two, only the allowed one is left.
        let found: Vec<_> = resolve("127.0.0.1/32").await.unwrap().map(|address| address.ip()).collect();
        assert!(!found.is_empty() && found.iter().all(|address| *address == IpAddr::from([127, 0, 0, 1])), "{found:?}");
    }

    #[tokio::test]
    async fn a_name_that_nobody_can_have_fails() {
        let guard = Guard { allow: Arc::default() };
        // A label has at most 63 letters, so that no server needs to be asked.
        let name = format!("{}.invalid", "a".repeat(64));
        let refused = guard.lookup(&name).await.unwrap_err();
        assert!(refused.to_string().starts_with(&format!("the name {name} can't be resolved: ")), "{refused}");
    }
}
