//! The listener and the way of a request through the gateway.

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response};
use ferroflow_bus::Bus;
use ferroflow_proto::events::v1::event_service_server::EventServiceServer;
use ferroflow_proto::kfp::v2beta1::healthz_service_server::HealthzServiceServer;
use ferroflow_proto::nesting::UNKNOWN_BYTES_MAX;
use ferroflow_service::identity::Signer;
use ferroflow_service::metrics::Metrics;
use ferroflow_service::runner::{Runner, TaskKind};
use ferroflow_service::telemetry;
use ferroflow_types::{Caller, ValueLimit};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tracing::Instrument as _;

use crate::authorize::Rules;
use crate::config::Config;
use crate::contracts::Contracts;
use crate::events::Events;
use crate::health::Health;
use crate::hygiene::{self, Hosts};
use crate::keys::ApiKeys;
use crate::transcode::{Routes, Transcoder, transcode};
use crate::uploads::{self, Upload};
use crate::upstream::{Upstream, Upstreams, backend};
use crate::{error, pages, prefix, proxy};

/// What the gateway is given.
pub struct Deps {
    /// The services behind it.
    pub upstreams: Vec<Upstream>,
    /// What they can be asked.
    pub contracts: Contracts,
    /// Where events come from.
    pub bus: Bus,
    /// Signs who calls.
    pub signer: Signer,
    /// What `/metrics` shows.
    pub metrics: Option<Metrics>,
    /// How large values may be.
    pub values: ValueLimit,
}

/// A running gateway.
#[derive(Debug, Clone, Copy)]
pub struct Handle {
    /// Where it listens.
    pub address: SocketAddr,
}

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("gateway.listen {listen}: {source}")]
    Listen {
        /// The setting.
        listen: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Somebody else could reach it.
    #[error(
        "gateway.listen {0} is not a loopback address, and there is no authentication: listen on \
         127.0.0.1 or [::1], or name a file of API keys in gateway.api_keys_file"
    )]
    Open(SocketAddr),
    /// The file of API keys.
    #[error("gateway.api_keys_file {path}: {problem}")]
    Keys {
        /// The setting.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The contracts.
    #[error("the gateway's contracts: {0}")]
    Contracts(String),
}

/// How long requests may take to end once no further ones are taken.
const PATIENCE: Duration = Duration::from_secs(8);
/// The same for a gateway that does not drain.
const SHORT_PATIENCE: Duration = Duration::from_millis(500);

const HEALTHZ: &str = "kubeflow.pipelines.backend.api.v2beta1.HealthzService";

