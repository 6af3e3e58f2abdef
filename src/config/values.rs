//! How the values of settings are written.

use std::net::SocketAddr;
use std::num::{IntErrorKind, ParseIntError};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use url::{Host, Url};

use super::NamedProgram;
use crate::clock;
use crate::function::LEAST_MEMORY;
use crate::job::Secret;
use crate::store::postgres::LEAST_CONNECTIONS;

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(super) fn whole<T: FromStr<Err = ParseIntError>>(text: &str) -> Result<T, &'static str> {
    text.parse().map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => "is too large",
        _ => "must be a whole number",
    })
}

pub(super) fn at_least_one<T: FromStr<Err = ParseIntError> + From<u8> + PartialOrd>(text: &str) -> Result<T, String> {
    match whole(text) {
        Ok(number) if number >= T::from(1) => Ok(number),
        Ok(_) => Err("must be at least 1".to_owned()),
        Err(wrong) => Err(wrong.to_owned()),
    }
}

pub(super) fn connections(text: &str) -> Result<u32, String> {
    let connections = whole(text)?;
    if connections < LEAST_CONNECTIONS { Err(format!("must be at least {LEAST_CONNECTIONS}")) } else { Ok(connections) }
}

/// Far more than any machine has use for: of more, it would stand still before it could say why.
const MOST_THREADS: usize = 16_384;
pub(super) const MOST_PROCESSES: usize = 1_024;

pub(super) fn threads(text: &str) -> Result<usize, String> {
    at_most(MOST_THREADS, text)
}

pub(super) fn processes(text: &str) -> Result<usize, String> {
    at_most(MOST_PROCESSES, text)
}

fn at_most(most: usize, text: &str) -> Result<usize, String> {
    let number = at_least_one(text)?;
    if number > most { Err(format!("must be at most {most}")) } else { Ok(number) }
}

pub(super) fn memory(text: &str) -> Result<u64, String> {
    let bytes = whole(text)?;
    if bytes < LEAST_MEMORY { Err(format!("must be at least {LEAST_MEMORY}")) } else { Ok(bytes) }
}

/// An address with a port. Names have several addresses, and no server listens at a part of them by mistake.
pub(super) fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.trim().parse().map_err(|_| "must be an address and a port, such as 127.0.0.1:8040, [::1]:8040 or 0.0.0.0:8040")
}

pub(super) fn millis(text: &str) -> Result<Duration, &'static str> {
    whole(text).map(Duration::from_millis).map_err(|_| "must be a whole number of milliseconds, such as 5000")
}

pub(super) fn some_millis(text: &str) -> Result<Duration, String> {
    let duration = millis(text)?;
    if duration.is_zero() { Err("must be at least 1".to_owned()) } else { Ok(duration) }
}

/// Of less, a third is no time to be heard of in. Who writes 30 means seconds.
pub(super) fn a_second_at_least(text: &str) -> Result<Duration, String> {
    let duration = millis(text)?;
    if duration < Duration::from_secs(1) { Err("must be at least 1000".to_owned()) } else { Ok(duration) }
}

/// A message that is on its way for much longer is taken for one whose server is gone.
pub(super) fn a_minute_at_most(text: &str) -> Result<Duration, String> {
    let duration = some_millis(text)?;
    if duration > Duration::from_mins(1) { Err("must be at most 60000".to_owned()) } else { Ok(duration) }
}

pub(super) fn as_millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    clock::millis(*duration).serialize(serializer)
}

/// As many secrets as there are, but not what they are.
pub(super) fn hidden<S: Serializer>(secrets: &[Secret], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(secrets.iter().map(|_| "whsec_…"))
}

/// A program, with the name of its file unless it is given another.
pub(super) fn interpreter(text: &str) -> Result<NamedProgram, &'static str> {
    let (name, program) = match text.trim().split_once('=') {
        Some((name, program)) => (Some(name.trim()), Path::new(program.trim())),
        None => (None, Path::new(text.trim())),
    };
    let name = name.or_else(|| program.file_name()?.to_str()).filter(|name| !name.is_empty());
    Ok(NamedProgram { name: name.ok_or("must be NAME=PROGRAM or PROGRAM")?.to_owned(), program: program.to_owned() })
}

/// An origin as browsers write it, or all of them.
pub(super) fn origin(text: &str) -> Result<String, &'static str> {
    let text = text.trim().trim_end_matches('/');
    if text == "*" {
        return Ok(text.to_owned());
    }
    let origin =
        Url::parse(text).ok().map(|url| url.origin()).filter(url::Origin::is_tuple).map(|origin| origin.ascii_serialization());
    origin.filter(|origin| origin.eq_ignore_ascii_case(text)).ok_or("must be an origin such as https://example.com, or *")
}

/// A name without a port.
pub(super) fn host(text: &str) -> Result<String, &'static str> {
    match Host::parse(text.trim().trim_end_matches('.')) {
        Ok(Host::Domain(name)) => Ok(name),
        Ok(_) => Err("an address needs no permission"),
        Err(_) => Err("must be a host's name such as trine.example.com"),
    }
}

/// What a server is called: a word, as the names of hosts are.
pub(super) fn node_name(text: &str) -> Result<String, &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:@".contains(c);
    match text.len() {
        1..=128 if text.chars().all(plain) => Ok(text.to_owned()),
        _ => Err("must have 1 to 128 letters, digits, and any of - _ . : @"),
    }
}

/// A word alone is a level. Otherwise it would be taken for a module, the only one to be logged, and a slip such as `inof` be silence.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    let alone = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let mut words = text.split(',').map(str::trim).filter(alone);
    if let Some(word) = words.find(|word| *word != "trine" && word.parse::<LevelFilter>().is_err()) {
        return Err(format!(
            "{word} is none of off, error, warn, info, debug and trace; a module has one of them, as in hyper=debug"
        ));
    }
    EnvFilter::builder().parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_has_a_minute_at_most() {
        assert_eq!(a_minute_at_most("60000"), Ok(Duration::from_mins(1)));
        for text in ["0", "60001"] {
            assert!(a_minute_at_most(text).is_err(), "{text}");
        }
    }

    #[test]
    fn threads_and_processes_have_a_bound() {
        assert_eq!((threads("1"), processes("1")), (Ok(1), Ok(1)));
        assert_eq!((threads("16384"), processes("1024")), (Ok(MOST_THREADS), Ok(MOST_PROCESSES)));
        for text in ["0", "16385", "18446744073709551615"] {
            assert!(threads(text).is_err() && processes(text).is_err(), "{text}");
        }
        assert_eq!(processes("1025").unwrap_err(), "must be at most 1024");
    }

    #[test]
    fn an_interpreter_has_the_memory_that_it_needs() {
        assert_eq!(memory("67108864"), Ok(LEAST_MEMORY));
        assert_eq!(memory("67108863").unwrap_err(), "must be at least 67108864");
    }

    #[test]
    fn origins_and_hosts_are_written_as_browsers_do() {
        assert_eq!(origin(" HTTPS://Example.com:8443/ ").unwrap(), "https://example.com:8443");
        assert_eq!(origin("*").unwrap(), "*");
        for text in ["", "example.com", "https://example.com/path", "https://user@example.com", "null", "file:///x"] {
            assert!(origin(text).is_err(), "{text}");
        }
        assert_eq!(host("Trine.Example.com.").unwrap(), "trine.example.com");
        for text in ["", "10.0.0.1", "a b", "example.com:80"] {
            assert!(host(text).is_err(), "{text}");
        }
    }
}
