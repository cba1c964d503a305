//! gRPC between services: UNIX sockets or TCP, verified callers, continued traces, metrics.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ferroflow_types::Principal;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tower::{Layer, Service};
use tracing::Instrument as _;

use crate::identity::{self, Verifier};
use crate::telemetry;

/// The largest message: uploads and specifications are whole messages.
pub const MESSAGE_MAX: usize = 64 * 1024 * 1024;

/// Who calls, verified; in the extensions of every request that reaches a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(pub Principal);

/// Who calls, according to a request's extensions.
pub fn caller<T>(request: &tonic::Request<T>) -> Result<Principal, Status> {
    match request.extensions().get::<Caller>() {
        Some(Caller(principal)) => Ok(principal.clone()),
        None => Err(Status::unauthenticated("nobody says who is calling")),
    }
}

/// A listener on a UNIX socket that only this user can reach; a stale socket is replaced.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    // sockaddr_un has room for 108 bytes.
    if path.as_os_str().len() > 107 {
        let message = format!(
            "{} is too long for a socket: use a shorter folder",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until `stop`, then lets calls end.
pub async fn serve(
    listener: UnixListener,
    routes: Routes,
    verifier: Verifier,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .layer(Guarded { verifier })
        .add_routes(routes)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled_owned())
        .await
}

/// A channel to the service behind a socket; it connects when it is first used.
pub fn connect(path: PathBuf) -> Channel {
    // The address is only a name here, and it is a valid one.
    Endpoint::from_static("http://socket.invalid").connect_with_connector_lazy(tower::service_fn(
        move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        },
    ))
}

/// Lets only verified callers in; measures and traces what they call.
#[derive(Clone)]
struct Guarded {
    verifier: Verifier,
}

impl<S> Layer<S> for Guarded {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard {
            inner,
            verifier: self.verifier.clone(),
        }
    }
}

#[derive(Clone)]
struct Guard<S> {
    inner: S,
    verifier: Verifier,
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let header = |name: &str| {
            request
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let token = header(identity::HEADER).unwrap_or_default();
        let span = tracing::info_span!("grpc", method);
        if let Some(traceparent) = header("traceparent") {
            telemetry::continue_trace(&span, &traceparent);
        }
        match self.verifier.verify(&token) {
            Ok(principal) => {
                request.extensions_mut().insert(Caller(principal));
            }
            Err(error) => {
                tracing::warn!(method, %error, "a call without a valid identity is refused");
                let status = Status::unauthenticated("the call carries no valid identity");
                return Box::pin(async move { Ok(status.into_http()) });
            }
        }
        let begun = Instant::now();
        let answer = self.inner.call(request);
        Box::pin(
            async move {
                let answer = answer.await;
                let labels = [("method", method)];
                metrics::counter!("ferroflow_grpc_requests_total", &labels).increment(1);
                metrics::histogram!("ferroflow_grpc_request_seconds", &labels)
                    .record(begun.elapsed().as_secs_f64());
                answer
            }
            .instrument(span),
        )
    }
}
