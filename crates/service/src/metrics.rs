//! Metrics in Prometheus' text format. Names: `ferroflow_<service>_<noun>_<unit>`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use metrics_exporter_prometheus::{ExporterFuture, PrometheusBuilder, PrometheusHandle};

use crate::runner::{Runner, TaskKind};
use crate::worker::{NextTick, Worker, run_until_stopped};

/// Renders every metric of the process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

/// Seconds; from a fast call inside one machine to a slow one.
const LATENCY_BUCKETS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// How often samples are moved.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Why metrics cannot be collected or shown.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The setting cannot be read.
    #[error("telemetry.metrics_listen is {0:?}: give an IP address and a port, or leave it empty")]
    Address(String),
    /// Nobody can listen there.
    #[error("telemetry.metrics_listen: cannot listen at {address}: {problem}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        problem: String,
    },
    /// They cannot be collected: another part of the process does already.
    #[error("metrics cannot be collected: {0}")]
    Recorder(String),
}

impl Metrics {
    /// Starts to collect, and to answer scrapers at `listen`, an address and a port, if there is
    /// one. They need no key there.
    pub fn start(listen: Option<&str>, runner: &mut Runner) -> Result<Self, MetricsError> {
        let recorder_error =
            |error: &dyn std::error::Error| MetricsError::Recorder(error.to_string());
        let builder = PrometheusBuilder::new()
            .set_buckets(&LATENCY_BUCKETS)
            .map_err(|error| recorder_error(&error))?;
        let Some(listen) = listen else {
            let handle = builder
                .install_recorder()
                .map_err(|error| recorder_error(&error))?;
            let (upkeep, stop) = (Upkeep(handle.clone()), runner.stop_token());
            runner.spawn(TaskKind::Helper, "metrics", async move {
                run_until_stopped(upkeep, &stop).await;
                Ok::<(), Infallible>(())
            });
            return Ok(Self(handle));
        };
        let address: SocketAddr = listen
            .parse()
            .map_err(|_| MetricsError::Address(listen.to_owned()))?;
        let (recorder, exporter) =
            builder
                .with_http_listener(address)
                .build()
                .map_err(|error| MetricsError::Listen {
                    address,
                    problem: error.to_string(),
                })?;
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|error| recorder_error(&error))?;
        serve_scrapes(exporter, runner);
        tracing::info!(%address, "metrics are served");
        Ok(Self(handle))
    }

    /// The text that a scraper reads.
    pub fn render(&self) -> String {
        // What came since the last upkeep is shown too.
        self.0.run_upkeep();
        self.0.render()
    }
}

/// Without a listener of its own, the exporter leaves it to its caller to move samples of histograms into
/// their buckets. They would pile up where nobody asks for `/metrics`.
struct Upkeep(PrometheusHandle);

impl Worker for Upkeep {
    type Error = Infallible;

    fn name(&self) -> &'static str {
        "metrics"
    }

    async fn tick(&mut self) -> Result<NextTick, Infallible> {
        self.0.run_upkeep();
        Ok(NextTick::After(UPKEEP_INTERVAL))
    }
}

fn serve_scrapes(exporter: ExporterFuture, runner: &mut Runner) {
    let stop = runner.stop_token();
    runner.spawn(TaskKind::Helper, "metrics", async move {
        tokio::select! {
            ended = exporter => ended.map_err(|error| format!("{error:?}")),
            () = stop.cancelled() => Ok(()),
        }
    });
}
