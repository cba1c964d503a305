//! A service that runs several times behind one name: every call goes to a replica that is ready.
//!
//! The name is resolved again and again. Each address gets one connection, and a watch of its health
//! on it: a replica that says that it stops, or whose connection breaks, gets no further calls. A
//! call that was surely not taken up, or that may be made twice, is repeated with another replica.
//! (tonic's own balancer picks among connections whether or not they are broken, and cannot be told
//! to take another one.)

use std::collections::HashMap;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::{Service, ServiceExt as _};

use super::with_window_sizes;

/// How often the name is resolved.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(2);
/// The wait before a broken connection is made again.
const RECONNECT_DELAY: Duration = Duration::from_millis(250);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two pings of a connection, and for the answer to one: within twice that, a dead one
/// is found.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// How long a call waits for a replica that is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// Replicas that a call is tried with at most.
const ATTEMPTS_MAX: usize = 4;

type BoxError = Box<dyn StdError + Send + Sync>;

/// An extension of a request: making the call twice is as good as making it once.
#[derive(Debug, Clone, Copy)]
pub struct Idempotent;

/// The way to all replicas of a service. Requests are whole messages: a body is read before it is
/// sent, so that it can be sent again.
#[derive(Clone)]
pub struct Replicas {
    ready: Arc<ReadyReplicas>,
    /// Bytes of the largest request.
    message_max: usize,
    _resolver: Arc<AbortOnDrop>,
}

/// A replica that says that it is ready.
struct Replica {
    id: u64,
    address: SocketAddr,
    channel: Channel,
    /// Calls that it has not begun to answer.
    in_flight: AtomicUsize,
}

/// The replicas that are ready.
struct ReadyReplicas {
    name: String,
    replicas: Mutex<Vec<Arc<Replica>>>,
    changes: watch::Sender<u64>,
    next_index: AtomicUsize,
    ids: AtomicU64,
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        // This drops the `JoinSet` in `resolve`, which aborts the followers.
        self.0.abort();
    }
}

/// Where there is no replica to call.
#[derive(Debug, thiserror::Error)]
#[error("no replica of {0} is ready")]
struct NoReadyReplica(String);

impl Replicas {
    /// The replicas at a URI such as `http://pipeline-svc:9000`, whose host may have any number of
    /// addresses, now and later; or at several of them, with commas between. A request of more than
    /// `message_max` bytes is refused: it is held until it was answered.
    ///
    /// # Errors
    /// What is wrong with the URI.
    pub fn connect(uris: &str, message_max: usize) -> Result<Self, String> {
        let names: Vec<_> = uris
            .split(',')
            .map(|uri| parse_endpoint(uri.trim()))
            .collect::<Result<_, _>>()?;
        let ready = Arc::new(ReadyReplicas {
            name: uris.to_owned(),
            replicas: Mutex::default(),
            changes: watch::Sender::new(0),
            next_index: AtomicUsize::new(0),
            ids: AtomicU64::new(0),
        });
        let resolver = tokio::spawn(resolve(names, Arc::downgrade(&ready)));
        Ok(Self {
            ready,
            message_max,
            _resolver: Arc::new(AbortOnDrop(resolver.abort_handle())),
        })
    }
}

/// Host and port of a URI.
fn parse_endpoint(uri: &str) -> Result<(String, u16), String> {
    let parsed: Uri = uri
        .parse()
        .map_err(|error| format!("{uri:?} is not a URI: {error}"))?;
    match (parsed.scheme_str(), parsed.host(), parsed.port_u16()) {
        (Some("http"), Some(host), Some(port)) => {
            Ok((host.trim_matches(['[', ']']).to_owned(), port))
        }
        _ => Err(format!(
            "{uri:?} is not a URI such as http://pipeline-svc:9000"
        )),
    }
}

impl ReadyReplicas {
    fn with<T>(&self, work: impl FnOnce(&mut Vec<Arc<Replica>>) -> T) -> T {
        let mut replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut replicas)
    }

    fn add(&self, address: SocketAddr, channel: Channel) {
        let replica = Arc::new(Replica {
            id: self.ids.fetch_add(1, Ordering::Relaxed),
            address,
            channel,
            in_flight: AtomicUsize::new(0),
        });
        let count = self.with(|replicas| {
            replicas.retain(|other| other.address != address);
            replicas.push(replica);
            replicas.len()
        });
        tracing::info!(service = self.name, %address, count, "a replica is ready");
        self.changes.send_modify(|count| *count += 1);
    }

    fn remove(&self, address: SocketAddr) {
        let left = self.with(|replicas| {
            let before = replicas.len();
            replicas.retain(|other| other.address != address);
            (replicas.len() < before).then_some(replicas.len())
        });
        if let Some(count) = left {
            tracing::info!(service = self.name, %address, count, "a replica is not ready");
        }
    }

    /// The replica with the fewest calls, of those that were not tried; in turn where they are even.
    fn pick(&self, tried: &[u64]) -> Option<Arc<Replica>> {
        let index = self.next_index.fetch_add(1, Ordering::Relaxed);
        self.with(|replicas| {
            let count = replicas.len().max(1);
            let begin = index % count;
            // `min_by_key` takes the first of equals, so each call begins with another replica.
            let (late, early) = replicas.split_at(begin.min(replicas.len()));
            early
                .iter()
                .chain(late)
                .filter(|replica| !tried.contains(&replica.id))
                .min_by_key(|replica| replica.in_flight.load(Ordering::Relaxed))
                .cloned()
        })
    }

    async fn wait_for_replica(&self, tried: &[u64], deadline: Instant) -> Option<Arc<Replica>> {
        // Before the first look, so that a replica which is added after it is not missed.
        let mut changes = self.changes.subscribe();
        loop {
            if let Some(replica) = self.pick(tried) {
                return Some(replica);
            }
            let changed = tokio::time::timeout_at(deadline, changes.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return None;
            }
        }
    }
}

