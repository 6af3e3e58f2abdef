//! Which names, addresses and ports may be reached.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{AddrParseError, IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::{Host, Url};

use super::special;

/// What may be reached: public addresses and networks that are allowed, without what is denied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Networks besides the public ones.
    pub allow: Vec<IpNet>,
    /// What is not reached though it is public or allowed.
    pub deny: Vec<Denied>,
    /// The only ports that are reached; any port if there are none.
    pub ports: Vec<u16>,
}

/// What is not to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// These addresses, by whatever name.
    Network(IpNet),
    /// This name and all names below it.
    Name(String),
}

/// It is neither a network nor a name.
#[derive(Debug, thiserror::Error)]
#[error("neither a network such as 10.0.0.0/8 nor a host's name such as example.com")]
pub struct BadDenied;

/// Why a request is not made.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The URL has another scheme.
    #[error("only http and https can be fetched, not {0}")]
    Scheme(String),
    /// The URL has a user name or a password.
    #[error("credentials in a URL are refused, since URLs end up in logs; send them in a header")]
    Credentials,
    /// The operator lets no request go to the port.
    #[error("the port {0} is not among `http_ports`")]
    Port(u16),
    /// The operator denied the address or the name.
    #[error("{0} is denied by `http_deny`")]
    Denied(String),
    /// The address belongs to no public host.
    #[error("the address {address} is not public: {reason}; `http_allow` can permit its network")]
    Address {
        /// The address.
        address: IpAddr,
        /// What it is for.
        reason: String,
    },
    /// The name has no address that may be reached. Which ones it has is not said: whoever submits jobs could look up the names of the
    /// operator's own network.
    #[error(
        "the name {0} leads to no address that may be reached: to none that is public or in `http_allow`, and not in `http_deny`"
    )]
    Hidden(String),
    /// The name can't be resolved.
    #[error("the name {name} can't be resolved: {error}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        error: io::Error,
    },
}

impl Rules {
    /// Checks all that a URL says itself.
    pub(super) fn check_url(&self, url: &Url) -> Result<(), Refused> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refused::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::Credentials);
        }
        if let Some(port) = url.port_or_known_default().filter(|port| !self.ports.is_empty() && !self.ports.contains(port)) {
            return Err(Refused::Port(port));
        }
        match url.host() {
            Some(Host::Ipv4(address)) => self.check_address(address.into()),
            Some(Host::Ipv6(address)) => self.check_address(address.into()),
            Some(Host::Domain(name)) => self.check_name(name),
            None => Ok(()),
        }
    }

    /// Checks an address that a connection would be made to.
    pub(super) fn check_address(&self, address: IpAddr) -> Result<(), Refused> {
        // ::ffff:10.0.0.1 is 10.0.0.1: the same packets are sent.
        let address = address.to_canonical();
        if self.deny.iter().any(|denied| matches!(denied, Denied::Network(network) if network.contains(&address))) {
            return Err(Refused::Denied(format!("the address {address}")));
        }
        if self.allow.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        match special::reason(address) {
            Some(reason) => Err(Refused::Address { address, reason }),
            None => Ok(()),
        }
    }

    fn check_name(&self, name: &str) -> Result<(), Refused> {
        let asked = name.trim_end_matches('.');
        let below = |denied: &str| asked.strip_suffix(denied).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        if self.deny.iter().any(|denied| matches!(denied, Denied::Name(denied) if below(denied))) {
            return Err(Refused::Denied(format!("the name {name}")));
        }
        Ok(())
    }
}

/// A network, or an address as the network of just that address.
///
/// Addresses are looked at as what they are in IPv4, so `::ffff:10.0.0.0/104` is 10.0.0.0/8: as it is written, it would match none.
pub fn network(text: &str) -> Result<IpNet, AddrParseError> {
    let text = text.trim();
    let network = text.parse().or_else(|error| text.parse::<IpAddr>().map(IpNet::from).map_err(|_| error))?;
    Ok(in_ipv4(network).unwrap_or(network))
}

fn in_ipv4(network: IpNet) -> Option<IpNet> {
    let IpNet::V6(network) = network else { return None };
    let (address, length) = (network.addr().to_ipv4_mapped()?, network.prefix_len().checked_sub(96)?);
    Ipv4Net::new(address, length).ok().map(IpNet::V4)
}

impl FromStr for Denied {
    type Err = BadDenied;

