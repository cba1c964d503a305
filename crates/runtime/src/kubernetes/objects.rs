//! The pod of an attempt, as a pure function of what is to be done.
//!
//! ```text
//! init container `launcher`   copies the launcher into a volume of the pod; none where the
//!                             launcher's image is itself a volume
//! container `main`            the task's image, with the launcher as its first process
//! ```
//!
//! Names are a function of the attempt, so asking twice makes one pod. Volumes stand where KFP's
//! executors expect the schemes of URIs.

mod environment;
mod init;
mod models;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};

use ferroflow_launcher::kfp;
use ferroflow_launcher::runtime_endpoint::RuntimeEndpoint;
use ferroflow_launcher::{AttemptKey, AttemptSpec, OwnerKey, Resources};
use k8s_openapi::api::core::v1::{
    Container, LocalObjectReference, Pod, PodSecurityContext, PodSpec, ResourceRequirements,
    SecurityContext, Toleration, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::KubernetesConfig;
use super::platform::{Platform, named, whole};
use super::warm::PodClass;
use crate::labels::{Labels, Names};
pub(super) use models::any as uses_images;
use volumes::Volumes;
pub(super) use volumes::uses_workspace;

/// The label that our watch goes by.
pub(super) const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Its value.
pub(super) const MANAGER: &str = "ferroflow";
/// The labels of attempts; the name is an annotation.
pub(super) const LABELS: Labels = Labels {
    pipelines: Names {
        owner: "pipelines.ferroflow.ai/run",
        item: "pipelines.ferroflow.ai/task",
        attempt: "pipelines.ferroflow.ai/attempt",
        name: "pipelines.ferroflow.ai/task-name",
    },
    other_domains: Names {
        owner: "attempts.ferroflow.ai/owner",
        item: "attempts.ferroflow.ai/item",
        attempt: "attempts.ferroflow.ai/attempt",
        name: "attempts.ferroflow.ai/name",
    },
    domain: "attempts.ferroflow.ai/domain",
    namespace: "attempts.ferroflow.ai/namespace",
};
/// The label by which KFP's users find the pods of a run.
const KFP_RUN: &str = "pipeline/runid";

/// The pod's own folder for us, and in it what belongs to the attempt.
pub(super) const FERROFLOW_DIR: &str = "/ferroflow";
pub(super) const ATTEMPT_DIR: &str = "/ferroflow/attempt";
const LAUNCHER: &str = "/ferroflow/launcher";
/// Where the launcher's image is, if it is a volume.
const IMAGE_MOUNT: &str = "/ferroflow-image";
/// Where the folder that the attempts of an owner share is mounted.
pub(super) const WORKSPACE: &str = kfp::WORKSPACE;
/// The label of pods that are started before they are needed.
pub(super) const WARM_LABEL: &str = "pipelines.ferroflow.ai/warm";
/// The container that runs the task.
pub(super) const MAIN_CONTAINER: &str = "main";
/// The one that brings the launcher.
const LAUNCHER_CONTAINER: &str = "launcher";

/// When the launcher's image is pulled.
const LAUNCHER_PULL: &str = "IfNotPresent";

/// Seconds between SIGTERM and SIGKILL. The launcher may wait 5 for the store to say whether a stop
/// was asked, gives its command 5, and writes the outcome in the rest.
pub(super) const TERMINATION_GRACE_S: i64 = 15;

/// Seconds that a pod may take beside its command's limit before the node ends it.
const START_ALLOWANCE_S: u64 = 300;

/// The name of an attempt's pod.
pub(super) fn pod_name(key: &AttemptKey) -> String {
    format!("ff-{}", key.name())
}

/// The claim of the folder that the attempts of an owner share.
pub(super) fn workspace_claim(owner: &OwnerKey) -> String {
    format!("ff-{}-workspace", owner.name())
}

/// The pod of an attempt; its launcher reports to `runtime_endpoint`, if it can.
///
/// # Errors
/// Names the part of the task's platform settings that cannot be understood.
pub(super) fn pod(
    spec: &AttemptSpec,
    config: &KubernetesConfig,
    runtime_endpoint: Option<RuntimeEndpoint>,
) -> Result<Pod, String> {
    let platform = Platform::of(spec)?;
    check_accelerators(&spec.resources, config)?;
    check_no_local_inputs(spec)?;
    spec.check_env()?;
    // The launcher keeps to the limit itself; this is for a pod whose launcher cannot.
    let deadline = spec
        .limits
        .timeout_ms
        .map(|millis| i64::try_from(millis / 1000 + START_ALLOWANCE_S).unwrap_or(i64::MAX));
    let secrets = platform.image_pull_secret.iter();
    let secrets = secrets
        .filter_map(|secret| named(secret.secret_name_parameter.as_ref(), &secret.secret_name));
    let pull_secrets = pull_secrets(config, secrets);
    let policy = pull_policy(&platform, config);
    let container = if spec.only_fetches() {
        fetch_container(config)
    } else {
        Container {
            image_pull_policy: policy.clone(),
            security_context: security_context(&platform),
            ..container(config, config.image(&spec.image), &spec.resources)
        }
    };
    let container = Container {
        env: Some(environment::task(spec, &platform, config, runtime_endpoint)),
        ..container
    };
    let mut init_containers = init::containers(&platform, config)?;
    let mut volumes = Volumes::of(spec, &platform);
    let models = models::of(spec)?;
    if config.image_volume {
        models::mount(&models, policy.as_ref(), config, &mut volumes);
    } else {
        let copies = models::containers(&models, policy.as_ref(), config);
        init_containers.splice(0..0, copies);
    }
    let pod_spec = PodSpec {
        security_context: workspace_group(spec, config),
        active_deadline_seconds: deadline,
        node_selector: node_selector(&platform),
        tolerations: Some(tolerations(&platform)?).filter(|list| !list.is_empty()),
        affinity: super::affinity::of(&platform)?,
        image_pull_secrets: pull_secrets,
        ..pod_spec(config, init_containers, container, volumes)
    };
    Ok(Pod {
        metadata: metadata(spec, &platform, config),
        spec: Some(pod_spec),
        status: None,
    })
}

/// A pod that waits for an attempt of its class and asks for it at `runtime_endpoint`.
pub(super) fn warm_pod(
    name: &str,
    class: &PodClass,
    config: &KubernetesConfig,
    runtime_endpoint: RuntimeEndpoint,
) -> Pod {
    let platform = Platform::default();
    let container = Container {
        image_pull_policy: pull_policy(&platform, config),
        env: Some(environment::launcher(
            None,
            class.kfp,
            config,
            Some(runtime_endpoint),
        )),
        ..container(config, config.image(&class.image), &class.resources)
    };
    let labels = [(MANAGED_BY_LABEL, MANAGER), (WARM_LABEL, "true")];
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(config.namespace.clone()),
            labels: Some(owned(labels)),
            ..ObjectMeta::default()
        },
        spec: Some(pod_spec(config, Vec::new(), container, Volumes::own())),
        status: None,
    }
}

