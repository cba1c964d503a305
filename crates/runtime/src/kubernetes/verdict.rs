//! What a pod's status says of an attempt that left no outcome.

use ferroflow_launcher::{Failure, FailureReason, NO_OUTCOME_EXIT_CODE};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::objects::MAIN_CONTAINER;

/// Codes of a container that was ended by a signal to kill or to end it.
const KILLED: [i32; 2] = [128 + 9, 128 + 15];

/// A pod that will not go on by itself, or not soon.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// It is at work, or about to be.
    Active,
    /// It has ended; if there is no outcome, this is why.
    Ended(Failure),
    /// It cannot start; it may yet, when somebody helps.
    Stuck(Failure),
}

/// Judges a pod.
pub(super) fn judge(pod: &Pod) -> Verdict {
    let Some(status) = &pod.status else {
        return Verdict::Active;
    };
    let message = status.message.clone().unwrap_or_default();
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        let reason = status.reason.as_deref().unwrap_or_default();
        return Verdict::Ended(ended(pod, reason, &message));
    }
    let conditions = status.conditions.iter().flatten();
    let unscheduled = conditions
        .clone()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unscheduled {
        let detail = condition.message.clone().unwrap_or_default();
        return Verdict::Stuck(Failure::new(
            FailureReason::Unschedulable,
            format!("no node takes its pod: {detail}"),
        ));
    }
    containers(pod)
        .find_map(|container| waiting(pod, container))
        .map_or(Verdict::Active, Verdict::Stuck)
}

/// What a pod waits for that is neither stuck nor at work yet; `None` once its task has begun.
pub(super) fn wait_reason(pod: &Pod) -> Option<String> {
    let mut all = containers(pod);
    let main = all.find(|container| container.name == MAIN_CONTAINER);
    let state = main.and_then(|main| main.state.as_ref());
    let begun = state.is_some_and(|state| state.running.is_some() || state.terminated.is_some());
    if begun {
        return None;
    }
    let spec = pod.spec.as_ref()?;
    let image = spec.containers.first()?.image.as_deref()?;
    Some(match &spec.node_name {
        None => "its pod waits for the scheduler".to_owned(),
        Some(node) => format!(
            "its container is made on node {node}: its image {image} may be pulled, its volumes \
             mounted"
        ),
    })
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status.and_then(|status| status.init_container_statuses.as_ref());
    let main = status.and_then(|status| status.container_statuses.as_ref());
    init.into_iter().flatten().chain(main.into_iter().flatten())
}

/// Why a container waits, if it is not for its turn.
fn waiting(pod: &Pod, container: &ContainerStatus) -> Option<Failure> {
    let state = container.state.as_ref()?.waiting.as_ref()?;
    let detail = state.message.clone().unwrap_or_default();
    let reason = state.reason.as_deref()?;
    let image = &container.image;
    // The kubelet's words. A container that waits for others, or is being made, has different ones.
    match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "RegistryUnavailable"
        | "ImageInspectError" => Some(Failure::new(
            FailureReason::ImagePull,
            format!(
                "its image {image}{} cannot be had ({reason}): {detail}. Check the name; \
                 kfp.kubernetes.set_image_pull_secrets gives the pod keys, kubernetes.images maps it \
                 to another",
                mounted_images(pod)
            ),
        )),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => Some(
            Failure::new(FailureReason::StartFailed, format!("{reason}: {detail}")),
        ),
        _ => None,
    }
}

/// Images that are volumes of the pod, which Kubernetes blames its container for.
fn mounted_images(pod: &Pod) -> String {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    let images = volumes.filter_map(|volume| volume.image.as_ref()?.reference.as_deref());
    let images: Vec<&str> = images.collect();
    if images.is_empty() {
        String::new()
    } else {
        format!(", or one that it mounts ({}),", images.join(", "))
    }
}

/// Why the cluster took the pod away, if it did.
fn disruption(pod: &Pod) -> Option<Failure> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions
        .iter()
        .find(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True")?;
    let why = condition.reason.as_deref().unwrap_or_default();
    let detail = condition.message.clone().unwrap_or_default();
    let kind = match why {
        "PreemptionByScheduler" => FailureReason::Preempted,
        _ => FailureReason::Evicted,
    };
    Some(Failure::new(
        kind,
        format!("its pod had to go ({why}): {detail}"),
    ))
}

fn ended(pod: &Pod, reason: &str, message: &str) -> Failure {
    // First: the containers of a pod that was taken away end with a code as well, which is not the
    // command's fault.
    if let Some(failure) = disruption(pod) {
        return failure;
    }
    match reason {
        "DeadlineExceeded" => {
            return Failure::new(
                FailureReason::Timeout,
                "it took longer than its limit, waiting for its pod included",
            );
        }
        "Evicted" | "NodeShutdown" | "Terminated" | "NodeLost" => {
            return Failure::new(FailureReason::Evicted, format!("{reason}: {message}"));
        }
        "Preempting" => {
            return Failure::new(FailureReason::Preempted, format!("{reason}: {message}"));
        }
        _ => {}
    }
    ended_container(pod).unwrap_or_else(|| {
        Failure::new(
            FailureReason::Lost,
            "its pod ended without a report of the launcher",
        )
    })
}

