//! Names, and the addresses of theirs that may be reached.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use moka::future::Cache;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::{OutboundError, Refused, Rules};

/// Long enough that thousands of requests to one name ask for it once, short enough that a change is seen soon.
const NAME_TTL: Duration = Duration::from_secs(10);
const MAX_NAMES: u64 = 10_000;
/// How many names the system is asked for at once: each takes a thread until there is an answer, and nothing ends it before.
pub const LOOKUPS: usize = 32;

/// Resolves names to the addresses that may be reached.
pub(super) struct Names {
    rules: Arc<Rules>,
    lookup: Lookup,
    known: Cache<String, Arc<[SocketAddr]>>,
}

/// Who knows the addresses of names.
#[derive(Clone)]
enum Lookup {
    /// The system, by whatever means it is set up for, and so many at once.
    System(Arc<Semaphore>),
    /// Name servers that the operator chose, and nobody else.
    Servers(Arc<TokioResolver>),
}

impl Names {
    pub(super) fn new(rules: Arc<Rules>, servers: &[SocketAddr]) -> Result<Self, OutboundError> {
        let lookup = if servers.is_empty() { Lookup::of_system() } else { Lookup::of_servers(servers)? };
        Ok(Self { rules, lookup, known: Cache::builder().max_capacity(MAX_NAMES).time_to_live(NAME_TTL).build() })
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let (rules, lookup, known) = (Arc::clone(&self.rules), self.lookup.clone(), self.known.clone());
        Box::pin(async move {
            let permitted = async { permitted(&rules, name.as_str(), lookup.addresses(name.as_str()).await) };
            let addresses = known.try_get_with_by_ref(name.as_str(), permitted).await?;
            Ok(Box::new(Vec::from(&*addresses).into_iter()) as Addrs)
        })
    }
}

/// Of the addresses of a name those that may be reached; at least one.
fn permitted(rules: &Rules, name: &str, found: io::Result<Vec<IpAddr>>) -> Result<Arc<[SocketAddr]>, Refused> {
    let unknown = |error| Refused::Name { name: name.to_owned(), error };
    let mut refused = None;
    let mut permitted = Vec::new();
    for address in found.map_err(unknown)? {
        match rules.check_address(address) {
            // The HTTP library puts the port in.
            Ok(()) => permitted.push(SocketAddr::new(address, 0)),
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        _ if !permitted.is_empty() => Ok(permitted.into()),
        Some(error) => {
            tracing::debug!(name, %error, "a name leads to no address that may be reached");
            Err(Refused::Hidden(name.to_owned()))
        }
        None => Err(unknown(io::Error::other("it has no address"))),
    }
}

impl Lookup {
    fn of_system() -> Self {
        Self::System(Arc::new(Semaphore::new(LOOKUPS)))
    }

    fn of_servers(servers: &[SocketAddr]) -> Result<Self, OutboundError> {
        let servers = servers.iter().map(|server| {
            let at_port = |mut connection: ConnectionConfig| {
                connection.port = server.port();
                connection
            };
            NameServerConfig::new(server.ip(), true, vec![at_port(ConnectionConfig::udp()), at_port(ConnectionConfig::tcp())])
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        // What is known is kept here, after it was checked.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        builder.build().map(Arc::new).map(Self::Servers).map_err(|error| OutboundError::Names(error.to_string()))
    }

    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match self {
            Self::System(turns) => {
                let name = name.to_owned();
                asked(turns, move || Ok((&*name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())).await
            }
            Self::Servers(servers) => {
                // Whole as it is: no domain is tried behind it.
                let whole = format!("{}.", name.trim_end_matches('.'));
                Ok(servers.lookup_ip(whole).await.map_err(io::Error::other)?.iter().collect())
            }
        }
    }
}

/// Asks the system when it is this one's turn. What nobody waits for any more never begins; what has begun keeps its turn and its thread
/// until there is an answer.
async fn asked<T: Send + 'static>(turns: &Arc<Semaphore>, ask: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let turn = Arc::clone(turns).acquire_owned().await.map_err(io::Error::other)?;
    let asking = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        ask()
    });
    AbortOnDropHandle::new(asking).await.map_err(io::Error::other).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::sync::mpsc;

    fn resolve(allow: &str, name: &str) -> Resolving {
        let allow = allow.split_terminator(',').map(|network| network.parse().unwrap()).collect();
        let rules = Arc::new(Rules { allow, ..Rules::default() });
        Names::new(rules, &[]).unwrap().resolve(name.parse().unwrap())
    }

    #[tokio::test]
    async fn a_name_gives_only_the_addresses_that_may_be_reached() {
        let Err(refused) = resolve("", "localhost").await else { panic!("localhost was let through") };
        // Nor is said what it leads to.
        let expected = "the name localhost leads to no address that may be reached: to none that is public or in `http_allow`, and not in `http_deny`";
        assert_eq!(refused.to_string(), expected);
        // Of both of its addresses, where there are two, only the allowed one is left.
        let found: Vec<_> = resolve("127.0.0.1/32", "localhost").await.unwrap().map(|address| address.ip()).collect();
        assert!(!found.is_empty() && found.iter().all(|address| *address == IpAddr::from([127, 0, 0, 1])), "{found:?}");
    }

    #[test]
    fn lookups_that_nobody_waits_for_take_no_threads() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(2).build().unwrap();
        runtime.block_on(async {
            let turns = Arc::new(Semaphore::new(1));
            let (answer, answered) = mpsc::channel::<()>();
            let (begin, begun) = tokio::sync::oneshot::channel();
            let mut dead = Box::pin(asked(&turns, move || {
                let _ = begin.send(());
                answered.recv().map_err(io::Error::other)
            }));
            assert!((&mut dead).now_or_never().is_none());
            begun.await.unwrap();
            drop(dead);
            for _ in 0..300 {
                assert!(asked(&turns, || -> io::Result<()> { panic!("nobody waits for it") }).now_or_never().is_none());
            }
            // There is a thread for others, and once there is an answer, for the next lookup.
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            answer.send(()).unwrap();
            assert_eq!(asked(&turns, || Ok(7)).await.unwrap(), 7);
        });
    }

    #[tokio::test]
    async fn a_name_that_nobody_can_have_fails() {
        // A label has at most 63 letters, so that no server needs to be asked.
        let name = format!("{}.invalid", "a".repeat(64));
        let Err(refused) = resolve("", &name).await else { panic!("it was found") };
        assert!(refused.to_string().starts_with(&format!("the name {name} can't be resolved: ")), "{refused}");
    }
}