/// What every pod has; the `init_containers` end, or are ready, before the command starts.
fn pod_spec(
    config: &KubernetesConfig,
    mut init_containers: Vec<Container>,
    main: Container,
    mut volumes: Volumes,
) -> PodSpec {
    if config.image_volume {
        volumes.launcher(config);
    } else {
        // First: containers that copy models run the launcher that this one brings.
        init_containers.insert(0, launcher_container(config));
    }
    PodSpec {
        init_containers: Some(init_containers).filter(|list| !list.is_empty()),
        containers: vec![Container {
            volume_mounts: Some(volumes.mounts),
            ..main
        }],
        volumes: Some(volumes.volumes),
        // A command runs at most once under an attempt; trying again is a new attempt.
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(TERMINATION_GRACE_S),
        image_pull_secrets: pull_secrets(config, std::iter::empty()),
        service_account_name: config.service_account.clone(),
        // A step talks to the API only if its service account is one that was made for it.
        automount_service_account_token: Some(config.service_account.is_some()),
        // Else every service of the namespace adds variables to the command's environment.
        enable_service_links: Some(false),
        ..PodSpec::default()
    }
}

/// The container that runs a command in `image`, with the launcher as its first process.
fn container(config: &KubernetesConfig, image: String, wanted: &Resources) -> Container {
    let launcher = if config.image_volume {
        format!("{IMAGE_MOUNT}/usr/bin/ferroflow-launcher")
    } else {
        LAUNCHER.to_owned()
    };
    Container {
        name: MAIN_CONTAINER.to_owned(),
        image: Some(image),
        command: Some(vec![launcher, "pod".to_owned()]),
        resources: Some(resources(wanted, config)),
        ..Container::default()
    }
}

