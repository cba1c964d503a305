//! The listener: what is put together when it starts, and how it stops.

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt as _;
use ferroflow_bus::Bus;
use ferroflow_proto::events::v1::event_service_server::EventServiceServer;
use ferroflow_proto::kfp::v2beta1::healthz_service_server::HealthzServiceServer;
use ferroflow_proto::nesting::UNKNOWN_BYTES_MAX;
use ferroflow_service::identity::Signer;
use ferroflow_service::metrics::Metrics;
use ferroflow_service::runner::{Runner, TaskKind};
use ferroflow_types::ValueLimit;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::authenticate::Authenticator;
use crate::authorize::Rules;
use crate::config::Config;
use crate::contracts::Contracts;
use crate::events::Events;
use crate::handle::{Gateway, handle};
use crate::health::Health;
use crate::hygiene::Hosts;
use crate::reflection::with_reflection;
use crate::route::Routes;
use crate::upstream::{Upstream, Upstreams, backend};

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
    NotLoopback(SocketAddr),
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

/// How long requests may take to end once no further ones are accepted.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(8);
/// The same for a gateway that does not drain.
const SHORT_SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// gRPC's own health checks, which are for everybody as `/healthz` is.
const HEALTH_SERVICE: &str = "grpc.health.v1.Health";

const HEALTHZ_SERVICE: &str = "kubeflow.pipelines.backend.api.v2beta1.HealthzService";

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
    let authenticator = authenticator(config)?;
    // By the address that is bound and not by the setting: a host name may resolve to any address.
    if !authenticator.has_keys() && !address.ip().is_loopback() {
        return Err(StartError::NotLoopback(address));
    }
    let upstreams = Upstreams::new(deps.signer, deps.upstreams)
        .with(
            "ferroflow.events.v1.EventService",
            backend(EventServiceServer::new(Events::new(deps.bus))),
        )
        .with(HEALTHZ_SERVICE, backend(HealthzServiceServer::new(Health)));
    let (health, upstreams) = with_health(upstreams);
    // After all others: reflection lists the services that are there by now.
    let upstreams = with_reflection(upstreams, &contracts);
    report_health(&health, &upstreams, ServingStatus::Serving).await;
    let gateway = Arc::new(Gateway {
        hosts: Hosts::new(&config.listen, &config.allowed_hosts),
        authenticator,
        routes,
        rules,
        upstreams,
        contracts,
        metrics: deps.metrics,
        body_max: body_max(config, deps.values),
        draining: AtomicBool::new(false),
    });
    let drain = Duration::from_secs(config.drain_s.unwrap_or(0).into());
    // A second more than `serve` takes, so that the runner does not abort it before it ends.
    runner.extend_stop_timeout(drain + SHUTDOWN_TIMEOUT + Duration::from_secs(1));
    let serving = serve(gateway, health, listener, drain, runner.stop_token());
    runner.spawn(TaskKind::Critical, "gateway", serving);
    Ok(Handle { address })
}

fn body_max(config: &Config, values: ValueLimit) -> usize {
    let Some(body_max) = config.body_max else {
        return values.body();
    };
    if (body_max as u64) < values.value() {
        tracing::warn!(
            body_max,
            value_max = values.value(),
            "gateway.body_max is less than value_max: requests with larger values are refused"
        );
    }
    body_max
}

/// Adds the health of every service, and that of the gateway as a whole: while it serves, calls of a
/// service are taken.
fn with_health(upstreams: Upstreams) -> (HealthReporter, Upstreams) {
    let (reporter, service) = tonic_health::server::health_reporter();
    // No descriptor of ours checks how deep its messages nest, so they have to be short
    // (`nesting`).
    let service = service.max_decoding_message_size(UNKNOWN_BYTES_MAX);
    (reporter, upstreams.with(HEALTH_SERVICE, backend(service)))
}

async fn report_health(reporter: &HealthReporter, upstreams: &Upstreams, status: ServingStatus) {
    for service in upstreams.services().chain([""]) {
        reporter.set_service_status(service, status).await;
    }
}

fn authenticator(config: &Config) -> Result<Authenticator, StartError> {
    let path = config.api_keys_file.as_deref();
    Authenticator::load(path.map(Path::new)).map_err(|problem| StartError::Keys {
        path: path.unwrap_or_default().to_owned(),
        problem,
    })
}

/// Serves until `stop`. Then it says for a while that it is not ready, and takes what still comes;
/// after that it lets requests end. Streams that are followed never end by themselves, so at last
/// they are cut.
async fn serve(
    gateway: Arc<Gateway>,
    health: HealthReporter,
    listener: TcpListener,
    drain: Duration,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let closing = CancellationToken::new();
    let router = Router::new()
        .fallback(handle)
        .with_state(Arc::clone(&gateway));
    // With Nagle's algorithm, an answer over HTTP/2 waits for the client's delayed acknowledgement of
    // its headers: 40 ms for each gRPC call.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection is slower than need be");
        }
    });
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(closing.clone().cancelled_owned())
        .into_future();
    let force_stop = async {
        stop.cancelled().await;
        // Load balancers have `drain` to learn of it by `/readyz` or health checks. Until
        // `closing`, connections and requests are still taken.
        gateway.draining.store(true, Ordering::Release);
        report_health(&health, &gateway.upstreams, ServingStatus::NotServing).await;
        tokio::time::sleep(drain).await;
        closing.cancel();
        // Without `drain_s`, all services are in this process and somebody stops it by hand, who is
        // not to wait for streams that never end.
        let timeout = if drain.is_zero() {
            SHORT_SHUTDOWN_TIMEOUT
        } else {
            SHUTDOWN_TIMEOUT
        };
        tokio::time::sleep(timeout).await;
    };
    tokio::select! {
        served = served => served,
        () = force_stop => Ok(()),
    }
}
