//! The gateway in front of the services of the table.

use std::path::Path;

use anyhow::{Context as _, bail};
use ferroflow_bus::Bus;
use ferroflow_gateway::{Contracts, Handle, Upstream, UpstreamConnection};
use ferroflow_service::grpc::{self, Replicas};
use ferroflow_service::identity::Signer;
use ferroflow_service::metrics::Metrics;
use ferroflow_service::runner::Runner;

use crate::config::Config;
use crate::folder;
use crate::service::ServiceEntry;

/// The connection to each service; to those that the settings do not name, their sockets.
fn upstreams(
    config: &Config,
    services: &[ServiceEntry],
    data_dir: &Path,
) -> anyhow::Result<Vec<Upstream>> {
    let configured = config.gateway.upstreams();
    for name in configured.keys() {
        // A name that is written wrong would leave its service to a socket that nobody listens at.
        if !services.iter().any(|service| service.name == name) {
            let known: Vec<_> = services.iter().map(|service| service.name).collect();
            bail!(
                "gateway.upstreams.{name}: there is no such service, known are {}",
                known.join(", ")
            );
        }
    }
    let message_max = config.value_max.message();
    let upstream = |service: &ServiceEntry| {
        let name = service.name;
        let connection = match configured.get(name) {
            None => UpstreamConnection::Single(grpc::connect(folder::socket(data_dir, name))),
            Some(uri) => {
                let replicas = Replicas::connect(uri, message_max).map_err(anyhow::Error::msg);
                let setting = || format!("gateway.upstreams.{name}");
                UpstreamConnection::Replicated(replicas.with_context(setting)?)
            }
        };
        Ok(Upstream {
            name,
            services: service.grpc.to_vec(),
            connection,
        })
    };
    services.iter().map(upstream).collect()
}

/// The contracts of all services.
fn contracts(services: &[ServiceEntry]) -> anyhow::Result<Contracts> {
    let own = services.iter().filter_map(|service| service.contracts);
    own.into_iter()
        .try_fold(Contracts::default(), Contracts::with)
        .map_err(anyhow::Error::msg)
}

/// Starts a gateway.
pub(crate) async fn start(
    config: &Config,
    services: &[ServiceEntry],
    data_dir: &Path,
    bus: Bus,
    signer: Signer,
    metrics: Metrics,
    runner: &mut Runner,
) -> anyhow::Result<Handle> {
    let deps = ferroflow_gateway::Deps {
        upstreams: upstreams(config, services, data_dir)?,
        contracts: contracts(services)?,
        bus,
        signer,
        metrics: Some(metrics),
        values: config.value_max,
    };
    Ok(ferroflow_gateway::start(&config.gateway, deps, runner).await?)
}
