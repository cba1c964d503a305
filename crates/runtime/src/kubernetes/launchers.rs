//! Where launchers in pods call: to say that their attempt has ended, or to ask which one it is.
//!
//! A token is a function of the pod's name and of a secret that this process makes anew when it
//! starts. So pods of a predecessor are not let in: their ends are noticed by the watch, and those
//! that still wait for an attempt end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use ferroflow_launcher::runtime_endpoint::{self, RuntimeEndpoint};
use ferroflow_proto::attempts::v1::attempt_service_server::{AttemptService, AttemptServiceServer};
use ferroflow_proto::attempts::v1::{ReportRequest, ReportResponse, TakeRequest, TakeResponse};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::index::PodIndex;
use super::warm::WarmPool;

/// Calls of one connection at once; a launcher makes one.
const CALLS_MAX: usize = 4;
/// The largest message; all are a few words.
const MESSAGE_MAX: usize = 16 * 1024;
/// How often a silent connection is asked whether it is alive.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Where launchers call.
#[derive(Clone)]
pub(super) struct LauncherEndpoint {
    url: String,
    secret: Arc<[u8; 32]>,
}

impl LauncherEndpoint {
    /// Listens at `listen`; pods come by `url`, or else by the address itself.
    pub(super) fn open(listen: &str, url: Option<&str>) -> io::Result<(Self, TcpListener)> {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let url = match url {
            None => url_of(listener.local_addr()?)?,
            Some(url) => url.to_owned(),
        };
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| io::Error::other(error.to_string()))?;
        let secret = Arc::new(secret);
        Ok((Self { url, secret }, listener))
    }

    /// The address and the token that a pod is given.
    pub(super) fn for_pod(&self, pod: &str) -> RuntimeEndpoint {
        RuntimeEndpoint {
            url: self.url.clone(),
            pod: pod.to_owned(),
            token: hex::encode(self.mac(pod).finalize().into_bytes()),
        }
    }

    /// Whether the caller of a request is the pod that it says it is.
    fn authenticate<T>(&self, pod: &str, request: &Request<T>) -> Result<(), Status> {
        let token = request.metadata().get("authorization");
        let token = token.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let token = token.and_then(|token| hex::decode(token).ok());
        // `verify_slice` compares in constant time.
        let is_valid = token.is_some_and(|token| self.mac(pod).verify_slice(&token).is_ok());
        if is_valid {
            Ok(())
        } else {
            Err(Status::unauthenticated("the token is not this pod's"))
        }
    }

    fn mac(&self, pod: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.secret)
            .expect("HMAC takes keys of any length (RFC 2104)");
        mac.update(pod.as_bytes());
        mac
    }
}

/// The address as a URL; one that stands for all addresses leads nowhere.
fn url_of(address: SocketAddr) -> io::Result<String> {
    if address.ip().is_unspecified() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "pods cannot reach an address that stands for all: give kubernetes.report_url as well",
        ));
    }
    Ok(format!("http://{address}"))
}

/// Answers launchers until the handle is dropped.
pub(super) fn serve(
    endpoint: LauncherEndpoint,
    listener: TcpListener,
    index: Arc<PodIndex>,
    warm: Arc<WarmPool>,
) -> io::Result<AbortOnDropHandle<()>> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let attempts = Attempts {
        endpoint,
        index,
        warm,
    };
    let service = AttemptServiceServer::new(attempts)
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX);
    let server = Server::builder()
        .concurrency_limit_per_connection(CALLS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .tcp_nodelay(true)
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener));
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "launchers cannot report any more; ends of pods are still noticed");
        }
    })))
}

struct Attempts {
    endpoint: LauncherEndpoint,
    index: Arc<PodIndex>,
    warm: Arc<WarmPool>,
}

#[tonic::async_trait]
impl AttemptService for Attempts {
    async fn take(&self, request: Request<TakeRequest>) -> Result<Response<TakeResponse>, Status> {
        let pod = &request.get_ref().pod;
        self.endpoint.authenticate(pod, &request)?;
        let assigned = self.warm.wait_for_attempt(pod).await;
        // On this answer the launcher ends, and its pod with it (`RuntimeEndpoint::take`).
        let key = assigned.ok_or_else(|| Status::not_found("nobody waits for this pod"))?;
        let attempt = key.map(runtime_endpoint::attempt_message);
        Ok(Response::new(TakeResponse { attempt }))
    }

    async fn report(
        &self,
        request: Request<ReportRequest>,
    ) -> Result<Response<ReportResponse>, Status> {
        let pod = &request.get_ref().pod;
        self.endpoint.authenticate(pod, &request)?;
        self.index.record_report(pod);
        Ok(Response::new(ReportResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(token: &str) -> Request<()> {
        let mut request = Request::new(());
        let bearer = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        request
    }

    #[test]
    fn a_token_is_valid_for_its_own_pod_at_the_process_that_issued_it() {
        let (endpoint, _listener) = LauncherEndpoint::open("127.0.0.1:0", None).unwrap();
        let (other, _listener) = LauncherEndpoint::open("127.0.0.1:0", None).unwrap();
        let token = endpoint.for_pod("ff-a").token;

        assert!(endpoint.authenticate("ff-a", &request(&token)).is_ok());
        assert!(endpoint.authenticate("ff-b", &request(&token)).is_err());
        assert!(other.authenticate("ff-a", &request(&token)).is_err());
        assert!(endpoint.authenticate("ff-a", &Request::new(())).is_err());
        assert!(endpoint.authenticate("ff-a", &request("no hex")).is_err());
    }

    #[test]
    fn an_address_that_pods_cannot_reach_is_refused() {
        let refused = LauncherEndpoint::open("0.0.0.0:0", None).err().unwrap();
        assert!(refused.to_string().contains("report_url"), "{refused}");

        let (endpoint, _listener) =
            LauncherEndpoint::open("0.0.0.0:0", Some("http://10.0.0.7:9001")).unwrap();
        assert_eq!(endpoint.for_pod("p").url, "http://10.0.0.7:9001");
    }
}
