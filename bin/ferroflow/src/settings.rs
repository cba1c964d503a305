//! Settings of the platform and of every service in the table.

use std::path::Path;

use ferroflow_service::config::{self, ConfigPart, LoadedConfig};
use ferroflow_types::Secret;
use serde_json::Value;

use crate::config::Config;
use crate::service::ServiceEntry;

/// All settings.
pub(crate) struct Settings {
    /// Those of the platform.
    pub(crate) platform: Config,
    /// Those of the services as well, a section each.
    pub(crate) all: LoadedConfig,
}

impl Settings {
    /// Out of defaults, the file, the environment and the flags that were given.
    pub(crate) fn load(
        services: &[ServiceEntry],
        file: Option<&Path>,
        flags: &Value,
    ) -> anyhow::Result<Self> {
        let sections = services.iter().map(|service| (service.part)());
        let parts: Vec<_> = std::iter::once(ConfigPart::top::<Config>())
            .chain(sections)
            .collect();
        let all = config::load_parts(&parts, file, flags)?;
        let mut platform: Config = all.top()?;
        // The variable that OpenTelemetry defines for every program; a setting of ours wins.
        if platform.telemetry.otlp_endpoint.is_none() {
            let standard = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok();
            platform.telemetry.otlp_endpoint = standard.filter(|endpoint| !endpoint.is_empty());
        }
        Ok(Self { platform, all })
    }
}

/// Whether it is a database that several processes may share.
pub(crate) fn is_postgres(url: Option<&Secret>) -> bool {
    url.is_some_and(|url| !url.expose().starts_with("sqlite:"))
}
