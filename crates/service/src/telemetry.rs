//! Logs to standard error, traces to an OTLP collector, W3C trace context between processes.

use std::io::IsTerminal as _;

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde::{Deserialize, Serialize};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// Settings of telemetry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// How logs look.
    pub log_format: LogFormat,
    /// What is logged, as `tracing` writes filters.
    pub log_filter: String,
    /// Where traces go, an OTLP gRPC endpoint; nowhere unless given.
    #[serde(with = "ferroflow_types::unset::text")]
    pub otlp_endpoint: Option<String>,
    /// Where the process shows its metrics, without a key, an address and a port. Unless given, only
    /// `/metrics` of the gateway shows them.
    #[serde(with = "ferroflow_types::unset::text")]
    pub metrics_listen: Option<String>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Auto,
            log_filter: "info".to_owned(),
            otlp_endpoint: None,
            metrics_listen: None,
        }
    }
}

/// Sends what is left when it is dropped.
pub struct TelemetryGuard {
    provider: SdkTracerProvider,
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::debug!(%error, "traces were not sent to the end");
        }
    }
}

/// Why telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("telemetry.log_filter cannot be read: {0}")]
    Filter(String),
    /// The collector's address cannot be used.
    #[error("telemetry.otlp_endpoint cannot be used: {0}")]
    Otlp(String),
    /// It was set up before.
    #[error("telemetry is set up already")]
    AlreadyInitialized,
}

/// Sets telemetry up for the process. Must be called inside a tokio runtime.
pub fn init(service: &str, config: &TelemetryConfig) -> Result<TelemetryGuard, TelemetryError> {
    let resource = Resource::builder()
        .with_service_name(service.to_owned())
        .build();
    // Without a collector too: errors that are shown to callers are found in the log by the trace's
    // id.
    let mut provider = SdkTracerProvider::builder().with_resource(resource);
    if let Some(endpoint) = &config.otlp_endpoint {
        use opentelemetry_otlp::WithExportConfig as _;
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .map_err(|error| TelemetryError::Otlp(error.to_string()))?;
        provider = provider.with_batch_exporter(exporter);
    }
    let provider = provider.build();
    let filter = EnvFilter::try_new(&config.log_filter)
        .map_err(|error| TelemetryError::Filter(error.to_string()))?;
    let traces = tracing_opentelemetry::layer().with_tracer(provider.tracer(service.to_owned()));
    let registry = tracing_subscriber::registry().with(filter).with(traces);
    let is_terminal = std::io::stderr().is_terminal();
    let human = match config.log_format {
        LogFormat::Auto => is_terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let result = if human {
        registry
            .with(logs.with_target(false).with_ansi(is_terminal))
            .try_init()
    } else {
        registry.with(logs.json().flatten_event(true)).try_init()
    };
    result.map_err(|_| TelemetryError::AlreadyInitialized)?;
    Ok(TelemetryGuard { provider })
}

struct TraceHeader(Option<String>);

impl Injector for TraceHeader {
    fn set(&mut self, key: &str, value: String) {
        if key == "traceparent" {
            self.0 = Some(value);
        }
    }
}

impl Extractor for TraceHeader {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.as_deref().filter(|_| key == "traceparent")
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

/// The W3C `traceparent` of the current span, if it is traced.
pub fn current_traceparent() -> Option<String> {
    let mut header = TraceHeader(None);
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut header);
    header.0
}

/// Makes `span` a child of the caller's.
pub fn continue_trace(span: &Span, traceparent: &str) {
    let header = TraceHeader(Some(traceparent.to_owned()));
    let context = TraceContextPropagator::new().extract(&header);
    if let Err(error) = span.set_parent(context) {
        tracing::debug!(%error, "the caller's trace is not continued");
    }
}