fn owned<const N: usize>(labels: [(&str, &str); N]) -> BTreeMap<String, String> {
    let owned = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    BTreeMap::from(owned)
}

/// Labels by which the pod of an attempt is found.
fn attempt_labels(spec: &AttemptSpec) -> BTreeMap<String, String> {
    let mut labels = LABELS.of_attempt(&spec.key);
    if spec.kfp.is_some() {
        labels.insert(KFP_RUN.to_owned(), spec.key.owner.id.to_string());
    }
    labels
}

/// The attempt that a pod's labels name.
pub(super) fn attempt_of(pod: &Pod) -> Option<AttemptKey> {
    let labels = pod.metadata.labels.as_ref()?;
    LABELS.attempt(|name| labels.get(name))
}

/// What a warm pod's metadata gains once it has an attempt, as a merge patch.
pub(super) fn assignment(spec: &AttemptSpec) -> Value {
    let name = LABELS.names(&spec.key.owner.domain).name;
    json!({"metadata": {
        "labels": attempt_labels(spec),
        "annotations": {name: spec.name},
    }})
}

fn metadata(spec: &AttemptSpec, platform: &Platform, config: &KubernetesConfig) -> ObjectMeta {
    let mut labels = spec.labels.clone();
    labels.extend(platform.pod_metadata.labels.clone());
    // A user's label must not name another attempt: keys are read from these (`attempt_of`).
    labels.retain(|name, _| !LABELS.is_key_label(name));
    labels.extend(attempt_labels(spec));
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGER.to_owned());
    let mut annotations = platform.pod_metadata.annotations.clone();
    let name = LABELS.names(&spec.key.owner.domain).name;
    annotations.insert(name.to_owned(), spec.name.clone());
    ObjectMeta {
        name: Some(pod_name(&spec.key)),
        namespace: Some(config.namespace_of(&spec.key.owner.namespace).to_owned()),
        labels: Some(labels),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    }
}

fn launcher_container(config: &KubernetesConfig) -> Container {
    let command = ["ferroflow-launcher", "copy", LAUNCHER];
    Container {
        name: LAUNCHER_CONTAINER.to_owned(),
        image: Some(config.launcher_image.clone()),
        image_pull_policy: Some(LAUNCHER_PULL.to_owned()),
        command: Some(command.map(str::to_owned).to_vec()),
        volume_mounts: Some(vec![own_mount()]),
        resources: Some(copy_resources("1", "64Mi")),
        ..Container::default()
    }
}

/// Where our own folder is.
fn own_mount() -> VolumeMount {
    VolumeMount {
        name: volumes::FERROFLOW_VOLUME.to_owned(),
        mount_path: FERROFLOW_DIR.to_owned(),
        ..VolumeMount::default()
    }
}

/// What a container needs that only copies, and what it may use.
fn copy_resources(cpu: &str, memory: &str) -> ResourceRequirements {
    let amounts = |cpu: &str, memory: &str| {
        BTreeMap::from([
            ("cpu".to_owned(), Quantity(cpu.to_owned())),
            ("memory".to_owned(), Quantity(memory.to_owned())),
        ])
    };
    ResourceRequirements {
        requests: Some(amounts("1m", "16Mi")),
        limits: Some(amounts(cpu, memory)),
        ..ResourceRequirements::default()
    }
}

/// The launcher in its own image, which brings content to the folder that the run's tasks share. No
/// author can say what it needs.
fn fetch_container(config: &KubernetesConfig) -> Container {
    Container {
        image_pull_policy: Some(LAUNCHER_PULL.to_owned()),
        security_context: config.workspace_user.map(|user| SecurityContext {
            run_as_user: Some(user),
            ..SecurityContext::default()
        }),
        resources: Some(copy_resources("1", "512Mi")),
        ..container(config, config.launcher_image.clone(), &Resources::default())
    }
}

/// Whom that folder belongs to: new volumes are often root's alone.
fn workspace_group(spec: &AttemptSpec, config: &KubernetesConfig) -> Option<PodSecurityContext> {
    let group = config.workspace_group.filter(|_| uses_workspace(spec));
    group.map(|group| PodSecurityContext {
        fs_group: Some(group),
        // Else the kubelet gives every file of the volume to the group each time a pod mounts it.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        ..PodSecurityContext::default()
    })
}

