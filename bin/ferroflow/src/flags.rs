//! The flags of `up` and `serve`: the settings that are given on the command line.

use std::path::PathBuf;

use anyhow::Context as _;
use ferroflow_service::telemetry;
use serde_json::{Value, json};

use crate::config::{InputsKind, RuntimeKind, without_nulls};
use crate::service::ServiceEntry;
use crate::settings::Settings;

/// Settings come from flags, from `FERROFLOW_<SECTION>__<KEY>` variables (named below in brackets)
/// and from a TOML file, in this order of strength.
#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// Folder of databases, artifacts, logs and environments [FERROFLOW_DATA_DIR; default
    /// ~/.ferroflow].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address and port of the gateway; port 0 picks a free one [FERROFLOW_GATEWAY__LISTEN; default
    /// 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// The largest value of a parameter in bytes, 65536 to 67108864 [FERROFLOW_VALUE_MAX; default
    /// 16777216].
    #[arg(long, value_name = "BYTES")]
    value_max: Option<u64>,
    /// The largest JSON body in bytes; 0 for what the largest value needs
    /// [FERROFLOW_GATEWAY__BODY_MAX; default 0].
    #[arg(long, value_name = "BYTES")]
    body_max: Option<usize>,
    /// A file of API keys, lines of `principal:sha256`; with it the gateway may listen anywhere
    /// [FERROFLOW_GATEWAY__API_KEYS_FILE; default none].
    #[arg(long, value_name = "FILE")]
    api_keys_file: Option<PathBuf>,
    /// Seconds between saying at /readyz that it stops and taking no further connections
    /// [FERROFLOW_GATEWAY__DRAIN_S; default 5 for `serve`, 0 for `up`].
    #[arg(long, value_name = "SECONDS")]
    drain_s: Option<u32>,
    /// A further host name that requests may name; repeat for several
    /// [FERROFLOW_GATEWAY__ALLOWED_HOSTS; default none beside loopback's].
    #[arg(long, value_name = "NAME")]
    allowed_host: Vec<String>,
    /// The Ed25519 private key (PEM, PKCS#8) by which the gateway signs who calls
    /// [FERROFLOW_IDENTITY__PRIVATE_KEY_FILE; default a new key in one process with all].
    #[arg(long, value_name = "FILE")]
    private_key_file: Option<PathBuf>,
    /// Its public key or certificate (PEM), by which services verify it
    /// [FERROFLOW_IDENTITY__PUBLIC_KEY_FILE; default that of the private key].
    #[arg(long, value_name = "FILE")]
    public_key_file: Option<PathBuf>,
    /// Where tasks run [FERROFLOW_RUNTIME; default process].
    #[arg(long, value_name = "RUNTIME")]
    runtime: Option<RuntimeKind>,
    #[command(flatten)]
    docker: crate::docker::Flags,
    /// How local processes reach their input artifacts: mounted read-only, or as copies of their own
    /// [FERROFLOW_PROCESSES__INPUTS; default auto, mounted where the system permits it].
    #[arg(long, value_name = "HOW")]
    process_inputs: Option<InputsKind>,
    /// Where artifacts are kept: an absolute path, or `s3://bucket/folder` unless tasks are processes
    /// [FERROFLOW_ARTIFACTS__URL; default <data dir>/artifacts].
    #[arg(long, value_name = "URL")]
    artifacts: Option<String>,
    /// The Python that environments are made with [FERROFLOW_PYTHON__INTERPRETER; default python3].
    #[arg(long, value_name = "PROGRAM")]
    python: Option<String>,
    /// Days that events are kept [FERROFLOW_EVENTS__RETENTION_DAYS; default 7].
    #[arg(long, value_name = "DAYS")]
    event_retention_days: Option<u32>,
    /// How logs look: auto, human or json [FERROFLOW_TELEMETRY__LOG_FORMAT; default auto].
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<telemetry::LogFormat>,
    /// What is logged, for example `info,ferroflow_pipeline_svc=debug`
    /// [FERROFLOW_TELEMETRY__LOG_FILTER; default info].
    #[arg(long, value_name = "FILTER")]
    log_filter: Option<String>,
    /// Where traces go, an OTLP gRPC endpoint [FERROFLOW_TELEMETRY__OTLP_ENDPOINT or
    /// OTEL_EXPORTER_OTLP_ENDPOINT; default nowhere].
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Where metrics are shown without a key, for example 127.0.0.1:9464
    /// [FERROFLOW_TELEMETRY__METRICS_LISTEN; default nowhere but `/metrics` of the gateway].
    #[arg(long, value_name = "ADDR:PORT")]
    metrics_listen: Option<String>,
    /// A TOML file with these settings, for example `[gateway]` `listen = "127.0.0.1:9000"`.
    #[arg(long, value_name = "FILE", env = "FERROFLOW_CONFIG")]
    config: Option<PathBuf>,
    /// Writes the address to this file once the process is ready.
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
}

