//! The listener and the way of a request through the gateway.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use ferroflow_bus::Bus;
use ferroflow_proto::events::v1::event_service_server::EventServiceServer;
use ferroflow_service::identity::Signer;
use ferroflow_service::metrics::Metrics;
use ferroflow_service::runner::{Runner, TaskKind};
use ferroflow_service::telemetry;
use ferroflow_types::Principal;
use tokio::net::TcpListener;
use tonic::Code;
use tracing::Instrument as _;

use crate::config::Config;
use crate::events::Events;
use crate::hygiene::{self, Hosts};
use crate::transcode::{Routes, transcode};
use crate::uploads::{self, Upload};
use crate::upstream::{Upstream, Upstreams, backend};
use crate::{error, pages, proxy};

/// What the gateway is given.
pub struct Deps {
    /// The services behind it.
    pub upstreams: Vec<Upstream>,
    /// Where events come from.
    pub bus: Bus,
    /// Signs who calls.
    pub signer: Signer,
    /// What `/metrics` shows.
    pub metrics: Option<Metrics>,
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
         127.0.0.1 or [::1]"
    )]
    Open(SocketAddr),
    /// The contracts.
    #[error("the gateway's contracts: {0}")]
    Contracts(String),
}

struct Gateway {
    routes: Routes,
    upstreams: Upstreams,
    hosts: Hosts,
    metrics: Option<Metrics>,
    body_max: usize,
}

/// Starts the gateway; its tasks belong to `runner`.
pub async fn start(config: &Config, deps: Deps, runner: &mut Runner) -> Result<Handle, StartError> {
    let routes = Routes::build(ferroflow_proto::pool()).map_err(StartError::Contracts)?;
    let failed = |source| StartError::Listen {
        listen: config.listen.clone(),
        source,
    };
    let listener = TcpListener::bind(&config.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    if !address.ip().is_loopback() {
        return Err(StartError::Open(address));
    }
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(ferroflow_proto::DESCRIPTOR_SET)
    };
    let contracts =
        |error: tonic_reflection::server::Error| StartError::Contracts(error.to_string());
    let upstreams = Upstreams::new(deps.signer, deps.upstreams)
        .with(
            "ferroflow.events.v1.EventService",
            backend(EventServiceServer::new(Events::new(deps.bus))),
        )
        .with(
            "grpc.reflection.v1.ServerReflection",
            backend(reflection().build_v1().map_err(contracts)?),
        )
        .with(
            "grpc.reflection.v1alpha.ServerReflection",
            backend(reflection().build_v1alpha().map_err(contracts)?),
        );
    let gateway = Arc::new(Gateway {
        routes,
        upstreams,
        hosts: Hosts::new(&config.listen, &config.allowed_hosts),
        metrics: deps.metrics,
        body_max: config.body_max,
    });
    let router = Router::new().fallback(handle).with_state(gateway);
    let stop = runner.stopping();
    runner.spawn(TaskKind::Critical, "gateway", async move {
        // Streams that are followed never end by themselves, so they are cut and not waited for.
        tokio::select! {
            served = axum::serve(listener, router) => served,
            () = stop.cancelled() => Ok(()),
        }
    });
    Ok(Handle { address })
}

/// One request: hygiene, then whoever it is for.
async fn handle(State(gateway): State<Arc<Gateway>>, mut request: Request) -> Response<Body> {
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
    // One user on a loopback address: whoever can connect is that user.
    let principal = Principal::local();
    let Gateway {
        routes,
        upstreams,
        metrics,
        ..
    } = gateway;
    if proxy::is_grpc(request.headers()) {
        return proxy::call(upstreams, &principal, request).await;
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    if let Some(page) = pages::page(&method, &path, routes, metrics.as_ref()) {
        return page;
    }
    if let Some(kind) = Upload::of(&method, &path) {
        return uploads::upload(kind, upstreams, &principal, request).await;
    }
    transcode(routes, upstreams, &principal, request, gateway.body_max).await
}
