//! Volume claims: operations that a pipeline asks for, and the folder that an owner's attempts share.
//!
//! `argostub/createpvc` and `argostub/deletepvc` are no images but names of operations that KFP's
//! SDK writes; they run here, without a pod, and report like any attempt.

use std::collections::BTreeMap;

use ferroflow_launcher::kfp::Operation;
use ferroflow_launcher::remote::RemoteFiles;
use ferroflow_launcher::{
    AttemptKey, AttemptResult, AttemptSpec, Failure, FailureReason, Outcome, Outputs,
};
use ferroflow_types::time::{Clock as _, SystemClock};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, TypedLocalObjectReference,
    VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Map, Value};

use super::{ApiResult, KubernetesRuntime, ignore_not_found, objects, of_remote, write_failure};
use crate::RuntimeError;

type Arguments = Map<String, Value>;

impl KubernetesRuntime {
    /// Does the operation and writes its outcome.
    pub(super) async fn run_operation(
        &self,
        spec: &AttemptSpec,
        (operation, arguments): (Operation, &Arguments),
        remote: &RemoteFiles,
    ) -> Result<(), RuntimeError> {
        let key = &spec.key;
        let started_at = SystemClock.now();
        let result = match operation {
            Operation::CreateClaim => self.create_claim(key, arguments).await,
            Operation::DeleteClaim => self.delete_claim(key, arguments).await,
        };
        let outputs = match result {
            Ok(outputs) => outputs,
            Err(problem) => {
                let failure = Failure::new(FailureReason::StartFailed, problem);
                return write_failure(remote, key, failure).await.map(drop);
            }
        };
        let outcome = Outcome {
            started_at,
            finished_at: SystemClock.now(),
            result: AttemptResult::Succeeded(outputs),
        };
        remote
            .write_outcome(outcome)
            .await
            .map(drop)
            .map_err(of_remote(key))
    }

    async fn create_claim(
        &self,
        key: &AttemptKey,
        arguments: &Arguments,
    ) -> Result<Outputs, String> {
        let namespace = self.config.namespace_of(&key.owner.namespace);
        let claim = claim(key, arguments, namespace)?;
        let name = claim.metadata.name.clone().unwrap_or_default();
        if let ApiResult::Rejected(reason) = self.apply_claim(key, &name, &claim).await {
            return Err(format!("the cluster refuses the volume claim: {reason}"));
        }
        Ok(Outputs {
            parameters: BTreeMap::from([("name".to_owned(), Value::String(name))]),
            artifacts: BTreeMap::new(),
        })
    }

    async fn apply_claim(
        &self,
        key: &AttemptKey,
        name: &str,
        claim: &PersistentVolumeClaim,
    ) -> ApiResult {
        let parameters = PatchParams::apply(objects::MANAGER).force();
        let apply = Patch::Apply(claim);
        let claims = self.claims(&key.owner);
        self.with_retries(key, || claims.patch(name, &parameters, &apply))
            .await
    }

    async fn delete_claim(
        &self,
        key: &AttemptKey,
        arguments: &Arguments,
    ) -> Result<Outputs, String> {
        let name = text(arguments, "pvc_name").ok_or("pvc_name: it is missing")?;
        let parameters = DeleteParams::default();
        let claims = self.claims(&key.owner);
        let result = self
            .with_retries(key, || async {
                // Upstream fails here when the claim is gone. A repeated request must not: the
                // first one may have been carried out.
                ignore_not_found(claims.delete(&name, &parameters).await)
            })
            .await;
        match result {
            ApiResult::Accepted => Ok(Outputs::default()),
            ApiResult::Rejected(reason) => Err(format!("the claim cannot be deleted: {reason}")),
        }
    }

