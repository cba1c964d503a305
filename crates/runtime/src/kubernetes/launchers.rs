//! Where launchers in pods call: to say that their attempt has ended, or to ask which one it is.
//!
//! A token is a function of the pod's name and of a secret that this process makes anew when it
//! starts. So pods of a predecessor are not let in: their ends are noticed by the watch, and those
//! that still wait for an attempt end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use ferroflow_launcher::home::{self, Home};
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
pub(super) struct Endpoint {
    url: String,
    secret: Arc<[u8; 32]>,
}

impl Endpoint {
    /// Listens at `listen`; pods come by `url`, or else by the address itself.
    pub(super) fn open(listen: &str, url: Option<&str>) -> io::Result<(Self, TcpListener)> {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let url = match url {
            None => url_of(listener.local_addr()?)?,
            Some(given) => given.to_owned(),
        };
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| io::Error::other(error.to_string()))?;
        let secret = Arc::new(secret);
        Ok((Self { url, secret }, listener))
    }

    /// The address and the token that a pod is given.
    pub(super) fn home(&self, pod: &str) -> Home {
        Home {
            url: self.url.clone(),
            pod: pod.to_owned(),
            token: hex::encode(self.mac(pod).finalize().into_bytes()),
        }
    }

    /// Whether the caller of a request is the pod that it says it is.
    fn admit<T>(&self, pod: &str, request: &Request<T>) -> Result<(), Status> {
        let given = request.metadata().get("authorization");
        let given = given.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let given = given.and_then(|token| hex::decode(token).ok());
        // `verify_slice` compares in constant time.
        let known = given.is_some_and(|token| self.mac(pod).verify_slice(&token).is_ok());
        if known {
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
    endpoint: Endpoint,
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
    endpoint: Endpoint,
    index: Arc<PodIndex>,
    warm: Arc<WarmPool>,
}

#[tonic::async_trait]
impl AttemptService for Attempts {
    async fn take(&self, request: Request<TakeRequest>) -> Result<Response<TakeResponse>, Status> {
        let pod = &request.get_ref().pod;
        self.endpoint.admit(pod, &request)?;
        let given = self.warm.take(pod).await;
        // On this answer the launcher ends, and its pod with it (`Home::take`).
        let key = given.ok_or_else(|| Status::not_found("nobody waits for this pod"))?;
        let attempt = key.map(home::message);
        Ok(Response::new(TakeResponse { attempt }))
    }

    async fn report(
        &self,
        request: Request<ReportRequest>,
    ) -> Result<Response<ReportResponse>, Status> {
        let pod = &request.get_ref().pod;
        self.endpoint.admit(pod, &request)?;
        self.index.note_report(pod);
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
    fn a_token_lets_in_its_own_pod_only_and_only_at_the_process_that_gave_it() {
        let (endpoint, _listener) = Endpoint::open("127.0.0.1:0", None).unwrap();
        let (other, _listener) = Endpoint::open("127.0.0.1:0", None).unwrap();
        let token = endpoint.home("ff-a").token;

        assert!(endpoint.admit("ff-a", &request(&token)).is_ok());
        assert!(endpoint.admit("ff-b", &request(&token)).is_err());
        assert!(other.admit("ff-a", &request(&token)).is_err());
        assert!(endpoint.admit("ff-a", &Request::new(())).is_err());
        assert!(endpoint.admit("ff-a", &request("no hex")).is_err());
    }

    #[test]
    fn an_address_that_pods_cannot_reach_is_refused() {
        let refused = Endpoint::open("0.0.0.0:0", None).err().unwrap();
        assert!(refused.to_string().contains("report_url"), "{refused}");

        let (endpoint, _listener) =
            Endpoint::open("0.0.0.0:0", Some("http://10.0.0.7:9001")).unwrap();
        assert_eq!(endpoint.home("p").url, "http://10.0.0.7:9001");
    }
}
