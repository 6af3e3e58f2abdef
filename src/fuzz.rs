//! What is fuzzed: whatever comes from outside, a function for each kind of it. `fuzz/` runs them on what it makes up, the test here on
//! the corpus that it has found.
//!
//! Each reads any bytes without a panic, and checks what has to be true of what could be read.
#![allow(clippy::missing_panics_doc, reason = "a panic is what is looked for")]

use std::net::IpAddr;
use std::sync::LazyLock;

use url::{Host, Url};

use crate::clock::Timestamp;
use crate::function::open_archive;
use crate::outbound::{Outbound, OutboundSettings};
use crate::schedule::Timetable;

pub use crate::api::fuzz::{job, query};
pub use crate::executor::fuzz::frames;

/// The moments that a cron expression names: a time zone, a line break and an expression.
pub fn cron(data: &[u8]) {
    let Some((zone, expression)) = std::str::from_utf8(data).ok().and_then(|text| text.split_once('\n')) else { return };
    let Ok(table) = Timetable::parse(expression, zone) else { return };
    let start = Timestamp::from_micros(1_774_742_400_500_000);
    let ahead: Vec<_> = table.from(start).take(3).collect();
    assert!(ahead.is_sorted_by(|a, b| a < b) && ahead.iter().all(|moment| *moment >= start), "{ahead:?}");
    let back: Vec<_> = table.before(start).take(3).collect();
    assert!(back.is_sorted_by(|a, b| a > b) && back.iter().all(|moment| *moment < start), "{back:?}");
}

/// The zip of a function.
pub fn archive(data: &[u8]) {
    if let Ok(source) = open_archive(data, "main") {
        assert!(data.len() >= 22, "{source:?} from less than a zip has at its end");
    }
}

/// Where a request may go: what is let through by the look of its URL is no address of this machine or of a network of its own.
pub fn guard(data: &[u8]) {
    static OUTBOUND: LazyLock<Option<Outbound>> = LazyLock::new(|| Outbound::new(&OutboundSettings::default()).ok());
    let Some(url) = std::str::from_utf8(data).ok().and_then(|text| Url::parse(text).ok()) else { return };
    let Some(Ok(())) = OUTBOUND.as_ref().map(|outbound| outbound.check(&url)) else { return };
    assert!(matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none(), "{url}");
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::from(address),
        Some(Host::Ipv6(address)) => IpAddr::from(address).to_canonical(),
        Some(Host::Domain(name)) => return assert!(name.parse::<IpAddr>().is_err(), "{url}"),
        None => return,
    };
    let public = match address {
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            !(v4.is_private()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_documentation()
                || v4.octets()[0] == 0
                || shared)
        }
        IpAddr::V6(v6) => !(v6.is_unique_local() || v6.is_unicast_link_local() || v6.to_ipv4().is_some()),
    };
    assert!(public && !address.is_loopback() && !address.is_unspecified() && !address.is_multicast(), "{url}");
}

/// Reads anything.
pub type Target = fn(&[u8]);

/// All of them, by the names of their folders.
pub const TARGETS: [(&str, Target); 6] =
    [("job", job), ("query", query), ("frames", frames), ("cron", cron), ("archive", archive), ("guard", guard)];

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let files = std::fs::read_dir(folder).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
        let mut files: Vec<_> = files.collect();
        files.sort();
        files
    }

    #[test]
    fn the_corpus_is_read() {
        for (name, target) in TARGETS {
            let corpus = corpus(name);
            assert!(!corpus.is_empty(), "{name}");
            for data in corpus {
                target(&data);
            }
        }
    }

    /// What `scripts/fuzz.sh` does for as long as one likes, for a moment and without looking where it leads.
    #[test]
    fn what_is_near_the_corpus_is_read() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for (name, target) in TARGETS {
            let corpus = corpus(name);
            for _ in 0..2_000 {
                let mut data = random.choice(&corpus).unwrap().clone();
                for _ in 0..random.usize(1..4) {
                    change(&mut data, &mut random, &corpus);
                }
                target(&data);
            }
        }
    }

    fn change(data: &mut Vec<u8>, random: &mut fastrand::Rng, corpus: &[Vec<u8>]) {
        let (a, b) = (random.usize(..=data.len()), random.usize(..=data.len()));
        let (from, to) = (a.min(b), a.max(b));
        match random.u8(..5) {
            0 if from < data.len() => data[from] ^= 1 << random.u8(..8),
            1 if from < data.len() => data[from] = random.u8(..),
            2 => drop(data.drain(from..to)),
            3 => data.extend_from_within(from..to),
            _ => {
                let other = random.choice(corpus).unwrap();
                data.truncate(from);
                data.extend_from_slice(&other[random.usize(..=other.len())..]);
            }
        }
    }
}
