//! What is between a node and its database, and loses what it is told to lose.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Its connections end with it.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    faults: Arc<Faults>,
    _connections: JoinSet<()>,
}

#[derive(Default)]
struct Faults {
    /// The most bytes of answers that a connection passes on; then it stands still.
    most: Option<usize>,
    /// The next turn's commit is carried out, and its answer is lost with the connection.
    cut: AtomicBool,
    happened: Notify,
}

impl Proxy {
    /// One to a database at this address that stands still behind so many bytes of answers.
    pub(crate) async fn that_stalls(address: (Ipv4Addr, u16), most: usize) -> Self {
        let faults = Faults { most: Some(most), ..Faults::default() };
        Self::start(faults, move || async move { TcpStream::connect(address).await.map(TcpStream::into_split) }).await
    }

    /// One to the database whose socket is in this folder.
    pub(crate) async fn that_cuts(folder: &'static str) -> Self {
        let socket = format!("{folder}/.s.PGSQL.5432");
        Self::start(Faults::default(), move || {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(UnixStream::into_split) }
        })
        .await
    }

    async fn start<R, W, F>(faults: Faults, connect: impl Fn() -> F + Send + 'static) -> Self
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = std::io::Result<(R, W)>> + Send,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (port, faults, mut connections) = (listener.local_addr().unwrap().port(), Arc::new(faults), JoinSet::new());
        let shared = Arc::clone(&faults);
        connections.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let client = listener.accept().await.unwrap().0;
                let Ok(server) = connect().await else { continue };
                open.spawn(pass_on(client, server, Arc::clone(&shared)));
            }
        });
        Self { port, faults, _connections: connections }
    }

    /// The answer to the next turn's commit is lost.
    pub(crate) fn cut(&self) {
        self.faults.cut.store(true, Ordering::SeqCst);
    }

    /// What it was told to do has happened.
    pub(crate) async fn happened(&self) {
        tokio::time::timeout(crate::PATIENCE, self.faults.happened.notified()).await.expect("it to happen");
    }
}

async fn pass_on(client: TcpStream, server: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin), faults: Arc<Faults>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server;
    let (mut asked, mut answered, mut passed) = (vec![0; 64 << 10], vec![0; 64 << 10], 0);
    loop {
        tokio::select! {
            count = from_client.read(&mut asked) => {
                let Ok(count @ 1..) = count else { return };
                let asked = &asked[..count];
                let is_commit = asked.windows(12).any(|part| part == b"EXECUTE keep");
                if to_server.write_all(asked).await.is_err() {
                    return;
                }
                if is_commit && faults.cut.swap(false, Ordering::SeqCst) {
                    // It is answered once it is carried out.
                    let _ = from_server.read(&mut answered).await;
                    return faults.happened.notify_one();
                }
            }
            count = from_server.read(&mut answered) => {
                let Ok(count @ 1..) = count else { return };
                passed += count;
                if faults.most.is_some_and(|most| passed > most) {
                    faults.happened.notify_one();
                    std::future::pending::<()>().await;
                }
                if to_client.write_all(&answered[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
