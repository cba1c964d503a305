//! The container of an attempt, as a pure function of what is to be done.
//!
//! ```text
//! /ferroflow/launcher           the first process, read-only
//! <attempt folder>              at the path that it has outside; so has its owner's workspace
//! <artifacts>                   read-only, but for the folders of this attempt's outputs
//! /s3, /minio, /gcs, /oci       content of other stores, where KFP's executors look for it
//! ```

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HealthConfig, HostConfig, HostConfigLogConfig, Mount,
    MountType, RestartPolicy, RestartPolicyNameEnum,
};
use ferroflow_launcher::{AttemptKey, AttemptSpec, OwnerKey};
use ferroflow_types::quantity::parse_quantity;

use super::DockerConfig;
use super::engine::Engine;
use super::platform::Platform;
use super::user::User;
use crate::environment;
use crate::labels::{Labels, Names};

/// The label with the data folder that a container belongs to.
pub(super) const DATA_LABEL: &str = "ai.ferroflow.data-dir";
/// The labels of attempts.
pub(super) const LABELS: Labels = Labels {
    pipelines: Names {
        owner: "ai.ferroflow.run",
        item: "ai.ferroflow.task",
        attempt: "ai.ferroflow.attempt",
        name: "ai.ferroflow.task-name",
    },
    other_domains: Names {
        owner: "ai.ferroflow.owner",
        item: "ai.ferroflow.item",
        attempt: "ai.ferroflow.attempt",
        name: "ai.ferroflow.name",
    },
    domain: "ai.ferroflow.domain",
    namespace: "ai.ferroflow.namespace",
};

const LAUNCHER: &str = "/ferroflow/launcher";

/// Schemes of URIs and where KFP's executors look for them.
const SCHEMES: [&str; 4] = ["s3", "minio", "gcs", "oci"];

/// Seconds between SIGTERM and SIGKILL. The launcher gives its command 5 and uses the rest to
/// collect and to write the outcome.
pub(super) const STOP_TIMEOUT_S: i32 = 8;

/// What package managers and changes of the user need; the rest of Docker's default is dropped.
const CAPABILITIES: [&str; 7] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
];

/// The name of an attempt's container.
pub(super) fn container_name(key: &AttemptKey) -> String {
    format!("ff-{}", key.name())
}

/// What a container is made from.
pub(super) struct ContainerParams<'a> {
    pub(super) spec: &'a AttemptSpec,
    pub(super) platform: &'a Platform,
    pub(super) config: &'a DockerConfig,
    pub(super) engine: &'a Engine,
    pub(super) user: User,
    /// The launcher's file.
    pub(super) launcher: &'a Path,
    /// The attempt's folder.
    pub(super) dir: &'a Path,
    /// The folder that the run's tasks share.
    pub(super) workspace: &'a Path,
}

/// Folders of this machine that the attempt writes to, beside its own.
pub(super) fn shared_folders(spec: &AttemptSpec, workspace: &Path) -> Vec<PathBuf> {
    let folders: BTreeSet<PathBuf> = spec
        .outputs()
        .filter(|artifact| scheme(&artifact.path).is_none())
        .filter_map(|artifact| artifact.path.parent().map(Path::to_path_buf))
        .chain(spec.workspace.is_some().then(|| workspace.to_path_buf()))
        .collect();
    folders.into_iter().collect()
}

/// The folder that stands for a scheme, when the path is below one.
pub(super) fn scheme(path: &Path) -> Option<&'static str> {
    let inner = path.strip_prefix("/").ok()?;
    SCHEMES.into_iter().find(|scheme| inner.starts_with(scheme))
}

/// Where content of other stores is, outside.
pub(super) fn content_dir(dir: &Path) -> PathBuf {
    dir.join("content")
}

/// The schemes that an attempt needs folders for.
pub(super) fn schemes(spec: &AttemptSpec) -> BTreeSet<&'static str> {
    let inputs = spec.inputs.iter().map(|input| &input.path);
    let links = spec.links.iter().map(|link| &link.path);
    let outputs = spec.outputs().map(|output| &output.path);
    inputs
        .chain(links)
        .chain(outputs)
        .filter_map(|path| scheme(path))
        .collect()
}

