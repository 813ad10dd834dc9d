//! The port that agents connect to: TLS, limits of connections and streams, and the rule that plain text stays on loopback.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use berth_proto::topology::v1alpha1::reports_server::ReportsServer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::Ingest;
use super::certificate::{CertificateError, Files, Rotating};
use super::identity::{Identity, Tokens};
use super::service::Service;

/// Largest message. 8 GPUs and 10 NICs take 4 KiB; the link matrix of the largest node that the schema takes is 160 KiB.
pub const MESSAGE_BYTES_MAX: usize = 512 << 10;
/// An agent opens one; a second may come while the first is not yet known to be dead.
const STREAMS_PER_CONNECTION_MAX: u32 = 4;
/// Metadata of a call: a token and a few names.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// How often a quiet connection is asked whether it lives, and how long it may take to say so.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEPALIVE_WITHIN: Duration = Duration::from_secs(10);
/// How often the files of the certificate are looked at. A kubelet brings a changed Secret within about a minute.
const CERTIFICATE_EVERY: Duration = Duration::from_secs(10);
/// After a failed accept (out of descriptors) the next one would fail at once too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limits of the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most connections: one a node, and room for those that a reconnecting cluster leaves behind. More wait in the backlog.
    pub connections_max: usize,
    /// Time for a TLS handshake.
    pub handshake_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_max: 16_384, handshake_timeout: Duration::from_secs(5) }
    }
}

/// How the port is kept.
#[derive(Debug, Clone)]
pub struct Security {
    tls: Option<Arc<Rotating>>,
    identity: Identity,
}

/// Why the port is not opened.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// Plain text on an address that others reach.
    #[error("{0} is not loopback, and plain text is for loopback only: give --reports-cert and --reports-key")]
    PlainText(SocketAddr),
    /// TLS, and nobody who could review tokens.
    #[error(
        "--reports-cert needs an API server to review the tokens of agents; with --machines, listen on loopback without it"
    )]
    NoReview,
    /// The certificate cannot be used.
    #[error("--reports-cert and --reports-key")]
    Certificate(#[from] CertificateError),
}

impl Security {
    /// Plain text without tokens where the address is loopback and there is no certificate; else TLS and tokens.
    ///
    /// # Errors
    /// [`SecurityError`].
    pub fn new(address: SocketAddr, files: Option<Files>, tokens: Option<Tokens>) -> Result<Self, SecurityError> {
        match (files, tokens) {
            (None, _) if address.ip().is_loopback() => Ok(Self { tls: None, identity: Identity::Loopback }),
            (None, _) => Err(SecurityError::PlainText(address)),
            (Some(_), None) => Err(SecurityError::NoReview),
            (Some(files), Some(tokens)) => {
                let tls = Some(Arc::new(Rotating::read(files)?));
                Ok(Self { tls, identity: Identity::Tokens(Arc::new(tokens)) })
            }
        }
    }
}

impl Security {
    /// Whether bytes go as they are.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.tls.is_none()
    }
}

/// Serves until `stop`.
///
/// # Errors
/// [`tonic::transport::Error`] when the server ends by itself.
pub async fn serve(
    listener: TcpListener,
    security: Security,
    ingest: Ingest,
    limits: Limits,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let metrics = Arc::clone(&ingest.cluster.metrics);
    let (ready, connections) = mpsc::channel(1);
    let acceptor = security.tls.as_ref().map(|rotating| acceptor(Arc::clone(rotating)));
    let accepting = tokio::spawn(accept(listener, acceptor, limits, ready, stop.clone()));
    let following =
        security.tls.map(|rotating| tokio::spawn(async move { rotating.follow(CERTIFICATE_EVERY, &metrics).await }));
    let service = Service { ingest, identity: security.identity, stop: stop.clone() };
    let reports = ReportsServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let incoming = ReceiverStream::new(connections).map(Ok::<_, io::Error>);
    let served = Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_WITHIN))
        .serve_with_incoming_shutdown(reports, incoming, stop.cancelled_owned())
        .await;
    accepting.abort();
    if let Some(following) = following {
        following.abort();
    }
    served
}

fn acceptor(rotating: Arc<Rotating>) -> TlsAcceptor {
    let mut config = rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(rotating);
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    limits: Limits,
    ready: mpsc::Sender<Connection>,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection of an agent is not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, ready, within) = (acceptor.clone(), ready.clone(), limits.handshake_timeout);
        tokio::spawn(async move {
            match tokio::time::timeout(within, handshake(stream, acceptor)).await {
                Ok(Ok(io)) => drop(ready.send(Connection { io, _slot: slot }).await),
                Ok(Err(error)) => tracing::debug!(%error, "no TLS with an agent"),
                Err(_) => tracing::debug!("no TLS with an agent in time"),
            }
        });
    }
}

async fn handshake(stream: TcpStream, acceptor: Option<TlsAcceptor>) -> io::Result<Pin<Box<dyn Io>>> {
    stream.set_nodelay(true)?;
    Ok(match acceptor {
        None => Box::pin(stream),
        Some(acceptor) => Box::pin(acceptor.accept(stream).await?),
    })
}

/// Bytes both ways.
trait Io: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Io for T {}

/// A connection that is ready for HTTP/2. Its slot is free again when it ends.
struct Connection {
    io: Pin<Box<dyn Io>>,
    _slot: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.io.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().poll_shutdown(cx)
    }
}
