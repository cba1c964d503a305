//! A server of ours and a channel to it, for real: sockets, identity, panics, metrics, slow readers.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on panics"
)]

mod calls;
mod sockets;

use std::path::PathBuf;

use ferroflow_proto::events::v1::event_service_client::EventServiceClient;
use ferroflow_proto::events::v1::event_service_server::{EventService, EventServiceServer};
use ferroflow_proto::events::v1::{Event, WatchRequest, WatchResponse};
use ferroflow_service::grpc::{self, Listener, caller};
use ferroflow_service::identity::{HEADER, Keys};
use ferroflow_service::status::to_status;
use ferroflow_types::time::SystemClock;
use ferroflow_types::{Access, Caller, Clock as _, Error, ErrorKind, Principal};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

const AUDIENCE: &str = "test-svc";

/// A service that does what the request's topic says.
struct ScriptedService;

fn event(source: impl Into<String>) -> Result<WatchResponse, Status> {
    Ok(WatchResponse {
        cursor: String::new(),
        event: Some(Event {
            source: source.into(),
            ..Event::default()
        }),
    })
}

#[tonic::async_trait]
impl EventService for ScriptedService {
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = caller(&request)?;
        let script = request.into_inner().topics.pop().unwrap_or_default();
        let stream = match script.as_str() {
            "panic" => panic!("the password is x"),
            "panic later" => {
                let panics = stream::once(async {
                    // Or the first event would not be out yet.
                    tokio::task::yield_now().await;
                    panic!("the password is x")
                });
                stream::iter([event("first")]).chain(panics).boxed()
            }
            "fail" => {
                let error = Error::new(ErrorKind::AlreadyExists, "TAKEN", "the name is taken");
                return Err(to_status(&error));
            }
            "fail later" => {
                let error = Status::out_of_range("no further");
                stream::iter([event("first"), Err(error)]).boxed()
            }
            "flood" => stream::repeat_with(|| event("x".repeat(16 * 1024))).boxed(),
            _ => stream::iter([event(caller.principal.subject)]).boxed(),
        };
        Ok(Response::new(stream))
    }
}

/// A served [`ScriptedService`].
struct TestServer {
    keys: Keys,
    stop: CancellationToken,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn serve() -> TestServer {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sockets/test.sock");
    let (keys, stop) = serve_on(grpc::listen(&socket).unwrap());
    TestServer {
        keys,
        stop,
        socket,
        _folder: folder,
    }
}

fn serve_on(listener: impl Into<Listener> + Send + 'static) -> (Keys, CancellationToken) {
    let keys = Keys::generate().unwrap();
    let stop = CancellationToken::new();
    let routes = Routes::new(EventServiceServer::new(ScriptedService));
    let serving = grpc::serve(listener, routes, keys.verifier(AUDIENCE), stop.clone());
    tokio::spawn(serving);
    (keys, stop)
}

/// A request for a script, with the identity of `ada`.
fn scripted_request(keys: &Keys, script: &str) -> Request<WatchRequest> {
    let caller = Caller {
        principal: Principal {
            subject: "ada".to_owned(),
            groups: Vec::new(),
        },
        access: Access::SingleUser,
    };
    let now = SystemClock.now().seconds();
    let token = keys.signer().sign(&caller, AUDIENCE, now).unwrap();
    let mut request = Request::new(WatchRequest {
        topics: vec![script.to_owned()],
        ..WatchRequest::default()
    });
    request
        .metadata_mut()
        .insert(HEADER, token.parse().unwrap());
    request
}

/// All that a request gives: the sources of its events, then how it ended.
async fn collect_events(
    channel: Channel,
    request: Request<WatchRequest>,
) -> (Vec<String>, Option<Status>) {
    let mut client = EventServiceClient::new(channel);
    let mut stream = match client.watch(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return (Vec::new(), Some(status)),
    };
    let mut sources = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(response)) => sources.push(response.event.unwrap().source),
            Ok(None) => return (sources, None),
            Err(status) => return (sources, Some(status)),
        }
    }
}
