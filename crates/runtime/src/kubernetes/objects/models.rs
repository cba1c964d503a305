//! Input artifacts that are in container images, `oci://` (KServe's modelcars).
//!
//! Where the cluster has image volumes, the image is mounted. Elsewhere an init container of the
//! image copies its `/models` into a volume of the pod, with our launcher as the program, so that
//! the image needs neither a shell nor a process that stays (upstream's sidecar needs both).

use std::path::Path;

use ferroflow_launcher::AttemptSpec;
use k8s_openapi::api::core::v1::Container;

use super::super::KubernetesConfig;
use super::volumes::{Volumes, content_mount};

/// An image and where its content is expected.
pub(super) struct Model<'a> {
    pub(super) name: String,
    image: &'a str,
    path: &'a Path,
}

/// Whether an input is in an image.
pub(in super::super) fn any(spec: &AttemptSpec) -> bool {
    spec.inputs.iter().any(|input| input.image().is_some())
}

/// The images of an attempt's inputs, each once.
///
/// # Errors
/// Names the URI that is no image.
pub(super) fn of(spec: &AttemptSpec) -> Result<Vec<Model<'_>>, String> {
    let mut all: Vec<Model<'_>> = Vec::new();
    for input in &spec.inputs {
        let (Some(image), path) = (input.image(), &*input.path) else {
            continue;
        };
        if image.is_empty() {
            return Err(format!("{}: it names no image", input.uri));
        }
        match all.iter().find(|known| known.path == path) {
            Some(known) if known.image == image => {}
            // The SDK's path has `_` for each `/` of an image's name, so two images may have one.
            Some(known) => {
                return Err(format!(
                    "oci://{image} and oci://{} have one path, {}: rename one of the images",
                    known.image,
                    path.display()
                ));
            }
            None => {
                let name = format!("ferroflow-model-{}", all.len());
                all.push(Model { name, image, path });
            }
        }
    }
    Ok(all)
}

/// The containers that copy, in front of those that the task asks for.
pub(super) fn containers(
    models: &[Model<'_>],
    pull_policy: Option<&String>,
    config: &KubernetesConfig,
) -> Vec<Container> {
    let copies = models.iter().map(|model| {
        let args = ["models", &model.path.display().to_string()].map(str::to_owned);
        Container {
            name: model.name.clone(),
            image: Some(config.image(model.image)),
            image_pull_policy: pull_policy.cloned(),
            command: Some(vec![super::LAUNCHER.to_owned()]),
            args: Some(args.to_vec()),
            volume_mounts: Some(vec![super::own_mount(), content_mount("oci")]),
            resources: Some(super::copy_resources("1", "128Mi")),
            // Its last lines say why it failed, and then become the message that the pod's status
            // has.
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            ..Container::default()
        }
    });
    copies.collect()
}

/// Mounts the images.
pub(super) fn mount(
    models: &[Model<'_>],
    pull_policy: Option<&String>,
    config: &KubernetesConfig,
    volumes: &mut Volumes,
) {
    for model in models {
        // The path ends with the folder in the image; what is above it stands for the image's root.
        let above = model.path.parent().unwrap_or(model.path);
        let (image, above) = (config.image(model.image), above.display().to_string());
        volumes.image(&model.name, image, pull_policy.cloned(), &above);
    }
}