    /// Sees to it that the folder that its owner's attempts share is there.
    pub(super) async fn ensure_workspace(&self, spec: &AttemptSpec) -> Result<(), String> {
        let Some(workspace) = &spec.workspace else {
            return Ok(());
        };
        let key = &spec.key;
        let name = objects::workspace_claim(&key.owner);
        let access = match workspace.access_modes.as_slice() {
            [] => vec!["ReadWriteOnce".to_owned()],
            given => given.to_vec(),
        };
        let namespace = self.config.namespace_of(&key.owner.namespace);
        let mut metadata = metadata(&name, namespace, BTreeMap::new());
        let labels = metadata.labels.get_or_insert_default();
        // By these it is deleted with its owner.
        labels.extend(objects::LABELS.of_owner(&key.owner));
        let claim = PersistentVolumeClaim {
            metadata,
            spec: Some(PersistentVolumeClaimSpec {
                access_modes: Some(access),
                storage_class_name: workspace.storage_class.clone(),
                resources: Some(storage(&workspace.size)),
                ..PersistentVolumeClaimSpec::default()
            }),
            status: None,
        };
        match self.apply_claim(key, &name, &claim).await {
            ApiResult::Accepted => Ok(()),
            ApiResult::Rejected(reason) => {
                Err(format!("the cluster refuses the workspace: {reason}"))
            }
        }
    }
}

fn text(arguments: &Arguments, name: &str) -> Option<String> {
    arguments.get(name)?.as_str().map(str::to_owned)
}

fn storage(size: &str) -> VolumeResourceRequirements {
    VolumeResourceRequirements {
        requests: Some(BTreeMap::from([(
            "storage".to_owned(),
            Quantity(size.to_owned()),
        )])),
        limits: None,
    }
}

fn metadata(name: &str, namespace: &str, annotations: BTreeMap<String, String>) -> ObjectMeta {
    let managed = (
        objects::MANAGED_BY_LABEL.to_owned(),
        objects::MANAGER.to_owned(),
    );
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(BTreeMap::from([managed])),
        annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
        ..ObjectMeta::default()
    }
}

/// The claim that a `CreatePVC` asks for. A name that is not given is a function of the attempt, so
/// that asking twice makes one claim.
fn claim(
    key: &AttemptKey,
    arguments: &Arguments,
    namespace: &str,
) -> Result<PersistentVolumeClaim, String> {
    let default_name = key.name();
    let name = match (
        text(arguments, "pvc_name"),
        text(arguments, "pvc_name_suffix"),
    ) {
        (Some(_), Some(_)) => {
            return Err("pvc_name and pvc_name_suffix: give one of them, not both".to_owned());
        }
        (Some(name), None) => name,
        (None, Some(suffix)) => format!("{default_name}{suffix}"),
        (None, None) => default_name,
    };
    let size = text(arguments, "size").ok_or("size: it is missing")?;
    let modes = arguments.get("access_modes").and_then(Value::as_array);
    let modes: Vec<String> = modes
        .into_iter()
        .flatten()
        .filter_map(|mode| mode.as_str().map(str::to_owned))
        .collect();
    if modes.is_empty() {
        return Err("access_modes: it is missing".to_owned());
    }
    let annotations = arguments.get("annotations").and_then(Value::as_object);
    let annotations = annotations
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    let source: Option<TypedLocalObjectReference> = match arguments.get("data_source") {
        None | Some(Value::Null) => None,
        Some(given) => Some(
            serde_json::from_value(given.clone())
                .map_err(|error| format!("data_source: {error}"))?,
        ),
    };
    Ok(PersistentVolumeClaim {
        // Without the labels of its owner, which it outlives: pipelines delete what they create, or
        // mean to keep it.
        metadata: metadata(&name, namespace, annotations.collect()),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(modes),
            // Upstream's rule: `standard` where none is given, while an empty text stays empty.
            storage_class_name: Some(
                text(arguments, "storage_class_name").unwrap_or_else(|| "standard".to_owned()),
            ),
            volume_name: text(arguments, "volume_name").filter(|name| !name.is_empty()),
            data_source: source,
            resources: Some(storage(&size)),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    })
}
