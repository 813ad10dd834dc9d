//! The certificate of the report port: two files of a mounted Secret, read again when they change. One that does not fit its key, or
//! a Secret half written, leaves the last good one in force.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::metrics::{ByResult, Metrics};

/// Largest file: a chain of a dozen certificates.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Why a certificate is not taken.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file is no PEM of its kind.
    #[error("{path} holds no {what} in PEM")]
    Form {
        /// The file.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
    },
    /// They are not each other's.
    #[error("{key} is not the key of the certificate in {certificate}")]
    Mismatch {
        /// File of the key.
        key: PathBuf,
        /// File of the certificate.
        certificate: PathBuf,
        /// What the library said.
        #[source]
        source: rustls::Error,
    },
}

/// Where a certificate and its key lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// PEM chain, the server's own first.
    pub certificate: PathBuf,
    /// PEM key.
    pub key: PathBuf,
}

/// The certificate in force, for every handshake to come.
#[derive(Debug)]
pub struct Rotating {
    files: Files,
    provider: Arc<CryptoProvider>,
    in_force: ArcSwap<CertifiedKey>,
}

/// What both files hold.
type Texts = (Vec<u8>, Vec<u8>);

impl Rotating {
    /// Reads both files.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn read(files: Files) -> Result<Self, CertificateError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let in_force = certified(&files, &texts(&files)?, &provider)?;
        Ok(Self { files, provider, in_force: ArcSwap::from_pointee(in_force) })
    }

    /// The certificate that a handshake gets now, as its file has it.
    #[cfg(test)]
    pub(super) fn in_force(&self) -> Vec<CertificateDer<'static>> {
        self.in_force.load().cert.clone()
    }

    /// Looks at the files again and again. By content, because a Secret's files change through a link to a folder.
    pub async fn follow(&self, every: Duration, metrics: &Metrics) {
        let mut judged = texts(&self.files).ok();
        let mut timer = tokio::time::interval(every);
        loop {
            timer.tick().await;
            // Small local files: a thread of their own would cost more than reading them.
            let read = texts(&self.files).ok();
            if read.is_none() || read == judged {
                continue;
            }
            let taken = read.as_ref().map(|texts| certified(&self.files, texts, &self.provider));
            judged = read;
            let result = match taken {
                Some(Ok(certified)) => {
                    self.in_force.store(Arc::new(certified));
                    tracing::info!(file = %self.files.certificate.display(), "a new certificate is in force");
                    "applied"
                }
                Some(Err(error)) => {
                    tracing::error!(%error, "a new certificate is refused; the last good one stays");
                    "rejected"
                }
                None => continue,
            };
            metrics.report_certificate_reloads.get_or_create(&ByResult { result }).inc();
        }
    }
}

impl ResolvesServerCert for Rotating {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.in_force.load_full())
    }
}

fn texts(files: &Files) -> Result<Texts, CertificateError> {
    let read = |path: &PathBuf| {
        let mut bytes = Vec::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
        read.map(|_| bytes).map_err(|source| CertificateError::Unreadable { path: path.clone(), source })
    };
    Ok((read(&files.certificate)?, read(&files.key)?))
}

fn certified(files: &Files, texts: &Texts, provider: &CryptoProvider) -> Result<CertifiedKey, CertificateError> {
    let (certificate, key) = (&files.certificate, &files.key);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&texts.0).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let form = |path: &PathBuf, what| CertificateError::Form { path: path.clone(), what };
    let chain = chain.ok_or_else(|| form(certificate, "certificate"))?;
    let secret = PrivateKeyDer::from_pem_slice(&texts.1).map_err(|_| form(key, "private key"))?;
    CertifiedKey::from_der(chain, secret, provider).map_err(|source| CertificateError::Mismatch {
        key: key.clone(),
        certificate: certificate.clone(),
        source,
    })
}
