//! TLS, where the operator has a certificate.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Where the certificate and its key are, both as PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, and behind it those that vouch for it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What is wrong with a certificate or its key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of the two files is named.
    #[error("`tls_cert` and `tls_key` are set together, or none of them")]
    Half,
    /// A file can't be read, or has not what it should have.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: PemError,
    },
    /// There is no certificate in the file.
    #[error("{}: there is no certificate in it", .0.display())]
    Empty(PathBuf),
    /// The two don't belong together, or are of a kind that is not known.
    #[error("the certificate and its key can't be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// Nobody would hear that they have changed.
    #[error("can't listen for SIGHUP: {0}")]
    Signal(std::io::Error),
}

/// Shakes hands with whoever connects. On SIGHUP the files are read anew; connections that are open stay as they are.
#[derive(Clone)]
pub struct Tls {
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

impl TlsFiles {
    /// Both files, or none.
    pub fn both(certificate: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<Self>, TlsError> {
        match (certificate, key) {
            (Some(certificate), Some(key)) => Ok(Some(Self { certificate, key })),
            (None, None) => Ok(None),
            (Some(_), None) | (None, Some(_)) => Err(TlsError::Half),
        }
    }
}

impl Tls {
    /// Reads the files, and watches for the signal to read them again.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let config = Arc::new(RwLock::new(read(&files)?));
        let mut asked = signal(SignalKind::hangup()).map_err(TlsError::Signal)?;
        let weak = Arc::downgrade(&config);
        tokio::spawn(async move {
            while asked.recv().await.is_some() {
                let Some(config) = weak.upgrade() else { return };
                match read(&files) {
                    Ok(fresh) => {
                        *config.write().unwrap_or_else(PoisonError::into_inner) = fresh;
                        tracing::info!("the certificate was read anew");
                    }
                    Err(error) => tracing::error!(%error, "the certificate stays the old one"),
                }
            }
        });
        Ok(Self { config })
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
        TlsAcceptor::from(config).accept(stream).await
    }
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let wrong = |path: &PathBuf| {
        let path = path.clone();
        |error| TlsError::File { path, error }
    };
    let certificates = CertificateDer::pem_file_iter(&files.certificate).map_err(wrong(&files.certificate))?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(wrong(&files.certificate))?;
    if certificates.is_empty() {
        return Err(TlsError::Empty(files.certificate.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(wrong(&files.key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