/// Why the pod's container that failed did so.
fn ended_container(pod: &Pod) -> Option<Failure> {
    // The task's container first: one that runs beside it is killed when it ends, which says
    // nothing.
    let (main, others): (Vec<_>, Vec<_>) =
        containers(pod).partition(|container| container.name == MAIN_CONTAINER);
    let (container, state) = main.into_iter().chain(others).find_map(|container| {
        let state = container.state.as_ref()?.terminated.as_ref()?;
        (state.exit_code != 0).then_some((container, state))
    })?;
    let (why, code) = (state.reason.clone().unwrap_or_default(), state.exit_code);
    if why == "OOMKilled" {
        let limit = memory_limit(pod);
        return Some(Failure {
            exit_code: Some(code),
            ..Failure::new(
                FailureReason::OutOfMemory,
                format!("it used more memory than its limit{limit}: raise the limit"),
            )
        });
    }
    let detail = state.message.clone().unwrap_or_default();
    let name = &container.name;
    if name == MAIN_CONTAINER && code == i32::from(NO_OUTCOME_EXIT_CODE) {
        return Some(Failure::new(
            FailureReason::StoreAway,
            format!(
                "the object store was away for too long, and what the command did is lost: {detail}"
            ),
        ));
    }
    if name == MAIN_CONTAINER && KILLED.contains(&code) {
        return Some(Failure::new(
            FailureReason::Lost,
            "its launcher was killed before it could report",
        ));
    }
    Some(Failure::new(
        FailureReason::StartFailed,
        format!("container {name} ended with {code} before the command could be reported on ({why}) {detail}")
            .trim_end()
            .to_owned(),
    ))
}

fn memory_limit(pod: &Pod) -> String {
    let main = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .find(|container| container.name == MAIN_CONTAINER);
    main.and_then(|main| main.resources.as_ref()?.limits.as_ref()?.get("memory"))
        .map(|limit| format!(" of {}", limit.0))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [
                {"name": "main", "resources": {"limits": {"memory": "64Mi"}}}
            ]},
            "status": status,
        }))
        .unwrap()
    }

    fn main(state: Value) -> Value {
        json!([{
            "name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": state,
        }])
    }

    fn reason(verdict: Verdict) -> (bool, FailureReason) {
        match verdict {
            Verdict::Ended(failure) => (true, failure.reason),
            Verdict::Stuck(failure) => (false, failure.reason),
            Verdict::Active => panic!("it is at work"),
        }
    }

    #[test]
    fn ends_are_told_apart() {
        let terminated = |reason: &str, code: i32| {
            main(json!({"terminated": {"reason": reason, "exitCode": code}}))
        };
        let disrupted = |reason: &str| {
            json!({"phase": "Failed", "conditions": [
                {"type": "DisruptionTarget", "status": "True", "reason": reason}
            ]})
        };
        for (status, expected) in [
            (
                json!({"phase": "Failed", "containerStatuses": terminated("OOMKilled", 137)}),
                FailureReason::OutOfMemory,
            ),
            (
                json!({"phase": "Failed", "containerStatuses": terminated("Error", 1)}),
                FailureReason::StartFailed,
            ),
            (
                json!({"phase": "Failed", "containerStatuses": terminated("Error", 75)}),
                FailureReason::StoreAway,
            ),
            (
                json!({"phase": "Failed", "reason": "DeadlineExceeded"}),
                FailureReason::Timeout,
            ),
            (
                json!({"phase": "Failed", "reason": "Evicted"}),
                FailureReason::Evicted,
            ),
            (disrupted("PreemptionByScheduler"), FailureReason::Preempted),
            (disrupted("EvictionByEvictionAPI"), FailureReason::Evicted),
            (json!({"phase": "Succeeded"}), FailureReason::Lost),
        ] {
            assert_eq!(reason(judge(&pod(status))), (true, expected));
        }
    }

    #[test]
    fn a_stuck_pod_is_told_from_one_that_only_waits() {
        let waiting = |reason: &str| {
            json!({
                "phase": "Pending",
                "containerStatuses": main(json!({"waiting": {"reason": reason}})),
            })
        };
        let unscheduled = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        ]});
        for (status, expected) in [
            (waiting("ImagePullBackOff"), FailureReason::ImagePull),
            (
                waiting("CreateContainerConfigError"),
                FailureReason::StartFailed,
            ),
            (unscheduled, FailureReason::Unschedulable),
        ] {
            assert_eq!(reason(judge(&pod(status))), (false, expected));
        }
        assert_eq!(judge(&pod(waiting("PodInitializing"))), Verdict::Active);
        let begun = main(json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}));
        let begun = pod(json!({"phase": "Running", "containerStatuses": begun}));
        assert_eq!(wait_reason(&begun), None);
        assert_eq!(judge(&pod(json!({"phase": "Running"}))), Verdict::Active);
    }
}
