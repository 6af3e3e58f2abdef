//! Server-sent events as a client reads them: across connections that break, from the event on that was read last.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;
use reqwest::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::answer::{parse, written};
use super::client::Client;
use super::error::CliError;
use super::print::on_one_line;
use crate::job::{Failure, FailureKind};

/// How long a server that went away is waited for, and the wait between two tries.
pub(super) const PATIENCE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_millis(300));

/// An event as it was sent.
#[derive(Serialize)]
pub(super) struct Sent {
    pub(super) id: String,
    pub(super) event: String,
    pub(super) data: Box<RawValue>,
}

/// What people are shown of an event.
#[derive(Deserialize)]
pub(super) struct Happened {
    pub(super) job: String,
    pub(super) at: String,
    #[serde(default)]
    pub(super) line: String,
    #[serde(default)]
    pub(super) state: Option<String>,
    #[serde(default)]
    attempt: u32,
    #[serde(default)]
    executor: String,
    #[serde(default)]
    value: Option<Box<RawValue>>,
    #[serde(default)]
    error: Option<Failure>,
    #[serde(default)]
    due_at: String,
    #[serde(default)]
    output: Option<Box<RawValue>>,
}

impl Sent {
    pub(super) fn happened(&self) -> Result<Happened, CliError> {
        parse(&self.data)
    }
}

impl Happened {
    /// What happened, on one line.
    pub(super) fn in_words(&self, event: &str) -> String {
        let Self { attempt, executor, value, line, due_at, .. } = self;
        let error = match &self.error {
            Some(Failure { kind: FailureKind::Error, message, .. }) => message.clone(),
            Some(failure) => failure.to_string(),
            None => String::new(),
        };
        let (word, rest) = match event {
            "running" => (event, format!("attempt {attempt} on {executor}")),
            "progress" => (event, written(value.as_deref()).to_owned()),
            "log" => (event, line.clone()),
            "retrying" => (event, format!("attempt {attempt}: {error}; again at {due_at}")),
            "finished" => {
                let rest = if self.error.is_some() { error } else { written(self.output.as_deref()).to_owned() };
                (self.state.as_deref().unwrap_or(event), rest)
            }
            _ => (event, String::new()),
        };
        on_one_line(format!("{word:<9} {rest}").trim_end())
    }
}

/// The events of a stream.
pub(super) struct Events<'a, Q> {
    client: &'a Client,
    path: String,
    query: Q,
    /// The id of the last event that was read.
    last: Option<String>,
    /// The server answered at least once: it is worth waiting for.
    known: bool,
    connection: Option<Connection>,
}

struct Connection {
    response: Response,
    parser: Parser,
}

/// Takes in a stream in whatever pieces.
#[derive(Default)]
struct Parser {
    unread: BytesMut,
    next: Fields,
    whole: VecDeque<Sent>,
}

#[derive(Default)]
struct Fields {
    id: String,
    event: String,
    data: String,
}

impl<'a, Q: Serialize> Events<'a, Q> {
    /// Those at `path`. Connects when the first one is asked for.
    pub(super) fn new(client: &'a Client, path: impl Into<String>, query: Q) -> Self {
        Self { client, path: path.into(), query, last: None, known: false, connection: None }
    }

    /// The same of what the server has just accepted: it is waited for from the beginning.
    pub(super) fn of_accepted(client: &'a Client, path: impl Into<String>, query: Q) -> Self {
        Self { known: true, ..Self::new(client, path, query) }
    }

    /// The next event; `None` once the server says that there are no more.
    pub(super) async fn next(&mut self) -> Result<Option<Sent>, CliError> {
        let mut given_up = None;
        loop {
            let read = match &mut self.connection {
                Some(connection) => connection.read(self.client).await,
                None => match self.client.stream(&self.path, &self.query, self.last.as_deref()).await {
                    Ok(Some(response)) => {
                        self.known = true;
                        self.connection = Some(Connection::new(response));
                        continue;
                    }
                    Ok(None) => return Ok(None),
                    Err(error) => Err(error),
                },
            };
            match read {
                Ok(Some(sent)) => {
                    self.last = Some(sent.id.clone());
                    // Some tell only where to go on.
                    if !sent.event.is_empty() {
                        return Ok(Some(sent));
                    }
                    given_up = None;
                }
                // The server ended the stream: it asks to come back, or says that there is no more.
                Ok(None) => self.connection = None,
                Err(error) if self.known && error.may_pass() => {
                    self.connection = None;
                    if Instant::now() >= *given_up.get_or_insert_with(|| Instant::now() + PATIENCE.0) {
                        return Err(error);
                    }
                    tokio::time::sleep(PATIENCE.1).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Connection {
    fn new(response: Response) -> Self {
        Self { response, parser: Parser::default() }
    }

    async fn read(&mut self, client: &Client) -> Result<Option<Sent>, CliError> {
        loop {
            if let Some(sent) = self.parser.whole.pop_front() {
                return Ok(Some(sent));
            }
            match self.response.chunk().await {
                Ok(Some(bytes)) => self.parser.take(&bytes)?,
                Ok(None) => return Ok(None),
                Err(error) => return Err(client.unreachable(&error)),
            }
        }
    }
}

impl Parser {
    fn take(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.unread.extend_from_slice(bytes);
        while let Some(end) = memchr::memchr(b'\n', &self.unread) {
            let line = self.unread.split_to(end + 1);
            let line = String::from_utf8_lossy(&line[..end]);
            match line.split_once(':').map(|(name, value)| (name, value.strip_prefix(' ').unwrap_or(value))) {
                Some(("id", value)) => value.clone_into(&mut self.next.id),
                Some(("event", value)) => value.clone_into(&mut self.next.event),
                Some(("data", value)) => self.next.data.push_str(value),
                // An empty line ends an event; anything else, such as a comment, says nothing.
                None if line.is_empty() && !self.next.id.is_empty() => {
                    let Fields { id, event, data } = std::mem::take(&mut self.next);
                    let data = if data.is_empty() { "null".to_owned() } else { data };
                    let data = RawValue::from_string(data).map_err(|error| CliError::NotTrine(error.to_string()))?;
                    self.whole.push_back(Sent { id, event, data });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_from_whatever_pieces() {
        let text = "id: 7\n\n: keep-alive\n\nid: 8\nevent: log\ndata: {\"job\":\"j\",\"at\":\"t\",\"attempt\":1,\"line\":\"ü\"}\n\nid: 9\nev";
        for size in [1, 3, 1_000] {
            let mut parser = Parser::default();
            text.as_bytes().chunks(size).for_each(|piece| parser.take(piece).unwrap());
            let read: Vec<_> = std::iter::from_fn(|| parser.whole.pop_front()).collect();
            let ids: Vec<_> = read.iter().map(|sent| (sent.id.as_str(), sent.event.as_str())).collect();
            assert_eq!(ids, [("7", ""), ("8", "log")]);
            assert_eq!(read[1].happened().unwrap().in_words("log"), "log       ü");
        }
    }
}
