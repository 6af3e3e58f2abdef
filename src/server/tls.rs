//! TLS, where the operator has a certificate.

use std::path::{Path, PathBuf};
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
    #[error("`{setting}` is {}: {error}", path.display())]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
    /// The two don't belong together, or are of a kind that is not known.
    #[error("the certificate in {} and the key in {} can't be used: {error}", files.certificate.display(), files.key.display())]
    Unusable {
        /// Where they are.
        files: TlsFiles,
        /// Why.
        error: rustls::Error,
    },
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
    let certificates = CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.and_then(|found| if found.is_empty() { Err(PemError::NoItemsFound) } else { Ok(found) });
    let certificates = certificates.map_err(|error| wrong("tls_cert", &files.certificate, error, "CERTIFICATE"))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong("tls_key", &files.key, error, "PRIVATE KEY"))?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key));
    let mut config = config.map_err(|error| TlsError::Unusable { files: files.clone(), error })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What is wrong with a file that is to have something of this kind in it. What is in it instead is not shown: it may be a key.
fn wrong(setting: &'static str, path: &Path, error: PemError, kind: &str) -> TlsError {
    let error = match error {
        PemError::Io(error) => error.to_string(),
        PemError::NoItemsFound => format!("there is nothing in it that begins with -----BEGIN {kind}-----, as PEM has it"),
        PemError::MissingSectionEnd { end_marker } => {
            format!("it breaks off before -----END {}-----", String::from_utf8_lossy(&end_marker))
        }
        PemError::IllegalSectionStart { .. } => "a line in it begins with -----BEGIN, and does not end as in PEM".to_owned(),
        PemError::Base64Decode(_) => format!("what is behind -----BEGIN {kind}----- is not the Base64 of PEM"),
        error => error.to_string(),
    };
    TlsError::File { setting, path: path.to_owned(), error }
}
