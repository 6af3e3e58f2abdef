//! A name server that says what a test wants it to say, over real UDP.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// Answers what is asked of it, until the test ends. Every answer may be forgotten at once.
///
/// - `7f000001.a.test` has that IPv4 address, and 32 digits before `.aaaa.test` are an IPv6 address;
/// - `X-then-Y.test` has the IPv4 address X the first time that it is asked for, then Y: it rebinds;
/// - `X-and-Y.test` has both at once;
/// - `X-alias.test` is another name of `X.a.test`.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<HashMap<String, usize>>>,
}

impl NameServer {
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::<Mutex<HashMap<String, usize>>>::default();
        let counts = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut message = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut message) {
                let (name, kind, end) = question(&message[..length]);
                let times = if kind == A {
                    let mut counts = counts.lock().unwrap();
                    let times = counts.entry(name.clone()).or_default();
                    *times += 1;
                    *times
                } else {
                    0
                };
                let _ = socket.send_to(&reply(&message[..end], kind, &records(&name, kind, times)), client);
            }
        });
        Self { address, asked }
    }

    /// How often it was asked for the IPv4 addresses of a name.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.asked.lock().unwrap().get(name).copied().unwrap_or_default()
    }
}

/// What a name has: the type of each record with its data.
fn records(name: &str, kind: u16, times: usize) -> Vec<(u16, Vec<u8>)> {
    let labels: Vec<_> = name.split('.').collect();
    let [first, middle @ .., "test"] = labels.as_slice() else { return Vec::new() };
    match (middle, kind) {
        (["a"], A) => v4(first).into_iter().collect(),
        (["aaaa"], AAAA) => v6(first).into_iter().collect(),
        ([], A) => {
            if let Some((before, after)) = first.split_once("-then-") {
                v4(if times == 1 { before } else { after }).into_iter().collect()
            } else if let Some((one, other)) = first.split_once("-and-") {
                v4(one).into_iter().chain(v4(other)).collect()
            } else if let Some(target) = first.strip_suffix("-alias") {
                let mut name = vec![8];
                name.extend(target.bytes().chain(*b"\x01a\x04test\0"));
                [(CNAME, name)].into_iter().chain(v4(target)).collect()
            } else {
                Vec::new()
            }
        }
        _ => Vec::new(),
    }
}

fn v4(digits: &str) -> Option<(u16, Vec<u8>)> {
    Some((A, Ipv4Addr::from(u32::from_str_radix(digits, 16).ok()?).octets().to_vec()))
}

fn v6(digits: &str) -> Option<(u16, Vec<u8>)> {
    Some((AAAA, Ipv6Addr::from(u128::from_str_radix(digits, 16).ok()?).octets().to_vec()))
}

/// The name that has this address alone.
pub(crate) fn name_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{:08x}.a.test", u32::from(address)),
        IpAddr::V6(address) => format!("{:032x}.aaaa.test", u128::from(address)),
    }
}

/// The name and type that are asked for, and where the question ends.
fn question(message: &[u8]) -> (String, u16, usize) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while message[at] > 0 {
        let end = at + 1 + usize::from(message[at]);
        labels.push(String::from_utf8_lossy(&message[at + 1..end]).to_ascii_lowercase());
        at = end;
    }
    (labels.join("."), u16::from_be_bytes([message[at + 1], message[at + 2]]), at + 5)
}

/// The question with its answers. The name of a record that follows an alias is not looked at closely: it is the one asked for.
fn reply(question: &[u8], kind: u16, records: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut reply = question.to_vec();
    reply[2..4].copy_from_slice(&[0x81, 0x80]);
    reply[6..12].copy_from_slice(&[0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0]);
    let mut owner = 12_u16;
    for (of, data) in records {
        assert!(*of == kind || *of == CNAME);
        reply.extend((0xc000 | owner).to_be_bytes());
        reply.extend(of.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 0]);
        reply.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        if *of == CNAME {
            // What comes next belongs to the name that the alias leads to.
            owner = u16::try_from(reply.len()).unwrap();
        }
        reply.extend(data);
    }
    reply
}