/// Follows each address that the names have.
async fn resolve(names: Vec<(String, u16)>, ready: Weak<ReadyReplicas>) {
    let mut followers: HashMap<SocketAddr, AbortHandle> = HashMap::new();
    let mut tasks = JoinSet::new();
    loop {
        if let Some(found) = lookup_addresses(&names).await {
            followers.retain(|address, follower| {
                let is_listed = found.contains(address);
                if !is_listed {
                    follower.abort();
                    if let Some(ready) = ready.upgrade() {
                        ready.remove(*address);
                    }
                }
                is_listed
            });
            for address in found {
                followers
                    .entry(address)
                    .or_insert_with(|| tasks.spawn(maintain_connection(address, ready.clone())));
            }
        }
        // Else the set would keep the followers that were aborted.
        while tasks.try_join_next().is_some() {}
        tokio::time::sleep(RESOLVE_INTERVAL).await;
    }
}

/// Every address; `None` when a name cannot be resolved, and then what is known stays.
async fn lookup_addresses(names: &[(String, u16)]) -> Option<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for (host, port) in names {
        match tokio::net::lookup_host((host.as_str(), *port)).await {
            Ok(found) => addresses.extend(found),
            Err(error) => {
                tracing::warn!(host, %error, "the name cannot be resolved, trying again");
                return None;
            }
        }
    }
    Some(addresses)
}

/// Keeps a connection to one address.
async fn maintain_connection(address: SocketAddr, ready: Weak<ReadyReplicas>) {
    loop {
        if let Err(error) = watch_health(address, &ready).await {
            tracing::debug!(%address, error, "a replica cannot be reached");
        }
        match ready.upgrade() {
            Some(ready) => ready.remove(address),
            None => return,
        }
        tokio::time::sleep(RECONNECT_DELAY).await;
    }
}

/// Connects and follows the replica's health until the connection breaks.
async fn watch_health(address: SocketAddr, ready: &Weak<ReadyReplicas>) -> Result<(), String> {
    let failed = |error: &dyn StdError| ferroflow_types::error::chain(error);
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| failed(&error))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_INTERVAL)
        .keep_alive_while_idle(true);
    let endpoint = with_window_sizes(endpoint);
    let channel = endpoint.connect().await.map_err(|error| failed(&error))?;
    let request = HealthCheckRequest::default();
    let mut statuses = HealthClient::new(channel.clone())
        .watch(request)
        .await
        .map_err(|status| failed(&status))?
        .into_inner();
    while let Some(response) = statuses.message().await.map_err(|status| failed(&status))? {
        let Some(ready) = ready.upgrade() else { break };
        if response.status() == ServingStatus::Serving {
            ready.add(address, channel.clone());
        } else {
            // A replica that stops waits for its calls to end. This watch is one, so it is dropped.
            ready.remove(address);
            break;
        }
    }
    Ok(())
}

/// Counts a call until it is answered or given up.
struct InFlightCall<'a>(&'a AtomicUsize);

impl<'a> InFlightCall<'a> {
    fn new(calls: &'a AtomicUsize) -> Self {
        calls.fetch_add(1, Ordering::Relaxed);
        Self(calls)
    }
}

impl Drop for InFlightCall<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Makes a call with one replica after the other until one takes it.
async fn call(
    ready: Arc<ReadyReplicas>,
    parts: Parts,
    body: Bytes,
) -> Result<Response<Body>, BoxError> {
    let idempotent = parts.extensions.get::<Idempotent>().is_some();
    let deadline = Instant::now() + READY_TIMEOUT;
    let mut tried = Vec::new();
    loop {
        let Some(replica) = ready.wait_for_replica(&tried, deadline).await else {
            return Err(NoReadyReplica(ready.name.clone()).into());
        };
        let request = Request::from_parts(parts.clone(), Body::new(Full::new(body.clone())));
        let in_flight = InFlightCall::new(&replica.in_flight);
        let answer = replica.channel.clone().oneshot(request).await;
        drop(in_flight);
        let error = match answer {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        // The id and not the address: a replica that is ready again has a new one, and may be
        // tried.
        tried.push(replica.id);
        // A call that changes something and may have begun is not made again: it could be done
        // twice.
        if tried.len() >= ATTEMPTS_MAX || !(idempotent || was_not_processed(&error)) {
            return Err(error.into());
        }
        tracing::debug!(address = %replica.address, %error, "a call is made with another replica");
    }
}

/// Whether the replica has surely not begun to answer: it could not be connected to, the connection
/// ended before the call was sent, or the replica said that it takes no further ones.
fn was_not_processed(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // Both mean that the request was not processed (RFC 9113 §8.7): a stream that is refused,
        // and one that is newer than the last of a GOAWAY.
        let refused = error.downcast_ref::<h2::Error>().is_some_and(|error| {
            error.reason() == Some(h2::Reason::REFUSED_STREAM)
                || (error.is_go_away() && error.is_remote())
        });
        let unsent = error
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_canceled);
        if refused || unsent || error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

impl Service<Request<Body>> for Replicas {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone keeps the followers alive until the call has ended.
        let this = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            // gRPC has five bytes before a message: a flag and the length.
            let body = Limited::new(body, this.message_max + 5).collect().await?;
            call(Arc::clone(&this.ready), parts, body.to_bytes()).await
        })
    }
}