/// The container of an attempt.
///
/// # Errors
/// Names the field that containers of this machine cannot give.
pub(super) fn container(params: &ContainerParams<'_>) -> Result<ContainerCreateBody, String> {
    let ContainerParams {
        spec, config, dir, ..
    } = params;
    let shared = shared_folders(spec, params.workspace);
    let entry = [
        LAUNCHER.to_owned(),
        "container".to_owned(),
        dir.display().to_string(),
    ];
    let entry = entry
        .into_iter()
        .chain(shared.iter().map(|folder| folder.display().to_string()));
    Ok(ContainerCreateBody {
        image: Some(config.image(&spec.image)),
        entrypoint: Some(entry.collect()),
        user: Some(params.user.to_string()),
        env: Some(environment(params)?),
        labels: Some(labels(spec, config)),
        // The launcher knows how the command is; the image's own check would run beside it.
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        stop_signal: Some("SIGTERM".to_owned()),
        stop_timeout: Some(STOP_TIMEOUT_S.into()),
        host_config: Some(host_config(params, &shared)?),
        ..ContainerCreateBody::default()
    })
}

fn labels(spec: &AttemptSpec, config: &DockerConfig) -> HashMap<String, String> {
    let key = &spec.key;
    let name = LABELS.names(&key.owner.domain).name;
    let mut labels: HashMap<_, _> = spec.labels.clone().into_iter().collect();
    labels.extend(owner_labels(&key.owner, config));
    labels.extend(LABELS.of_attempt(key));
    labels.insert(name.to_owned(), spec.name.clone());
    labels
}

/// What every container of an owner has.
pub(super) fn owner_labels(owner: &OwnerKey, config: &DockerConfig) -> HashMap<String, String> {
    let data = (DATA_LABEL.to_owned(), config.data_dir.display().to_string());
    LABELS.of_owner(owner).into_iter().chain([data]).collect()
}

/// What KFP promises, a home where the image's is not ours, and what the task declares.
fn environment(params: &ContainerParams<'_>) -> Result<Vec<String>, String> {
    let ContainerParams {
        spec,
        platform,
        dir,
        user,
        ..
    } = params;
    let pair = |name: &str, value: String| (name.to_owned(), value);
    let mut base = spec.kfp_variables(&container_name(&spec.key), &spec.key.item.to_string());
    if user.uid != 0 {
        // The image need not know this user, and programs ask for both.
        base.push(pair("HOME", dir.join("home").display().to_string()));
        base.push(pair("USER", "ferroflow".to_owned()));
    }
    if let Some(traceparent) = &spec.traceparent {
        base.push(pair("TRACEPARENT", traceparent.clone()));
    }
    spec.check_env()?;
    let declared: Vec<_> = spec.small_env().cloned().collect();
    let mut env = environment::assemble(base, &declared);
    for field in &platform.field_path_as_env {
        let value = match field.field_path.as_str() {
            "metadata.name" => container_name(&spec.key),
            "metadata.uid" => spec.key.item.to_string(),
            other => {
                return Err(format!(
                    "fieldPathAsEnv: {other} is a field of a pod, and a container has none: remove \
                     it, or use `--runtime kubernetes`"
                ));
            }
        };
        env.push((field.name.clone(), value));
    }
    Ok(env
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect())
}

fn host_config(params: &ContainerParams<'_>, shared: &[PathBuf]) -> Result<HostConfig, String> {
    let ContainerParams {
        spec,
        platform,
        config,
        engine,
        ..
    } = params;
    let mut security = vec!["no-new-privileges".to_owned()];
    // SELinux lets containers touch only what is labelled for them, and the mounted folders are
    // not.
    if engine.selinux {
        security.push("label=disable".to_owned());
    }
    let mut host = HostConfig {
        mounts: Some(mounts(params, shared)),
        binds: (!config.mounts.is_empty()).then(|| config.mounts.clone()),
        network_mode: config.network.clone(),
        // A command runs at most once under an attempt; trying again is a new attempt.
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        // The attempt's folder has the log; this one tells why a launcher could not start.
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([("max-size".to_owned(), "1m".to_owned())])),
        }),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
        security_opt: Some(security),
        shm_size: match &platform.enabled_shared_memory {
            Some(asked) => Some(whole("enabledSharedMemory.size", &asked.size, 1.0)?),
            None => None,
        },
        ..HostConfig::default()
    };
    set_resource_limits(&mut host, spec, engine)?;
    Ok(host)
}

