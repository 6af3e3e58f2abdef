//! A kept-alive HTTP/1.1 connection that costs as little as can be: it shares the cores with the server that it drives.

use std::net::SocketAddr;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Result;

/// One connection, one request at a time.
pub(crate) struct Connection {
    stream: TcpStream,
    /// The latest response, from its first byte; reused, so that a request allocates nothing.
    buffer: Vec<u8>,
}

/// A response, in the buffer of its connection.
pub(crate) struct Response<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

/// What the head of a response says, and its length in bytes.
struct Head {
    length: usize,
    status: u16,
    body: usize,
}

/// A request as it goes over the wire. `headers` are whole lines.
pub(crate) fn request(method: &str, target: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 4096] })
    }

    /// Sends what [`request`] made and reads the whole response.
    pub(crate) async fn send(&mut self, request: &[u8]) -> Result<Response<'_>> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        let head = loop {
            if filled == self.buffer.len() {
                self.buffer.resize(2 * filled, 0);
            }
            match self.stream.read(&mut self.buffer[filled..]).await? {
                0 => return Err("the server closed the connection".into()),
                read => filled += read,
            }
            if let Some(head) = Head::parse(&self.buffer[..filled])? {
                break head;
            }
        };
        let end = head.length + head.body;
        if end > self.buffer.len() {
            self.buffer.resize(end, 0);
        }
        if end > filled {
            self.stream.read_exact(&mut self.buffer[filled..end]).await?;
        }
        Ok(Response { status: head.status, body: &self.buffer[head.length..end] })
    }

    /// Sends a request that must be answered with this status, and reads the JSON of the response.
    pub(crate) async fn json<T: DeserializeOwned>(&mut self, request: &[u8], status: u16) -> Result<T> {
        let response = self.send(request).await?;
        response.expect(status)?;
        Ok(serde_json::from_slice(response.body)?)
    }

    /// Gets a JSON document.
    pub(crate) async fn get<T: DeserializeOwned>(&mut self, target: &str) -> Result<T> {
        self.json(&request("GET", target, "", ""), 200).await
    }
}

impl Response<'_> {
    /// An error with the text of the response, unless it has this status.
    pub(crate) fn expect(&self, status: u16) -> Result<()> {
        if self.status == status {
            return Ok(());
        }
        Err(format!("status {} instead of {status}: {}", self.status, String::from_utf8_lossy(self.body)).into())
    }
}

impl Head {
    /// `None` if the bytes end within the head.
    fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(length) = response.parse(bytes)? else {
            return Ok(None);
        };
        let body = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let body = body.ok_or("a response without Content-Length")?;
        let body = std::str::from_utf8(body.value)?.parse()?;
        Ok(Some(Self { length, status: response.code.unwrap_or_default(), body }))
    }
}
