//! An HTTP proxy that does to a store or an API server what networks and busy servers do: refuse,
//! hang up, lose an answer, be slow. It can also hold a request that a test waits for, so that a
//! test kills somebody at that moment and not near it.

use std::net::UdpSocket;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// What happens to every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It is refused with 503, as S3 does when it has too much to do.
    SlowDown,
    /// The connection is closed without an answer.
    HangUp,
    /// It takes so much longer.
    Slow(Duration),
}

/// Where a request is held, or lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Before the server sees it.
    Request,
    /// When the server has done it, and before the client knows.
    Answer,
}

/// Something that happens once, to the first request that fits.
struct Intercept {
    side: Side,
    method: String,
    path: String,
    action: Action,
}

enum Action {
    /// The connection is closed.
    HangUp,
    /// It waits.
    Hold {
        reached: mpsc::Sender<()>,
        open: watch::Receiver<bool>,
    },
}

/// A request that is, or will be, held; goes on when this is dropped.
pub struct HeldCall {
    what: String,
    reached: mpsc::Receiver<()>,
    _open: watch::Sender<bool>,
}

impl HeldCall {
    /// Waits until the request is there.
    pub fn wait(&self, limit: Duration) {
        let what = &self.what;
        self.reached
            .recv_timeout(limit)
            .unwrap_or_else(|_| panic!("no {what} within {limit:?}"));
    }
}

struct Shared {
    upstream: String,
    client: Client<HttpConnector, Incoming>,
    fault: Mutex<Fault>,
    intercepts: Mutex<Vec<Intercept>>,
}

/// A proxy in front of `upstream`; ends when it is dropped.
pub struct FaultProxy {
    url: String,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

impl FaultProxy {
    /// Listens on the address by which this machine reaches `upstream` (`http://<host>:<port>`),
    /// so that who reaches the one reaches the other.
    pub fn start(upstream: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime
            .block_on(TcpListener::bind((address_towards(upstream), 0)))
            .unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            upstream: upstream.trim_end_matches('/').to_owned(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            fault: Mutex::new(Fault::None),
            intercepts: Mutex::default(),
        });
        runtime.spawn(serve(listener, Arc::clone(&shared)));
        Self {
            url,
            shared,
            _runtime: runtime,
        }
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on.
    pub fn set(&self, fault: Fault) {
        *lock(&self.shared.fault) = fault;
    }

    /// Holds the next request whose path contains `path`.
    pub fn hold(&self, side: Side, method: &str, path: &str) -> HeldCall {
        let (reached, reached_rx) = mpsc::channel();
        let (open, open_rx) = watch::channel(false);
        let action = Action::Hold {
            reached,
            open: open_rx,
        };
        self.intercept(side, method, path, action);
        HeldCall {
            what: format!("{method} of {path}"),
            reached: reached_rx,
            _open: open,
        }
    }

    /// The next request whose path contains `path` is done, and its client never knows.
    pub fn drop_response(&self, method: &str, path: &str) {
        self.intercept(Side::Answer, method, path, Action::HangUp);
    }

    /// Whether everything that was to be held or lost has been.
    pub fn is_done(&self) -> bool {
        lock(&self.shared.intercepts).is_empty()
    }

    fn intercept(&self, side: Side, method: &str, path: &str, action: Action) {
        lock(&self.shared.intercepts).push(Intercept {
            side,
            method: method.to_owned(),
            path: path.to_owned(),
            action,
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Our address as `upstream` sees it; nothing is sent.
fn address_towards(upstream: &str) -> std::net::IpAddr {
    let uri: Uri = upstream.parse().unwrap();
    let host = uri.host().unwrap();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket
        .connect((host, uri.port_u16().unwrap_or(80)))
        .unwrap();
    socket.local_addr().unwrap().ip()
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| forward(Arc::clone(&shared), request));
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
            // Clients that are killed and answers that are lost end connections.
            let _ended = served.is_err();
        });
    }
}

/// Why a connection is closed without an answer.
#[derive(Debug)]
struct ConnectionClosed;

impl std::fmt::Display for ConnectionClosed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is closed")
    }
}

impl std::error::Error for ConnectionClosed {}

type Body = Either<Full<Bytes>, Incoming>;

async fn forward(
    shared: Arc<Shared>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, ConnectionClosed> {
    let fault = *lock(&shared.fault);
    match fault {
        Fault::None => {}
        Fault::SlowDown => {
            // A client that is not heard out takes it for a reset.
            let _heard = request.collect().await.is_ok();
            return Ok(slow_down());
        }
        Fault::HangUp => return Err(ConnectionClosed),
        Fault::Slow(wait) => tokio::time::sleep(wait).await,
    }
    let method = request.method().as_str().to_owned();
    let path = request.uri().path().to_owned();
    apply_intercept(&shared, Side::Request, &method, &path).await?;
    let target = request.uri().path_and_query();
    let target = target.map_or("/", |target| target.as_str());
    *request.uri_mut() = format!("{}{target}", shared.upstream)
        .parse()
        .map_err(|_| ConnectionClosed)?;
    // It is of the connection, and the other one is another.
    request.headers_mut().remove(header::CONNECTION);
    let answer = shared
        .client
        .request(request)
        .await
        .map_err(|_| ConnectionClosed)?;
    apply_intercept(&shared, Side::Answer, &method, &path).await?;
    Ok(answer.map(Either::Right))
}

/// Does what is to happen to this request, if anything is.
async fn apply_intercept(
    shared: &Shared,
    side: Side,
    method: &str,
    path: &str,
) -> Result<(), ConnectionClosed> {
    let intercept = {
        let mut intercepts = lock(&shared.intercepts);
        let fits = |intercept: &Intercept| {
            intercept.side == side && intercept.method == method && path.contains(&intercept.path)
        };
        let found = intercepts.iter().position(fits);
        found.map(|at| intercepts.remove(at))
    };
    match intercept.map(|intercept| intercept.action) {
        None => Ok(()),
        Some(Action::HangUp) => Err(ConnectionClosed),
        Some(Action::Hold { reached, mut open }) => {
            // A test that waits no more lets it pass, and so does one that drops what it holds.
            if reached.send(()).is_ok() {
                let _dropped = open.wait_for(|open| *open).await.is_err();
            }
            Ok(())
        }
    }
}

fn slow_down() -> Response<Body> {
    let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>SlowDown</Code>\
                <Message>Please reduce your request rate.</Message></Error>";
    let mut answer = Response::new(Either::Left(Full::new(Bytes::from_static(text.as_bytes()))));
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    answer
}
