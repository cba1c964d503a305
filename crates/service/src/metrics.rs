//! Metrics in Prometheus' text format. Names: `ferroflow_<service>_<noun>_<unit>`.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Renders every metric of the process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

/// Seconds; from a fast call inside one machine to a slow one.
const LATENCIES: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

impl Metrics {
    /// Starts to collect.
    ///
    /// # Errors
    /// When another part of the process collects already.
    pub fn install() -> Result<Self, String> {
        let builder = PrometheusBuilder::new();
        let builder = builder
            .set_buckets(&LATENCIES)
            .map_err(|error| error.to_string())?;
        builder
            .install_recorder()
            .map(Self)
            .map_err(|error| error.to_string())
    }

    /// The text that a scraper reads.
    pub fn render(&self) -> String {
        self.0.run_upkeep();
        self.0.render()
    }
}