/// gRPC reflection, in the version of today and in the one that older clients ask for.
const REFLECTION: [&str; 2] = [
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

struct Gateway {
    contracts: Contracts,
    rules: Rules,
    routes: Routes,
    upstreams: Upstreams,
    hosts: Hosts,
    metrics: Option<Metrics>,
    body_max: usize,
    /// Without keys there is one user.
    keys: Option<ApiKeys>,
    draining: AtomicBool,
}

/// Starts the gateway; its tasks belong to `runner`.
pub async fn start(config: &Config, deps: Deps, runner: &mut Runner) -> Result<Handle, StartError> {
    let contracts = deps.contracts;
    let rules = Rules::read(contracts.pool()).map_err(StartError::Contracts)?;
    let routes = Routes::build(contracts.pool()).map_err(StartError::Contracts)?;
    let failed = |source| StartError::Listen {
        listen: config.listen.clone(),
        source,
    };
    let listener = TcpListener::bind(&config.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let keys = keys(config)?;
    if keys.is_none() && !address.ip().is_loopback() {
        return Err(StartError::Open(address));
    }
    let upstreams = Upstreams::new(deps.signer, deps.upstreams)
        .with(
            "ferroflow.events.v1.EventService",
            backend(EventServiceServer::new(Events::new(deps.bus))),
        )
        .with(HEALTHZ, backend(HealthzServiceServer::new(Health)));
    let upstreams = reflected(upstreams, &contracts)
        .map_err(|error| StartError::Contracts(error.to_string()))?;
    let gateway = Arc::new(Gateway {
        contracts,
        rules,
        routes,
        upstreams,
        hosts: Hosts::new(&config.listen, &config.allowed_hosts),
        metrics: deps.metrics,
        body_max: body_max(config, deps.values),
        keys,
        draining: AtomicBool::new(false),
    });
    let drain = Duration::from_secs(config.drain_s.unwrap_or(0).into());
    runner.allow(drain + PATIENCE + Duration::from_secs(1));
    let serving = serve(gateway, listener, drain, runner.stopping());
    runner.spawn(TaskKind::Critical, "gateway", serving);
    Ok(Handle { address })
}

fn body_max(config: &Config, values: ValueLimit) -> usize {
    if config.body_max == 0 {
        return values.body();
    }
    if (config.body_max as u64) < values.value() {
        tracing::warn!(
            body_max = config.body_max,
            value_max = values.value(),
            "gateway.body_max is less than value_max: requests with larger values are refused"
        );
    }
    config.body_max
}

/// Adds the services that describe what can be called, and nothing else.
fn reflected(
    upstreams: Upstreams,
    contracts: &Contracts,
) -> Result<Upstreams, tonic_reflection::server::Error> {
    let encoded = contracts.encoded();
    let builder = || {
        let mut builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(&encoded)
            // The contracts have it, with its rule of access.
            .include_reflection_service(false);
        for service in upstreams.services().chain(REFLECTION) {
            builder = builder.with_service_name(service);
        }
        builder
    };
    let v1 = builder()
        .build_v1()?
        .max_decoding_message_size(UNKNOWN_BYTES_MAX);
    let v1alpha = builder()
        .build_v1alpha()?
        .max_decoding_message_size(UNKNOWN_BYTES_MAX);
    let [v1_name, v1alpha_name] = REFLECTION;
    Ok(upstreams
        .with(v1_name, backend(v1))
        .with(v1alpha_name, backend(v1alpha)))
}

fn keys(config: &Config) -> Result<Option<ApiKeys>, StartError> {
    let path = &config.api_keys_file;
    if path.is_empty() {
        return Ok(None);
    }
    let keys = ApiKeys::load(Path::new(path)).map_err(|problem| StartError::Keys {
        path: path.clone(),
        problem,
    })?;
    Ok(Some(keys))
}

/// Serves until `stop`. Then it says for a while that it is not ready, and takes what still comes;
/// after that it lets requests end. Streams that are followed never end by themselves, so at last
/// they are cut.
async fn serve(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    drain: Duration,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let closing = CancellationToken::new();
    let router = Router::new()
        .fallback(handle)
        .with_state(Arc::clone(&gateway));
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(closing.clone().cancelled_owned())
        .into_future();
    let cut = async {
        stop.cancelled().await;
        gateway.draining.store(true, Ordering::Release);
        tokio::time::sleep(drain).await;
        closing.cancel();
        // One who stops it by hand does not want to wait for streams.
        let patience = if drain.is_zero() {
            SHORT_PATIENCE
        } else {
            PATIENCE
        };
        tokio::time::sleep(patience).await;
    };
    tokio::select! {
        served = served => served,
        () = cut => Ok(()),
    }
}

/// One request: hygiene, who calls, then whoever it is for.
async fn handle(State(gateway): State<Arc<Gateway>>, mut request: Request) -> Response<Body> {
    prefix::strip(request.uri_mut());
    let draining = gateway.draining.load(Ordering::Acquire);
    if let Some(answer) = pages::probe(request.method(), request.uri().path(), draining) {
        return answer;
    }
    let traceparent = request
        .headers()
        .get("traceparent")
        .and_then(|value| value.to_str().ok());
    let span = tracing::info_span!("http", method = %request.method(), path = request.uri().path());
    if let Some(traceparent) = traceparent {
        telemetry::continue_trace(&span, traceparent);
    }
    let checked = gateway
        .hosts
        .check(request.method(), request.uri(), request.headers());
    if let Err((status, message)) = checked {
        hygiene::drain(request.into_body()).await;
        return error::refuse(status, Code::PermissionDenied, &message);
    }
    hygiene::clean(request.headers_mut());
    let begun = std::time::Instant::now();
    let method = request.method().to_string();
    let response = route(&gateway, request).instrument(span).await;
    let labels = [
        ("method", method),
        ("status", response.status().as_u16().to_string()),
    ];
    metrics::counter!("ferroflow_gateway_requests_total", &labels).increment(1);
    metrics::histogram!("ferroflow_gateway_request_seconds").record(begun.elapsed().as_secs_f64());
    response
}

async fn route(gateway: &Gateway, request: Request) -> Response<Body> {
    if let Some(page) = pages::ui(request.method(), request.uri().path()) {
        return page;
    }
    let caller = match &gateway.keys {
        // One user on a loopback address: whoever can connect is that user.
        None => Some(Caller::local()),
        Some(keys) => keys.caller(request.headers()).cloned(),
    };
    let Some(caller) = caller else {
        let answer = unknown(request.headers(), &gateway.contracts);
        hygiene::drain(request.into_body()).await;
        return answer;
    };
    let Gateway {
        contracts,
        rules,
        routes,
        upstreams,
        metrics,
        ..
    } = gateway;
    if proxy::is_grpc(request.headers()) {
        return proxy::call(rules, upstreams, &caller, request).await;
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    if let Some(page) = pages::page(&method, &path, contracts, routes, metrics.as_ref()) {
        hygiene::drain(request.into_body()).await;
        return page;
    }
    if let Some(kind) = Upload::of(&method, &path) {
        let Ok(allowed) = rules.allow(&caller, &kind.full_name()) else {
            let status = Status::permission_denied("there is no rule for this request");
            return error::response(&status, contracts);
        };
        return uploads::upload(kind, upstreams, &allowed, request).await;
    }
    let transcoder = Transcoder {
        contracts,
        rules,
        routes,
        upstreams,
        body_max: gateway.body_max,
    };
    transcode(&transcoder, &caller, request).await
}

/// The answer to one who carries no key of ours.
fn unknown(headers: &HeaderMap, contracts: &Contracts) -> Response<Body> {
    let status = Status::unauthenticated(
        "an API key is needed: Authorization: Bearer <key> (kfp.Client(existing_token=…))",
    );
    if proxy::is_grpc(headers) {
        return proxy::refused(&status);
    }
    error::response(&status, contracts)
}
