//! The Docker engine: finding it, asking it, asking it again while it is away.

use std::path::PathBuf;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as EngineError;
use ferroflow_launcher::AttemptKey;

use super::launcher::LauncherError;

/// Why containers cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// The address cannot be understood.
    #[error("docker.host: {host:?} is no address such as unix:///var/run/docker.sock")]
    Host {
        /// The address.
        host: String,
        /// Why not.
        #[source]
        source: EngineError,
    },
    /// Nobody answers.
    #[error(
        "no Docker engine answers at {host}: start it, or name its socket (docker.host or \
         DOCKER_HOST)"
    )]
    Unavailable {
        /// The address.
        host: String,
        /// Why not.
        #[source]
        source: EngineError,
    },
    /// There is no launcher for containers.
    #[error(transparent)]
    Launcher(#[from] LauncherError),
    /// A setting is wrong.
    #[error("{0}")]
    Setting(String),
}

/// What matters of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Engine {
    /// Its containers' root is the user that it runs as.
    pub(super) rootless: bool,
    /// Containers may touch only what is labelled for them.
    pub(super) selinux: bool,
    /// Cores of its machine.
    pub(super) cores: u64,
}

/// Where engines listen that run for everybody.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Where the engine is: as configured, as `docker` would find it, or where desktops have it.
fn host(configured: Option<&str>) -> String {
    if let Some(configured) = configured {
        return configured.to_owned();
    }
    if let Ok(given) = std::env::var("DOCKER_HOST")
        && !given.is_empty()
    {
        return given;
    }
    let home = std::env::home_dir().map(|home| home.join(".docker/run/docker.sock"));
    let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let sockets = ["docker.sock", "podman/podman.sock"];
    let session = session
        .iter()
        .flat_map(|folder| sockets.map(|socket| folder.join(socket)));
    let found = std::iter::once(PathBuf::from(DEFAULT_SOCKET))
        .chain(home)
        .chain(session)
        .find(|socket| socket.exists());
    format!(
        "unix://{}",
        found.unwrap_or_else(|| DEFAULT_SOCKET.into()).display()
    )
}

/// Finds the engine and asks what it is.
pub(super) async fn connect(configured: Option<&str>) -> Result<(Docker, Engine), DockerError> {
    let host = host(configured);
    let unavailable = |source| DockerError::Unavailable {
        host: host.clone(),
        source,
    };
    let docker = Docker::connect_with_host(&host).map_err(|source| match source {
        EngineError::SocketNotFoundError(_) => unavailable(source),
        source => DockerError::Host {
            host: host.clone(),
            source,
        },
    })?;
    // An engine that is older than this client refuses requests of the newest version of the API.
    let docker = docker.negotiate_version().await.map_err(unavailable)?;
    let info = docker.info().await.map_err(unavailable)?;
    let options = info.security_options.unwrap_or_default();
    let has = |name: &str| {
        let wanted = format!("name={name}");
        options.iter().any(|option| option.starts_with(&wanted))
    };
    let engine = Engine {
        rootless: has("rootless"),
        selinux: has("selinux"),
        // Where the engine does not say it, no CPU limit is cut down to it
        // (`objects::set_resource_limits`).
        cores: info
            .ncpu
            .and_then(|cores| u64::try_from(cores).ok())
            .unwrap_or(u64::MAX),
    };
    Ok((docker, engine))
}

/// An answer of the engine that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EngineRefusal {
    /// As in HTTP.
    pub(super) status: u16,
    /// What it said.
    pub(super) message: String,
}

impl EngineRefusal {
    /// There is no such thing.
    pub(super) fn is_missing(&self) -> bool {
        self.status == 404
    }
}

/// What the engine answered; nothing when it is away, or about to go.
pub(super) fn refusal(error: &EngineError) -> Option<EngineRefusal> {
    // An engine that is stopping, or whose containerd is, answers with 500 and one of these.
    const SHUTDOWN_ERRORS: [&str; 4] = [
        "context canceled",
        "shutting down",
        "transport is closing",
        "ttrpc: closed",
    ];
    match error {
        EngineError::DockerResponseServerError {
            status_code,
            message,
        } => {
            let is_shutting_down = *status_code == 503
                || *status_code == 500 && SHUTDOWN_ERRORS.iter().any(|text| message.contains(text));
            (!is_shutting_down).then(|| EngineRefusal {
                status: *status_code,
                message: message.clone(),
            })
        }
        _ => None,
    }
}

/// The waits between tries of an engine that is away, the last one repeated.
const RETRY_WAITS: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// The waits between tries of one request.
pub(super) struct Backoff {
    next: usize,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: 0 }
    }

    /// Waits for the next try, longer each time.
    pub(super) async fn wait(&mut self, key: &AttemptKey, error: &EngineError) {
        let wait = RETRY_WAITS[self.next.min(RETRY_WAITS.len() - 1)];
        self.next += 1;
        tracing::warn!(%key, %error, wait_s = wait.as_secs_f64(), "the Docker engine does not answer, trying again");
        tokio::time::sleep(wait).await;
    }
}

/// Asks until there is an answer.
pub(super) async fn with_retries<T, F>(
    key: &AttemptKey,
    ask: impl Fn() -> F,
) -> Result<T, EngineRefusal>
where
    F: Future<Output = Result<T, EngineError>>,
{
    let mut backoff = Backoff::new();
    // Without end: that the engine is away says nothing of the attempt, whose container may be at
    // work.
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        match refusal(&error) {
            Some(refused) => return Err(refused),
            None => backoff.wait(key, &error).await,
        }
    }
}
