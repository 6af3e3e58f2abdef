//! HTTPS with a certificate of our own making.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::server::{PATIENCE, Server, folder, refusal, trine, until};

/// A new certificate and its key, in these files.
fn certify(folder: &Path) -> String {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), signing_key.serialize_pem()).unwrap();
    cert.pem()
}

/// A client that trusts this certificate and no other.
fn trusting(pem: &str) -> reqwest::Client {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_used_and_replaced() {
    let folder = folder();
    let old = certify(folder.path());
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let settings = [
        ("TRINE_TLS_CERT", cert.to_str().unwrap()),
        ("TRINE_TLS_KEY", key.to_str().unwrap()),
        ("TRINE_HEADER_TIMEOUT_MS", "5000"),
    ];
    let server = Server::start_at(Ipv4Addr::LOCALHOST, "https", trusting(&old), trine(), folder.path(), &settings).await;
    assert!(server.url.starts_with("https://"));
    server.get("/jobs").await;
    // The command line, told whom to trust.
    let health = |variables: &[(&str, &str)]| {
        let variables = variables.iter().copied().chain([("TRINE_SERVER", server.url.as_str())]);
        trine().arg("health").envs(variables).output().unwrap().status.code()
    };
    assert_eq!(health(&[("TRINE_CA_CERT", cert.to_str().unwrap())]), Some(0));
    assert_eq!(health(&[]), Some(3));
    // Whoever speaks no TLS, or does not go on, is not kept.
    let plain = server.url.replace("https:", "http:");
    assert!(server.client.get(format!("{plain}/healthz")).send().await.is_err());
    let mut silent = TcpStream::connect(server.url.trim_start_matches("https://")).await.unwrap();
    let asked = Instant::now();
    let mut nothing = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, silent.read_to_end(&mut nothing)).await.expect("the connection is closed");
    assert!(asked.elapsed() >= Duration::from_millis(2_500) && nothing.is_empty());
    // A file that is no certificate changes nothing; a new one is used from the next connection on.
    std::fs::write(&cert, "nonsense").unwrap();
    server.signal(Signal::SIGHUP);
    assert!(trusting(&old).get(format!("{}/healthz", server.url)).send().await.is_ok());
    let new = certify(folder.path());
    let fresh = trusting(&new);
    let replaced = async || {
        server.signal(Signal::SIGHUP);
        fresh.get(format!("{}/healthz", server.url)).send().await.ok()
    };
    until("the new certificate is used", replaced).await;
    assert!(trusting(&old).get(format!("{}/healthz", server.url)).send().await.is_err());
    // The old connection is still good.
    server.get("/jobs").await;
}

#[tokio::test]
async fn a_certificate_that_is_none_ends_the_start() {
    let folder = folder();
    certify(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(folder.path().join("empty.pem"), "").unwrap();
    let short = std::fs::read_to_string(path("cert.pem")).unwrap().replace("-----END CERTIFICATE-----", "");
    std::fs::write(folder.path().join("short.pem"), short).unwrap();
    std::fs::create_dir(folder.path().join("another")).unwrap();
    certify(&folder.path().join("another"));
    for (cert, key, expected) in [
        (Some("cert.pem"), None, vec!["`tls_cert` and `tls_key` are set together"]),
        (None, Some("key.pem"), vec!["`tls_cert` and `tls_key` are set together"]),
        (Some("none.pem"), Some("key.pem"), vec!["`tls_cert` is ", "none.pem: No such file"]),
        (
            Some("empty.pem"),
            Some("key.pem"),
            vec!["`tls_cert` is ", "empty.pem: there is nothing", "-----BEGIN CERTIFICATE-----"],
        ),
        (Some("short.pem"), Some("key.pem"), vec!["short.pem: it breaks off before -----END CERTIFICATE-----"]),
        (Some("cert.pem"), Some("cert.pem"), vec!["`tls_key` is ", "cert.pem: there is nothing", "-----BEGIN PRIVATE KEY-----"]),
        (Some("cert.pem"), Some("another/key.pem"), vec!["/cert.pem and the key in ", "another/key.pem can't be used: "]),
    ] {
        let files = [("TRINE_TLS_CERT", cert), ("TRINE_TLS_KEY", key)];
        let files = files.map(|(setting, file)| Some((setting, path(file?))));
        let settings: Vec<_> = files.iter().flatten().map(|(setting, file)| (*setting, file.as_str())).collect();
        let said = refusal(folder.path(), &settings).await;
        assert!(expected.iter().all(|part| said.contains(part)), "{cert:?} {key:?}: {said}");
    }
}
