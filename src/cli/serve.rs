use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

use super::error::CliError;
use super::print;
use crate::config::{Config, LogFormat};
use crate::job::Role;
use crate::{app, own, shutdown, telemetry};

/// How many connections may wait to be accepted, as far as the system allows. Of a burst that finds no room here, each waits a second until
/// its client asks again.
const BACKLOG: u32 = 4096;

/// How the variables are introduced that [`unknown_variables`] finds.
pub(super) const UNKNOWN_VARIABLES: &str = "environment variables that begin with TRINE_ and are no settings";

/// Runs the service until it is told to stop.
pub(super) async fn run(config: Config) -> Result<(), CliError> {
    if config.data_dir.exists() && !config.data_dir.is_dir() {
        return Err(CliError::Usage(format!("the data folder {} (--data-dir) is no folder", config.data_dir.display())));
    }
    own::keep_private();
    let in_json = config.log_format == LogFormat::Json;
    let _log = telemetry::init(&config.log, in_json)?;
    if let Some(names) = unknown_variables() {
        tracing::warn!(names, "{UNKNOWN_VARIABLES}; `trine config` lists the settings");
    }
    let stop = shutdown::requested(config.tls_cert.is_none()).map_err(CliError::Runtime)?;
    let (listener, url) = listen(config.listen, if config.tls_cert.is_some() { "https" } else { "http" })?;
    let told = match config.role {
        Role::Work => format!("Trine runs jobs, and answers at {url}/readyz whether it can"),
        Role::All | Role::Api => addresses(&url),
    };
    let tell = move || {
        if in_json {
            tracing::info!("{told}");
        } else {
            // Whoever does not read it misses nothing else.
            drop(print::line(told));
        }
    };
    Ok(app::serve(config, listener, stop, tell).await?)
}

/// A listener, and the URL by which this machine reaches it.
pub(super) fn listen(address: SocketAddr, scheme: &str) -> Result<(TcpListener, String), CliError> {
    let failed = |error| CliError::Listen(address, error);
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
    // A server that is started again has its address at once.
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(address).map_err(failed)?;
    let listener = socket.listen(BACKLOG).map_err(failed)?;
    let mut reached = listener.local_addr().map_err(failed)?;
    if reached.ip().is_unspecified() {
        reached.set_ip(if reached.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    Ok((listener, format!("{scheme}://{reached}")))
}

/// The names of the variables that no command heeds, if there are any that look as if one did.
pub(super) fn unknown_variables() -> Option<String> {
    let unknown = unknown(&super::variables(), std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()));
    (!unknown.is_empty()).then(|| unknown.join(" "))
}

/// Which of the variables that are set are called like those of Trine and are not among them: slips of the pen, mostly.
fn unknown(known: &BTreeSet<String>, set: impl IntoIterator<Item = String>) -> Vec<String> {
    let set: BTreeSet<String> = set.into_iter().filter(|name| name.starts_with("TRINE_")).collect();
    // Kubernetes tells each container of each service: TRINE_SERVICE_HOST, TRINE_PORT and so on of one that is called trine.
    let services: Vec<&str> = set.iter().filter_map(|name| name.strip_suffix("_SERVICE_HOST")).collect();
    let of_a_service = |name: &str| {
        let rest = services.iter().filter_map(|service| name.strip_prefix(service));
        rest.into_iter().any(|rest| rest.starts_with("_SERVICE_") || rest.starts_with("_PORT"))
    };
    set.iter().filter(|name| !known.contains(*name) && !of_a_service(name)).cloned().collect()
}

/// Where to find what.
pub(super) fn addresses(url: &str) -> String {
    format!("Trine listens at {url} - Swagger UI {url}/docs - results {url}/results")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn slips_of_the_pen_are_found() {
        let of = |names: &[&str]| unknown(&crate::cli::variables(), names.iter().map(|&name| name.to_owned()));
        assert_eq!(of(&["TRINE_LISTEN", "TRINE_KEY", "TRINE_CONFIG", "HOME", "TRINE_LISSTEN"]), ["TRINE_LISSTEN"]);
        assert!(of(&["TRINE_SERVICE_HOST", "TRINE_SERVICE_PORT_HTTP", "TRINE_PORT", "TRINE_PORT_8040_TCP_ADDR"]).is_empty());
        assert_eq!(of(&["TRINE_PORT"]), ["TRINE_PORT"]);
    }

    #[tokio::test]
    async fn a_burst_of_connections_finds_room() {
        let (listener, _) = listen("127.0.0.1:0".parse().unwrap(), "http").unwrap();
        let address = listener.local_addr().unwrap();
        let mut open = Vec::new();
        // Nobody accepts them; without room, one of them would wait for ever.
        for _ in 0..500 {
            let connecting = tokio::time::timeout(Duration::from_secs(20), TcpStream::connect(address));
            open.push(connecting.await.expect("room for one more").unwrap());
        }
    }
}