/// Requests weigh, limits hold.
fn set_resource_limits(
    host: &mut HostConfig,
    spec: &AttemptSpec,
    engine: &Engine,
) -> Result<(), String> {
    const NANOS: f64 = 1e9;
    // As Kubernetes converts requests: 1024 shares for a core, and no fewer than the kernel's
    // minimum of 2.
    const SHARES: f64 = 1024.0;
    for (name, amount) in &spec.resources.requests {
        let field = format!("resources.requests.{name}");
        match name.as_str() {
            "cpu" => host.cpu_shares = Some(whole(&field, amount, SHARES)?.max(2)),
            "memory" => host.memory_reservation = Some(whole(&field, amount, 1.0)?),
            _ => return Err(format!("{field}: containers have cpu and memory only")),
        }
    }
    for (name, amount) in &spec.resources.limits {
        let field = format!("resources.limits.{name}");
        match name.as_str() {
            "cpu" => {
                let nanos = whole(&field, amount, NANOS)?;
                let all = i64::try_from(engine.cores.saturating_mul(1_000_000_000));
                // More than there is limits nothing, and the engine refuses it.
                host.nano_cpus = Some(nanos.min(all.unwrap_or(i64::MAX)));
            }
            "memory" => {
                let bytes = whole(&field, amount, 1.0)?;
                host.memory = Some(bytes);
                // The sum of memory and swap, so no swap: by default the engine allows as much
                // again, and a command over its limit would become slow instead of failing.
                host.memory_swap = Some(bytes);
            }
            "nvidia.com/gpu" => {
                host.device_requests = Some(vec![DeviceRequest {
                    count: Some(whole(&field, amount, 1.0)?),
                    capabilities: Some(vec![vec!["gpu".to_owned()]]),
                    ..DeviceRequest::default()
                }]);
            }
            _ => {
                return Err(format!(
                    "{field}: of accelerators, containers of this machine can be given \
                     nvidia.com/gpu only"
                ));
            }
        }
    }
    Ok(())
}

fn whole(field: &str, amount: &str, scale: f64) -> Result<i64, String> {
    let amount = parse_quantity(amount).map_err(|error| format!("{field}: {error}"))?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "quantities are finite and not negative; a larger one than i64 is no limit"
    )]
    let whole = (amount * scale).round() as i64;
    Ok(whole)
}

fn bind(from: &Path, to: &Path, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(from.display().to_string()),
        target: Some(to.display().to_string()),
        read_only: Some(read_only),
        ..Mount::default()
    }
}

fn mounts(params: &ContainerParams<'_>, shared: &[PathBuf]) -> Vec<Mount> {
    let ContainerParams {
        spec, config, dir, ..
    } = params;
    let mut all = vec![
        bind(params.launcher, Path::new(LAUNCHER), true),
        bind(dir, dir, false),
        // The server takes outputs by it afterwards, so the command must not change it.
        bind(&dir.join("spec.json"), &dir.join("spec.json"), true),
    ];
    let artifacts = config.artifacts.as_deref();
    all.extend(artifacts.map(|root| bind(root, root, true)));
    // What lies in a folder that is mounted anyway needs no mount of its own.
    let inputs: BTreeSet<&PathBuf> = spec
        .local_inputs
        .iter()
        .filter(|path| !artifacts.is_some_and(|root| path.starts_with(root)))
        .filter(|path| !shared.iter().any(|folder| path.starts_with(folder)))
        .collect();
    all.extend(inputs.into_iter().map(|path| bind(path, path, true)));
    all.extend(shared.iter().map(|folder| bind(folder, folder, false)));
    let content = content_dir(dir);
    all.extend(
        schemes(spec)
            .into_iter()
            .map(|scheme| bind(&content.join(scheme), &Path::new("/").join(scheme), false)),
    );
    all
}
