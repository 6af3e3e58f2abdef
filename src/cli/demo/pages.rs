use std::future::IntoFuture;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::response::Html;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::cli::error::CliError;

/// How long the server thinks about a page: what makes fetching it a wait.
const THINKING: Duration = Duration::from_millis(30);

/// Starts a small web server on this machine, and returns the URL of its pages, to which a page's number is appended. It runs as
/// long as the runtime.
pub(super) async fn start() -> Result<String, CliError> {
    let failed = |error| CliError::Prepare("start a web server with pages to fetch", error);
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let answer = async |Path(number): Path<usize>| {
        tokio::time::sleep(THINKING).await;
        Html(page(number))
    };
    tokio::spawn(axum::serve(listener, Router::new().route("/pages/{number}", get(answer))).into_future());
    Ok(format!("http://{address}/pages/"))
}

/// The page of this number.
pub(super) fn page(number: usize) -> String {
    let paragraphs: Vec<_> = (1..=20).map(|paragraph| format!("<p>Paragraph {paragraph} of page {number}.</p>\n")).collect();
    format!("<!doctype html>\n<title>Page {number}</title>\n{}", paragraphs.concat())
}
