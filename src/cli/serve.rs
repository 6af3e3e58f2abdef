use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpListener;

use super::error::CliError;
use super::print;
use crate::config::{Config, LogFormat};
use crate::{app, shutdown, telemetry};

/// Runs the service until it is told to stop.
pub(super) async fn run(config: Config) -> Result<(), CliError> {
    let _log = telemetry::init(&config.log, config.log_format == LogFormat::Json)?;
    let stop = shutdown::requested().map_err(CliError::Runtime)?;
    let (listener, url) = listen(config.listen, if config.tls_cert.is_some() { "https" } else { "http" }).await?;
    print::line(addresses(&url))?;
    Ok(app::serve(config, listener, stop).await?)
}

/// A listener, and the URL by which this machine reaches it.
pub(super) async fn listen(address: SocketAddr, scheme: &str) -> Result<(TcpListener, String), CliError> {
    let failed = |error| CliError::Listen(address, error);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let mut reached = listener.local_addr().map_err(failed)?;
    if reached.ip().is_unspecified() {
        reached.set_ip(if reached.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    Ok((listener, format!("{scheme}://{reached}")))
}

/// Where to find what.
pub(super) fn addresses(url: &str) -> String {
    format!("Trine listens at {url} - Swagger UI {url}/docs - results {url}/results")
}