/// The command with all its flags: those of the platform, and those of these services.
pub(crate) fn augment(
    command: clap::Command,
    selected: &[&ServiceEntry],
    services: &[ServiceEntry],
) -> clap::Command {
    let command = <Flags as clap::Args>::augment_args(command);
    let command = selected
        .iter()
        .fold(command, |command, service| (service.flags)(command));
    services.iter().fold(command, |command, service| {
        command.arg(upstream_flag(service))
    })
}

/// The flag that says where a gateway finds a service.
fn upstream_flag(service: &ServiceEntry) -> clap::Arg {
    let name = service.name;
    let variable = name.to_ascii_uppercase().replace('-', "_");
    clap::Arg::new(name)
        .long(name)
        .value_name("URL")
        .help(format!(
            "Where a gateway of its own finds {name}, for example http://{name}:9000; the host may have \
             several addresses [FERROFLOW_GATEWAY__UPSTREAMS__{variable}; default the socket in the data \
             folder]"
        ))
}

/// What a command line comes to.
pub(crate) struct ParsedFlags {
    flags: Flags,
    settings: Value,
}

impl ParsedFlags {
    /// Out of the matches of a command that was made by [`augment`] with the same services.
    pub(crate) fn read(
        matches: &clap::ArgMatches,
        selected: &[&ServiceEntry],
        services: &[ServiceEntry],
    ) -> anyhow::Result<Self> {
        let flags = <Flags as clap::FromArgMatches>::from_arg_matches(matches)?;
        let mut settings = flags.to_settings();
        for service in selected {
            settings[service.domain] = (service.flag_settings)(matches)?;
        }
        for service in services {
            let name = service.name;
            if let Some(url) = matches.get_one::<String>(name) {
                // Spelled with `_` as in variables: of two spellings of one name, this one wins
                // over the file's.
                settings["gateway"]["upstreams"][name.replace('-', "_")] = url.as_str().into();
            }
        }
        let settings = without_nulls(settings);
        Ok(Self { flags, settings })
    }

    /// The settings that all sources come to.
    pub(crate) fn load(&self, services: &[ServiceEntry]) -> anyhow::Result<Settings> {
        Settings::load(services, self.flags.config.as_deref(), &self.settings)
    }

    /// Tells those who wait for it where the process listens.
    pub(crate) fn write_port_file(&self, address: &str) -> anyhow::Result<()> {
        if let Some(file) = &self.flags.port_file {
            std::fs::write(file, address)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }
}

impl Flags {
    /// The flags that were given, in the shape of the settings.
    fn to_settings(&self) -> Value {
        let hosts = (!self.allowed_host.is_empty()).then_some(&self.allowed_host);
        json!({
            "data_dir": self.data_dir,
            "value_max": self.value_max,
            "gateway": {
                "listen": self.listen,
                "body_max": self.body_max,
                "allowed_hosts": hosts,
                "api_keys_file": self.api_keys_file,
                "drain_s": self.drain_s,
            },
            "identity": {
                "private_key_file": self.private_key_file,
                "public_key_file": self.public_key_file,
            },
            "runtime": self.runtime,
            "docker": self.docker.to_settings(),
            "processes": {"inputs": self.process_inputs},
            "artifacts": {"url": self.artifacts},
            "python": {"interpreter": self.python},
            "events": {"retention_days": self.event_retention_days},
            "telemetry": {
                "log_format": self.log_format,
                "log_filter": self.log_filter,
                "otlp_endpoint": self.otlp_endpoint,
                "metrics_listen": self.metrics_listen,
            },
        })
    }
}