/// Secrets by which images are pulled: ours, for the launcher's, and those that a task names.
fn pull_secrets(
    config: &KubernetesConfig,
    asked: impl Iterator<Item = String>,
) -> Option<Vec<LocalObjectReference>> {
    let names: BTreeSet<String> = config
        .image_pull_secrets
        .iter()
        .cloned()
        .chain(asked)
        .collect();
    let secrets = names.into_iter().map(|name| LocalObjectReference { name });
    Some(secrets.collect::<Vec<_>>()).filter(|list| !list.is_empty())
}

fn pull_policy(platform: &Platform, config: &KubernetesConfig) -> Option<String> {
    let asked = Some(&platform.image_pull_policy).filter(|policy| !policy.is_empty());
    asked.or(config.image_pull_policy.as_ref()).cloned()
}

/// Whether Kubernetes takes it for a resource's name.
fn is_resource(name: &str) -> bool {
    const PLAIN: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
    PLAIN.contains(&name) || name.starts_with("hugepages-") || name.contains('/')
}

/// Pods share no folder with the machine that a path was written for.
fn check_no_local_inputs(spec: &AttemptSpec) -> Result<(), String> {
    let local = |uri: &&str| ferroflow_artifacts::digest::local_path(uri).is_some();
    let mut inputs = spec.inputs.iter().map(|input| input.uri.as_str());
    match inputs.find(local) {
        Some(uri) => Err(format!(
            "{uri} is a path of one machine, and pods cannot copy from there: use an s3:// URI"
        )),
        None => Ok(()),
    }
}

/// Upstream passes a type on as it is, and the API server then speaks of resources that nobody named.
fn check_accelerators(wanted: &Resources, config: &KubernetesConfig) -> Result<(), String> {
    let unknown = wanted
        .limits
        .keys()
        .find(|name| !is_resource(config.resource(name)));
    match unknown {
        None => Ok(()),
        Some(name) => Err(format!(
            "accelerator type {name} is no resource of Kubernetes: use a resource's name, for \
             example nvidia.com/gpu, or say what it stands for in kubernetes.accelerators"
        )),
    }
}

fn resources(wanted: &Resources, config: &KubernetesConfig) -> ResourceRequirements {
    let quantities = |from: &BTreeMap<String, String>| {
        let list = from.iter();
        let list = list.map(|(name, amount)| {
            let name = config.resource(name).to_owned();
            (name, Quantity(amount.clone()))
        });
        Some(list.collect::<BTreeMap<_, _>>()).filter(|list| !list.is_empty())
    };
    ResourceRequirements {
        requests: quantities(&wanted.requests),
        limits: quantities(&wanted.limits),
        ..ResourceRequirements::default()
    }
}

fn security_context(platform: &Platform) -> Option<SecurityContext> {
    let asked = platform.security_context.as_ref()?;
    Some(SecurityContext {
        run_as_user: whole(asked.run_as_user.as_ref()),
        run_as_group: whole(asked.run_as_group.as_ref()),
        run_as_non_root: asked.run_as_non_root,
        ..SecurityContext::default()
    })
}

fn node_selector(platform: &Platform) -> Option<BTreeMap<String, String>> {
    let selector = &platform.node_selector;
    // As upstream: the JSON wins over labels.
    let labels = match &selector.node_selector_json {
        Some(Value::Object(labels)) => labels
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect(),
        _ => selector.labels.clone(),
    };
    (!labels.is_empty()).then_some(labels)
}

/// Empty ones would tolerate everything, which nobody means; upstream ignores them as well.
fn tolerations(platform: &Platform) -> Result<Vec<Toleration>, String> {
    let mut all = Vec::new();
    for asked in &platform.tolerations {
        match &asked.toleration_json {
            Some(Value::Array(list)) => {
                for one in list {
                    all.push(toleration_of(one)?);
                }
            }
            Some(Value::Null) => {}
            Some(one) => all.push(toleration_of(one)?),
            None => {
                let text = |text: &String| (!text.is_empty()).then(|| text.clone());
                all.push(Toleration {
                    key: text(&asked.key),
                    operator: text(&asked.operator),
                    value: text(&asked.value),
                    effect: text(&asked.effect),
                    toleration_seconds: whole(asked.toleration_seconds.as_ref()),
                });
            }
        }
    }
    all.retain(|toleration| *toleration != Toleration::default());
    Ok(all)
}

fn toleration_of(value: &Value) -> Result<Toleration, String> {
    serde_json::from_value(value.clone()).map_err(|error| format!("tolerationJson: {error}"))
}
