//! Volumes of a pod and where they are mounted.

use std::collections::BTreeMap;

use ferroflow_launcher::AttemptSpec;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EmptyDirVolumeSource, EphemeralVolumeSource, ImageVolumeSource,
    PersistentVolumeClaimSpec, PersistentVolumeClaimTemplate, PersistentVolumeClaimVolumeSource,
    SecretVolumeSource, Volume, VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::super::config::KubernetesConfig;
use super::super::platform::{AsVolume, EmptyDir, Ephemeral, Platform, PvcMount, named};
use super::{IMAGE_MOUNT, LAUNCHER_PULL, WORKSPACE, workspace_claim};

/// The volume of our own folder.
pub(super) const FERROFLOW_VOLUME: &str = "ferroflow";
/// The volume that stands for the schemes of URIs.
const CONTENT: &str = "ferroflow-content";
/// Schemes of URIs and where KFP's executors look for them.
const SCHEMES: [&str; 4] = ["s3", "minio", "gcs", "oci"];

/// Volumes and their mounts.
#[derive(Default)]
pub(super) struct Volumes {
    pub(super) volumes: Vec<Volume>,
    pub(super) mounts: Vec<VolumeMount>,
}

impl Volumes {
    /// Those that every pod has.
    pub(super) fn own() -> Self {
        let mut all = Self::default();
        all.add(empty(FERROFLOW_VOLUME), super::FERROFLOW_DIR);
        all.volumes.push(empty(CONTENT));
        all.mounts.extend(SCHEMES.map(content_mount));
        all
    }

    /// The launcher's image, to read from.
    pub(super) fn launcher(&mut self, config: &KubernetesConfig) {
        let image = config.launcher_image.clone();
        let policy = Some(LAUNCHER_PULL.to_owned());
        self.image("ferroflow-image", image, policy, IMAGE_MOUNT);
    }

    /// An image, to read from.
    pub(super) fn image(&mut self, name: &str, image: String, policy: Option<String>, at: &str) {
        let source = ImageVolumeSource {
            pull_policy: policy,
            reference: Some(image),
        };
        let volume = Volume {
            name: name.to_owned(),
            image: Some(source),
            ..Volume::default()
        };
        self.add(volume, at);
        if let Some(mount) = self.mounts.last_mut() {
            mount.read_only = Some(true);
        }
    }

    /// Those of an attempt.
    pub(super) fn of(spec: &AttemptSpec, platform: &Platform) -> Self {
        let mut all = Self::own();
        if uses_workspace(spec) {
            let claim = workspace_claim(&spec.key.owner);
            all.add(claim_volume("kfp-workspace", &claim), WORKSPACE);
        }
        for secret in &platform.secret_as_volume {
            all.secret(secret);
        }
        for map in &platform.config_map_as_volume {
            all.config_map(map);
        }
        for mount in &platform.pvc_mount {
            all.claim(mount);
        }
        for ephemeral in &platform.generic_ephemeral_volume {
            all.ephemeral(ephemeral);
        }
        for folder in &platform.empty_dir_mounts {
            all.empty_dir(folder);
        }
        if let Some(memory) = &platform.enabled_shared_memory {
            all.empty_dir(&EmptyDir {
                volume_name: memory.volume_name.clone(),
                mount_path: "/dev/shm".to_owned(),
                medium: Some("Memory".to_owned()),
                size_limit: Some(memory.size.clone()),
            });
        }
        all
    }

    fn add(&mut self, mut volume: Volume, mount_path: &str) {
        let name = volume.name.clone();
        let mut number = 1;
        let exists = loop {
            match self.volumes.iter().find(|known| known.name == volume.name) {
                None => break false,
                // One object may be mounted at several paths.
                Some(known) if *known == volume => break true,
                // A secret and a claim may have one name, and long names one beginning.
                Some(_) => {
                    number += 1;
                    volume.name = numbered(&name, number);
                }
            }
        };
        self.mounts.push(VolumeMount {
            name: volume.name.clone(),
            mount_path: mount_path.to_owned(),
            ..VolumeMount::default()
        });
        if !exists {
            self.volumes.push(volume);
        }
    }

