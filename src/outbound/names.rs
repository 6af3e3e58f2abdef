//! Names, and the addresses of theirs that may be reached.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use moka::future::Cache;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{OutboundError, Refused, Rules};

/// Long enough that thousands of requests to one name ask for it once, short enough that a change is seen soon.
const NAME_TTL: Duration = Duration::from_secs(10);
const MAX_NAMES: u64 = 10_000;

/// Resolves names to the addresses that may be reached.
pub(super) struct Names {
    rules: Arc<Rules>,
    lookup: Lookup,
    known: Cache<String, Arc<[SocketAddr]>>,
}

/// Who knows the addresses of names.
#[derive(Clone)]
enum Lookup {
    /// The system, by whatever means it is set up for.
    System,
    /// Name servers that the operator chose, and nobody else.
    Servers(Arc<TokioResolver>),
}

impl Names {
    pub(super) fn new(rules: Arc<Rules>, servers: &[SocketAddr]) -> Result<Self, OutboundError> {
        let lookup = if servers.is_empty() { Lookup::System } else { Lookup::of_servers(servers)? };
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
        Some(error) => Err(error),
        None => Err(unknown(io::Error::other("it has no address"))),
    }
}

impl Lookup {
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
            Self::System => Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect()),
            Self::Servers(servers) => {
                // Whole as it is: no domain is tried behind it.
                let whole = format!("{}.", name.trim_end_matches('.'));
                Ok(servers.lookup_ip(whole).await.map_err(io::Error::other)?.iter().collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(allow: &str, name: &str) -> Resolving {
        let allow = allow.split_terminator(',').map(|network| network.parse().unwrap()).collect();
        let rules = Arc::new(Rules { allow, ..Rules::default() });
        Names::new(rules, &[]).unwrap().resolve(name.parse().unwrap())
    }

    #[tokio::test]
    async fn a_name_gives_only_the_addresses_that_may_be_reached() {
        let Err(refused) = resolve("", "localhost").await else { panic!("localhost was let through") };
        assert!(refused.to_string().contains("(loopback)"), "{refused}");
        // Of both of its addresses, where there are two, only the allowed one is left.
        let found: Vec<_> = resolve("127.0.0.1/32", "localhost").await.unwrap().map(|address| address.ip()).collect();
        assert!(!found.is_empty() && found.iter().all(|address| *address == IpAddr::from([127, 0, 0, 1])), "{found:?}");
    }

    #[tokio::test]
    async fn a_name_that_nobody_can_have_fails() {
        // A label has at most 63 letters, so that no server needs to be asked.
        let name = format!("{}.invalid", "a".repeat(64));
        let Err(refused) = resolve("", &name).await else { panic!("it was found") };
        assert!(refused.to_string().starts_with(&format!("the name {name} can't be resolved: ")), "{refused}");
    }
}
