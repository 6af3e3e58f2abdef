//! The addresses that belong to no public host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Why an address is not public; `None` if it is. An IPv4 address in the clothes of IPv6 has been unwrapped before.
pub(super) fn reason(address: IpAddr) -> Option<String> {
    let special = SPECIAL.iter().find(|(network, _)| network.contains(&address));
    special.map(|(network, purpose)| format!("{network} is {purpose}")).or_else(|| {
        let is_outside = matches!(address, IpAddr::V6(address) if !GLOBAL_V6.contains(&address));
        is_outside.then(|| format!("it lies outside of {GLOBAL_V6}"))
    })
}

/// The only IPv6 network of which any part is public.
const GLOBAL_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Networks that are not public, from the IANA registry of special-purpose addresses: of IPv6 the parts of [`GLOBAL_V6`], and others that
/// deserve a name.
const SPECIAL: [(IpNet, &str); 28] = [
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
    (IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128)), "this host"),
    (IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)), "this host (loopback)"),
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

const fn v4([a, b, c, d]: [u8; 4], prefix: u8, purpose: &'static str) -> (IpNet, &'static str) {
    (IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)), purpose)
}

const fn v6([a, b, c]: [u16; 3], prefix: u8, purpose: &'static str) -> (IpNet, &'static str) {
    (IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)), purpose)
}