    fn secret(&mut self, asked: &AsVolume) {
        if let Some(name) = named(asked.secret_name_parameter.as_ref(), &asked.secret_name) {
            let volume = Volume {
                name: volume_name(&name),
                secret: Some(SecretVolumeSource {
                    secret_name: Some(name),
                    optional: asked.optional,
                    ..SecretVolumeSource::default()
                }),
                ..Volume::default()
            };
            self.add(volume, &asked.mount_path);
        }
    }

    fn config_map(&mut self, asked: &AsVolume) {
        let parameter = asked.config_map_name_parameter.as_ref();
        if let Some(name) = named(parameter, &asked.config_map_name) {
            let volume = Volume {
                name: volume_name(&name),
                config_map: Some(ConfigMapVolumeSource {
                    name,
                    optional: asked.optional,
                    ..ConfigMapVolumeSource::default()
                }),
                ..Volume::default()
            };
            self.add(volume, &asked.mount_path);
        }
    }

    fn claim(&mut self, asked: &PvcMount) {
        if let Some(claim) = named(asked.pvc_name_parameter.as_ref(), &asked.constant) {
            self.add(
                claim_volume(&volume_name(&claim), &claim),
                &asked.mount_path,
            );
            if let Some(mount) = self.mounts.last_mut() {
                mount.sub_path = (!asked.sub_path.is_empty()).then(|| asked.sub_path.clone());
            }
        }
    }

    fn ephemeral(&mut self, asked: &Ephemeral) {
        let class = (!asked.default_storage_class).then(|| asked.storage_class_name.clone());
        let size = BTreeMap::from([("storage".to_owned(), Quantity(asked.size.clone()))]);
        let template = PersistentVolumeClaimTemplate {
            metadata: Some(ObjectMeta {
                labels: Some(asked.metadata.labels.clone()),
                annotations: Some(asked.metadata.annotations.clone()),
                ..ObjectMeta::default()
            }),
            spec: PersistentVolumeClaimSpec {
                access_modes: Some(asked.access_modes.clone()),
                storage_class_name: class,
                resources: Some(VolumeResourceRequirements {
                    requests: Some(size),
                    limits: None,
                }),
                ..PersistentVolumeClaimSpec::default()
            },
        };
        let volume = Volume {
            name: asked.volume_name.clone(),
            ephemeral: Some(EphemeralVolumeSource {
                volume_claim_template: Some(template),
            }),
            ..Volume::default()
        };
        self.add(volume, &asked.mount_path);
    }

    fn empty_dir(&mut self, asked: &EmptyDir) {
        let mut volume = empty(&asked.volume_name);
        volume.empty_dir = Some(EmptyDirVolumeSource {
            medium: asked.medium.clone(),
            size_limit: asked.size_limit.clone().map(Quantity),
        });
        self.add(volume, &asked.mount_path);
    }
}

/// Whether the attempt needs the folder that those of its owner share: a component, when its command
/// speaks of it or an input is there, any other one, when its spec has one.
pub(in super::super) fn uses_workspace(spec: &AttemptSpec) -> bool {
    if spec.kfp.is_none() {
        return spec.workspace.is_some();
    }
    let inputs = spec.inputs.iter().map(|input| &input.path);
    let mut places = inputs.chain(spec.links.iter().map(|link| &link.target));
    spec.argv.iter().any(|arg| arg.contains(WORKSPACE))
        || places.any(|place| place.starts_with(WORKSPACE))
}

/// Where content of a scheme's URIs is.
pub(super) fn content_mount(scheme: &str) -> VolumeMount {
    VolumeMount {
        name: CONTENT.to_owned(),
        mount_path: format!("/{scheme}"),
        sub_path: Some(scheme.to_owned()),
        ..VolumeMount::default()
    }
}

fn empty(name: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    }
}

fn claim_volume(name: &str, claim: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.to_owned(),
            read_only: None,
        }),
        ..Volume::default()
    }
}

/// An object's name as a volume's, which must be a label of 63 characters at most (RFC 1123).
fn volume_name(object: &str) -> String {
    truncated(&object.replace('.', "-"), 63)
}

/// The name of a volume whose first choice is taken.
fn numbered(name: &str, number: usize) -> String {
    format!("{}-{number}", truncated(name, 58))
}

fn truncated(name: &str, max: usize) -> String {
    let name: String = name.chars().take(max).collect();
    name.trim_end_matches('-').to_owned()
}
