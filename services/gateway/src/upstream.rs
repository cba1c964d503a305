//! The services behind the gateway, and calls to them with a signed identity.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderValue, Request, Response};
use ferroflow_service::grpc::Replicas;
use ferroflow_service::identity::{HEADER, LIFETIME_S, Signer};
use ferroflow_service::status::to_status;
use ferroflow_service::telemetry;
use ferroflow_types::error::chain;
use ferroflow_types::time::SystemClock;
use ferroflow_types::{Caller, Clock as _, Error, ErrorKind};
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt as _};

use crate::error::defect;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A service that cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct BackendError(BoxError);

/// What a caller hears of a service that gives no answer. It is no fault of theirs, may pass, and
/// where the service is concerns nobody outside.
pub(crate) fn unreachable(service: &str, cause: &BackendError) -> Status {
    let sentence = format!("{service} cannot be reached");
    let error = Error::new(ErrorKind::Unavailable, "SERVICE_UNREACHABLE", sentence);
    to_status(&error.caused_by(chain(cause)))
}

/// Whatever answers gRPC: a channel, or a service of the gateway itself.
pub(crate) type Backend = BoxCloneSyncService<Request<Body>, Response<Body>, BackendError>;

/// A service behind the gateway.
pub struct Upstream {
    /// Its name, the audience of identity tokens.
    pub name: &'static str,
    /// The gRPC services that it answers.
    pub services: Vec<&'static str>,
    /// How it is reached.
    pub connection: UpstreamConnection,
}

/// The connection to a service.
pub enum UpstreamConnection {
    /// One process.
    Single(Channel),
    /// As many as there are.
    Replicated(Replicas),
}

/// Who calls, and which service.
type TokenKey = (Caller, &'static str);

/// When it was signed, and the token.
type SignedToken = (i64, HeaderValue);

/// The services that can be called, and the tokens that were signed for calls to them.
#[derive(Clone)]
pub(crate) struct Upstreams {
    by_service: Arc<HashMap<String, (&'static str, Backend)>>,
    signer: Signer,
    tokens: Arc<Mutex<HashMap<TokenKey, SignedToken>>>,
}

impl Upstreams {
    pub(crate) fn new(signer: Signer, upstreams: Vec<Upstream>) -> Self {
        let mut by_service = HashMap::new();
        for upstream in upstreams {
            let backend = match upstream.connection {
                UpstreamConnection::Single(channel) => backend(channel),
                UpstreamConnection::Replicated(replicas) => backend(replicas),
            };
            for service in upstream.services {
                let backend = backend.clone();
                by_service.insert(service.to_owned(), (upstream.name, backend));
            }
        }
        Self {
            by_service: Arc::new(by_service),
            signer,
            tokens: Arc::default(),
        }
    }

    /// Adds a service that the gateway answers itself.
    pub(crate) fn with(mut self, service: &str, backend: Backend) -> Self {
        let known = Arc::make_mut(&mut self.by_service);
        known.insert(service.to_owned(), ("gateway", backend));
        self
    }

    /// The full names of the services that can be called.
    pub(crate) fn services(&self) -> impl Iterator<Item = &str> {
        self.by_service.keys().map(String::as_str)
    }

    /// The gRPC backend of a service, and the headers that a call to it must carry.
    pub(crate) fn backend_for(
        &self,
        service: &str,
        caller: &Caller,
    ) -> Result<(Backend, HeaderMap), Status> {
        let Some((audience, backend)) = self.by_service.get(service) else {
            return Err(Status::new(
                Code::Unimplemented,
                format!("{service} is not part of this installation"),
            ));
        };
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, self.token(caller, audience)?);
        if let Some(trace) = telemetry::current_traceparent()
            && let Ok(value) = HeaderValue::from_str(&trace)
        {
            headers.insert("traceparent", value);
        }
        Ok((backend.clone(), headers))
    }

    /// A token for this caller, signed anew when half its life is over.
    fn token(&self, caller: &Caller, audience: &'static str) -> Result<HeaderValue, Status> {
        let now = SystemClock.now().seconds();
        let key = (caller.clone(), audience);
        // Nothing is ever removed: there are no more tokens than API keys times services.
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((signed_at, token)) = tokens.get(&key)
            && now - signed_at < LIFETIME_S / 2
        {
            return Ok(token.clone());
        }
        let token = self
            .signer
            .sign(caller, audience, now)
            .map_err(|error| to_status(&Error::internal("cannot sign an identity", error)))?;
        let token = HeaderValue::from_str(&token)
            .map_err(|_| defect("a signed identity is not a header"))?;
        tokens.insert(key, (now, token.clone()));
        Ok(token)
    }
}

/// Anything that answers gRPC, as a backend.
pub(crate) fn backend<S, B>(service: S) -> Backend
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let service = service
        .map_response(|response: Response<B>| response.map(Body::new))
        .map_err(|error: S::Error| BackendError(error.into()));
    BoxCloneSyncService::new(service)
}
