//! What the server and a worker process say to each other: JSON in frames with a length of four bytes before each.
//!
//! The server speaks first with [`ToWorker::Setup`]; the worker answers [`FromWorker::Ready`], then does one [`ToWorker::Run`] after
//! the other and answers each with [`FromWorker::Done`], after any number of [`FromWorker::Note`]s.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::net::UnixStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::clock::Stopwatch;
use crate::job::{Failure, Note, Output};
use crate::measure::Usage;
use crate::workload::{StopReason, WorkloadSettings};

/// The longest message, in bytes.
const LONGEST: usize = 64 << 20;
/// The longest output: a message has a little more in it.
pub(super) const LONGEST_OUTPUT: usize = LONGEST - (64 << 10);

/// From the server.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToWorker {
    /// What workloads may reach.
    Setup(WorkloadSettings),
    /// Run this.
    Run(Box<RunRequest>),
    /// End what runs early.
    Stop(StopReason),
}

/// A workload to run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RunRequest {
    /// Its name.
    pub kind: String,
    /// The whole object.
    pub workload: Box<RawValue>,
}

/// From the worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromWorker {
    /// It waits for work.
    Ready,
    /// It can't work, and ends.
    Unable(String),
    /// What runs says this of itself.
    Note(Note),
    /// What was asked for has ended.
    Done(Box<Report>),
}

/// How an attempt ended in a worker, and what was measured there.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    /// What the workload returned, or why it returned nothing.
    pub result: Result<Output, Failure>,
    /// When the work began, by clocks that all processes of a machine share.
    pub began: Stopwatch,
    /// How long it took, in microseconds.
    pub wall_us: u64,
    /// What the whole process used meanwhile.
    pub usage: Usage,
    /// Its peak resident memory meanwhile, in bytes.
    pub max_rss_bytes: Option<u64>,
    /// How long the thread that did it could have run and had no core, in microseconds.
    pub core_wait_us: Option<u64>,
}

/// Why a message did not arrive.
#[derive(Debug, thiserror::Error)]
pub(in crate::executor) enum ProtocolError {
    /// The other side is gone.
    #[error("the other side is gone")]
    Gone,
    /// The socket failed, or the message is too long.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The message is something else.
    #[error("not a message of this protocol: {0}")]
    Json(#[from] serde_json::Error),
}

/// One end of the conversation.
#[derive(Debug)]
pub(super) struct Channel(Framed<UnixStream, LengthDelimitedCodec>);

impl Channel {
    /// Speaks over this socket.
    pub(super) fn new(socket: UnixStream) -> Self {
        Self(LengthDelimitedCodec::builder().max_frame_length(LONGEST).new_framed(socket))
    }

    /// Sends a message.
    pub(super) async fn send(&mut self, message: &impl Serialize) -> Result<(), ProtocolError> {
        let bytes = Bytes::from(serde_json::to_vec(message)?);
        Ok(self.0.send(bytes).await?)
    }

    /// Waits for a message. Dropping the future loses none.
    pub(super) async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, ProtocolError> {
        let bytes = self.0.next().await.ok_or(ProtocolError::Gone)??;
        Ok(serde_json::from_slice(&bytes)?)
    }
}

/// Whether this is what a worker says.
#[cfg(any(test, fuzzing))]
pub(in crate::executor) fn understand(frame: &[u8]) -> bool {
    serde_json::from_slice::<FromWorker>(frame).is_ok()
}