    /// A network, an address, or a name as a URL would have it.
    fn from_str(text: &str) -> Result<Self, BadDenied> {
        let text = text.trim();
        if let Ok(network) = network(text) {
            return Ok(Self::Network(network));
        }
        match Host::parse(text.trim_end_matches('.')) {
            Ok(Host::Domain(name)) if !name.starts_with('.') => Ok(Self::Name(name)),
            Ok(Host::Ipv4(address)) => Ok(Self::Network(IpAddr::from(address).into())),
            Ok(Host::Domain(_) | Host::Ipv6(_)) | Err(_) => Err(BadDenied),
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Serialize for Denied {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Denied {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allow: &[&str], url: &str) -> Result<(), Refused> {
        let allow = allow.iter().map(|network| network.parse().unwrap()).collect();
        Rules { allow, ..Rules::default() }.check_url(&Url::parse(url).unwrap())
    }

    #[test]
    fn addresses_that_are_not_public_are_refused() {
        let rules = Rules::default();
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
            let refused = rules.check_address(address.parse().unwrap());
            assert!(matches!(refused, Err(Refused::Address { .. })), "{address} was let through");
        }
    }

    #[test]
    fn public_addresses_are_let_through() {
        let rules = Rules::default();
        #[rustfmt::skip]
        let public = [
            "1.0.0.1", "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
            "128.0.0.0", "168.63.129.15", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0",
            "192.0.3.0", "192.88.98.1", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "203.0.112.1",
            "203.0.114.1", "223.255.255.255", "::ffff:8.8.8.8", "2000::1", "2001:200::1", "2001:4860:4860::8888",
            "2606:4700:4700::1111", "2a00:1450::1", "3ffe::1",
        ];
        for address in public {
            assert!(rules.check_address(address.parse().unwrap()).is_ok(), "{address} was refused");
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

    #[test]
    fn what_is_denied_is_denied_though_it_is_allowed_or_public() {
        let deny = ["10.1.0.0/16", "8.8.8.8", "fd00::/8", "Internal.example.COM.", "bücher.example"];
        let deny = deny.map(|text| text.parse().unwrap()).to_vec();
        let rules = Rules { allow: vec!["10.0.0.0/8".parse().unwrap(), "fc00::/7".parse().unwrap()], deny, ports: Vec::new() };
        let check = |url: &str| rules.check_url(&Url::parse(url).unwrap());
        for url in [
            "http://10.1.2.3",
            "http://[::ffff:10.1.2.3]",
            "http://8.8.8.8",
            "http://134744072",
            "http://[fd00::1]",
            "http://internal.example.com",
            "http://INTERNAL.example.com./",
            "http://a.b.internal.example.com",
            "http://xn--bcher-kva.example",
            "http://bücher.example",
            "http://BÜCHER.example",
        ] {
            assert!(matches!(check(url), Err(Refused::Denied(_))), "{url} was let through");
        }
        for url in
            ["http://10.2.0.1", "http://8.8.4.4", "http://[fc00::1]", "http://example.com", "http://notinternal.example.com"]
        {
            assert!(check(url).is_ok(), "{url} was refused");
        }
        for text in ["", "a b", "http://example.com", ".example.com", "10.0.0.0/33", "example.com:80", "[::1]"] {
            assert!(text.parse::<Denied>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_network_of_mapped_addresses_is_that_of_the_others() {
        for (text, expected) in [
            ("::ffff:127.0.0.1", "127.0.0.1/32"),
            ("::ffff:10.1.0.0/112", "10.1.0.0/16"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("fd00::/8", "fd00::/8"),
        ] {
            assert_eq!(network(text).unwrap().to_string(), expected);
            assert_eq!(text.parse::<Denied>().unwrap().to_string(), expected);
        }
        let deny = vec!["::ffff:127.0.0.1".parse().unwrap()];
        let rules = Rules { allow: vec![network("127.0.0.1").unwrap()], deny, ports: Vec::new() };
        assert!(matches!(rules.check_url(&Url::parse("http://127.0.0.1").unwrap()), Err(Refused::Denied(_))));
    }

    #[test]
    fn only_the_ports_of_the_list_are_reached() {
        let rules = Rules { ports: vec![80, 8443], ..Rules::default() };
        let check = |url: &str| rules.check_url(&Url::parse(url).unwrap());
        assert!(check("http://example.com").is_ok() && check("https://example.com:8443").is_ok());
        for url in ["https://example.com", "http://example.com:22", "http://example.com:0"] {
            assert!(matches!(check(url), Err(Refused::Port(_))), "{url}");
        }
    }
}
