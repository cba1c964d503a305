//! gRPC between services: UNIX sockets or TCP, verified callers, continued traces, metrics.
//!
//! One connection carries all calls of the gateway to a service, among them streams that their
//! readers let stand. So nothing here is limited per connection that a few slow readers could use
//! up: each stream has a small window of its own, and the connection's window is no limit.

mod auth;
mod call_metrics;
mod replicas;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ferroflow_proto::nesting::UNKNOWN_BYTES_MAX;
use ferroflow_types::Caller;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic_health::ServingStatus;

use crate::identity::Verifier;
use auth::AuthLayer;
pub use replicas::{Idempotent, Replicas};

/// Bytes of one stream that may be under way unread.
const STREAM_WINDOW: u32 = 256 * 1024;

/// Bytes of a connection that may be under way unread: as many as HTTP/2 can say (RFC 9113 §6.9.1).
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// Streams of one connection; bounds what unread windows may hold in memory.
const STREAMS_MAX: u32 = 2048;

/// Calls of one connection that are worked on at once; further ones wait. Streams count until they
/// begin to answer.
const CALLS_MAX: usize = 256;

/// How often a silent connection is asked whether it is alive, and how long it may take to answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a service on the network still takes calls after it said that it stops: until those who
/// watch its health have heard of it.
const DRAIN_DELAY: Duration = Duration::from_millis(500);

/// How long calls may take to end after that; streams that are followed never do.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(6);

/// Who calls, verified, according to a request's extensions.
///
/// # Errors
/// Unauthenticated when nobody put it there.
pub fn caller<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    let found = request.extensions().get::<Caller>();
    found
        .cloned()
        .ok_or_else(|| Status::unauthenticated("nobody says who is calling"))
}

/// Where calls come in.
#[derive(Debug)]
pub enum Listener {
    /// A socket of this machine.
    Unix(UnixListener),
    /// The network.
    Tcp(TcpListener),
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

/// A listener on a UNIX socket that only this user can reach; a stale socket is replaced.
///
/// # Errors
/// When the folder lets others in, when something else is there, or somebody listens there.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let refuse = |kind, problem: &str| {
        let path = path.display();
        Err(io::Error::new(kind, format!("{path} {problem}")))
    };
    // sockaddr_un has 108 bytes for a path, the last of them for NUL.
    if path.as_os_str().len() > 107 {
        let problem = "is too long for a socket: use a shorter folder";
        return refuse(io::ErrorKind::InvalidInput, problem);
    }
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        // Refused and not changed: others may use the folder as well.
        if fs::metadata(folder)?.permissions().mode() & 0o077 != 0 {
            let problem = "is in a folder that others may enter: use one of mode 0700";
            return refuse(io::ErrorKind::PermissionDenied, problem);
        }
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return refuse(io::ErrorKind::AlreadyExists, "is there and is no socket");
        }
        // The file of a socket outlives its process: only a connection shows whether somebody
        // listens.
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return refuse(io::ErrorKind::AddrInUse, "is listened on by somebody else");
        }
        Ok(_) => fs::remove_file(path)?,
    }
    let listener = UnixListener::bind(path)?;
    // Between `bind` and this, the mode of the folder keeps others out.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until `stop`, then lets calls end, for a while. Answers `grpc.health.v1.Health` to
/// anybody, and the rest to verified callers only.
pub async fn serve(
    listener: impl Into<Listener>,
    routes: Routes,
    verifier: Verifier,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let listener = listener.into();
    let (health, health_service) = tonic_health::server::health_reporter();
    // No descriptor of ours checks how deep its messages nest, so they have to be short
    // (`nesting`).
    let health_service = health_service.max_decoding_message_size(UNKNOWN_BYTES_MAX);
    let drain_delay = match listener {
        // Health is watched over the network only (`Replicas`).
        Listener::Unix(_) => Duration::ZERO,
        Listener::Tcp(_) => DRAIN_DELAY,
    };
    let deadline = {
        let stop = stop.clone();
        async move {
            stop.cancelled_owned().await;
            tokio::time::sleep(drain_delay + DRAIN_TIMEOUT).await;
        }
    };
    let stopping = async move {
        stop.cancelled_owned().await;
        // Gateways that watch it make no further calls here.
        health
            .set_service_status("", ServingStatus::NotServing)
            .await;
        tokio::time::sleep(drain_delay).await;
    };
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_MAX)
        .concurrency_limit_per_connection(CALLS_MAX)
        .layer(AuthLayer::new(verifier))
        .add_routes(routes.add_service(health_service));
    let serving = async move {
        match listener {
            Listener::Unix(listener) => {
                let incoming = UnixListenerStream::new(listener);
                server
                    .serve_with_incoming_shutdown(incoming, stopping)
                    .await
            }
            Listener::Tcp(listener) => {
                let incoming = TcpListenerStream::new(listener);
                server
                    .serve_with_incoming_shutdown(incoming, stopping)
                    .await
            }
        }
    };
    tokio::select! {
        served = serving => served,
        () = deadline => {
            tracing::info!("calls that have not ended are cut");
            Ok(())
        }
    }
}

/// A channel to the service behind a socket; it connects when it is first used.
pub fn connect(path: PathBuf) -> Channel {
    // HTTP/2 needs a host, which the connector ignores. Names in `.invalid` never exist (RFC 2606).
    let endpoint = Endpoint::from_static("http://socket.invalid");
    with_window_sizes(endpoint).connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    }))
}

/// A channel to the service at a URI such as `http://pipeline-svc:9000`; it connects when it is
/// first used.
///
/// # Errors
/// When the URI cannot be read.
pub fn connect_tcp(uri: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(uri.to_owned())?
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    Ok(with_window_sizes(endpoint).connect_lazy())
}

fn with_window_sizes(endpoint: Endpoint) -> Endpoint {
    // In HTTP/2 the receiver sets a window: these are for answers, those of the server for
    // requests.
    endpoint
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}
