//! Containers that a task wants before its own, or beside it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, EnvVar, ResourceRequirements, SecurityContext, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::super::KubernetesConfig;
use super::super::platform::{InitContainer, Platform, Quantities};

/// The containers of `initContainers`, in the order in which they are written.
///
/// # Errors
/// Names the member that cannot be had.
pub(super) fn containers(
    platform: &Platform,
    config: &KubernetesConfig,
) -> Result<Vec<Container>, String> {
    // The checks are those of upstream's driver.
    let mut all: Vec<Container> = Vec::new();
    for (at, asked) in platform.init_containers.iter().enumerate() {
        let place = |member: &str| format!("initContainers[{at}].{member}");
        let name = asked.name.as_str();
        if [super::MAIN_CONTAINER, super::LAUNCHER_CONTAINER].contains(&name)
            || all.iter().any(|known| known.name == name)
        {
            return Err(format!("{}: {name:?} is taken: use another", place("name")));
        }
        if asked.image.is_empty() {
            return Err(format!("{}: it is missing", place("image")));
        }
        match asked.restart_policy.as_deref() {
            None | Some("" | "Always") => {}
            Some(other) => {
                return Err(format!(
                    "{}: {other:?} is not supported: use \"Always\" for one that runs beside the \
                     task, or leave it out",
                    place("restartPolicy")
                ));
            }
        }
        if let Some(mount) = asked
            .volume_mounts
            .iter()
            .find(|mount| !mount.mount_path.starts_with('/'))
        {
            let path = &mount.mount_path;
            return Err(format!(
                "{}: mountPath {path:?} is not absolute",
                place("volumeMounts")
            ));
        }
        all.push(container(asked, config));
    }
    Ok(all)
}

fn container(asked: &InitContainer, config: &KubernetesConfig) -> Container {
    let list = |args: &[String]| (!args.is_empty()).then(|| args.to_vec());
    let env = asked.env.iter().map(|variable| EnvVar {
        name: variable.name.clone(),
        value: Some(variable.value.clone()),
        value_from: None,
    });
    let mounts = asked.volume_mounts.iter().map(|mount| VolumeMount {
        name: mount.volume_name.clone(),
        mount_path: mount.mount_path.clone(),
        ..VolumeMount::default()
    });
    Container {
        name: asked.name.clone(),
        image: Some(config.image(&asked.image)),
        image_pull_policy: config.image_pull_policy.clone(),
        command: list(&asked.command),
        args: list(&asked.args),
        env: Some(env.collect::<Vec<_>>()).filter(|list| !list.is_empty()),
        volume_mounts: Some(mounts.collect::<Vec<_>>()).filter(|list| !list.is_empty()),
        restart_policy: asked
            .restart_policy
            .clone()
            .filter(|policy| !policy.is_empty()),
        resources: Some(quantities(&asked.resources)),
        // As upstream: they prepare something, and need no rights for that.
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                add: None,
                drop: Some(vec!["ALL".to_owned()]),
            }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn quantities(asked: &Quantities) -> ResourceRequirements {
    let list = |from: &BTreeMap<String, String>| {
        let list = from.iter();
        let list = list.map(|(name, amount)| (name.clone(), Quantity(amount.clone())));
        Some(list.collect::<BTreeMap<_, _>>()).filter(|list| !list.is_empty())
    };
    ResourceRequirements {
        requests: list(&asked.requests),
        limits: list(&asked.limits),
        ..ResourceRequirements::default()
    }
}
