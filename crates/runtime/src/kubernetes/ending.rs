//! How an attempt's end is noticed, judged where its launcher left no outcome, and cleaned up after.

use std::sync::Arc;
use std::time::Duration;

use ferroflow_launcher::remote::RemoteFiles;
use ferroflow_launcher::{AttemptKey, Failure, FailureReason, Outcome};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use tokio::time::Instant;

use super::index::PodState;
use super::verdict::{Verdict, judge, wait_reason};
use super::{KubernetesRuntime, ignore_not_found, logs, objects, of_remote, write_failure};
use crate::RuntimeError;

/// After this long it is told what a pod that has not begun waits for. A container for which nothing
/// has to be pulled starts sooner.
const WAIT_NOTE_DELAY: Duration = Duration::from_secs(5);

impl KubernetesRuntime {
    /// The pod that does an attempt: a warm one that was given to it, or the one with its name.
    pub(super) async fn pod_of(
        &self,
        key: &AttemptKey,
        remote: &RemoteFiles,
    ) -> Result<String, RuntimeError> {
        let assigned = remote.assigned_pod().await.map_err(of_remote(key))?;
        Ok(assigned.unwrap_or_else(|| objects::pod_name(key)))
    }

    /// Waits until the launcher has reported, or the pod has ended, cannot start, or is gone; why,
    /// should there be no outcome.
    pub(super) async fn wait_for_pod_end(&self, key: &AttemptKey, name: &str) -> Failure {
        let mut pod = self.index.subscribe(name);
        let begun = Instant::now();
        loop {
            let entry = pod.borrow_and_update().clone();
            // The caller reads the outcome from the store; this failure counts only if it is not
            // there.
            if entry.reported {
                return Failure::new(FailureReason::Lost, "its launcher's report is not there");
            }
            let deadline = match entry.state {
                PodState::Present(pod) => match judge(&pod) {
                    Verdict::Ended(failure) => return failure,
                    Verdict::Stuck(failure) => {
                        self.notes.set(key, Some(&failure.message));
                        // Waiting warm pods hold what they request, which may be just what this pod
                        // lacks.
                        if failure.reason == FailureReason::Unschedulable {
                            self.warm.release_waiting();
                        }
                        let timeout = self.stuck_timeout(&failure);
                        if timeout.is_some_and(|timeout| begun.elapsed() >= timeout) {
                            return failure;
                        }
                        timeout.map(|timeout| begun + timeout)
                    }
                    Verdict::Active => self.note_wait_reason(key, &pod, begun),
                },
                PodState::Absent => {
                    return Failure::new(FailureReason::Lost, "its pod was deleted");
                }
                PodState::Unknown => {
                    self.refresh_pod_state(key, name).await;
                    // This records the API's answer, which wakes this loop. If the API is away, the
                    // watch or the next request tells.
                    Some(Instant::now() + Duration::from_secs(5))
                }
            };
            tokio::select! {
                _ = pod.changed() => {}
                () = sleep_until(deadline) => {}
            }
        }
    }

    /// Says what a pod that is not stuck waits for, if it takes long; when to look again.
    fn note_wait_reason(&self, key: &AttemptKey, pod: &Pod, begun: Instant) -> Option<Instant> {
        let Some(reason) = wait_reason(pod) else {
            self.notes.set(key, None);
            return None;
        };
        if begun.elapsed() < WAIT_NOTE_DELAY {
            return Some(begun + WAIT_NOTE_DELAY);
        }
        self.notes.set(key, Some(&reason));
        None
    }

    /// Asks the API for a pod that the watch has not spoken of.
    pub(super) async fn refresh_pod_state(&self, key: &AttemptKey, name: &str) {
        match self.pods(&key.owner).get_opt(name).await {
            Ok(Some(pod)) => self.index.record(name, PodState::Present(Arc::new(pod))),
            Ok(None) => self.index.record(name, PodState::Absent),
            Err(error) => tracing::warn!(name, %error, "a pod cannot be looked at"),
        }
    }

    /// How long an attempt may be stuck for this reason.
    fn stuck_timeout(&self, failure: &Failure) -> Option<Duration> {
        match failure.reason {
            FailureReason::Unschedulable => {
                self.config.schedule_patience_s.map(Duration::from_secs)
            }
            _ => Some(Duration::from_secs(self.config.image_patience_s)),
        }
    }

    /// The outcome of an attempt whose launcher left none, with what its container printed.
    pub(super) async fn outcome_for(
        &self,
        key: &AttemptKey,
        pod: &str,
        remote: &RemoteFiles,
        mut failure: Failure,
    ) -> Result<Outcome, RuntimeError> {
        // The log before the outcome: an attempt with an outcome is read from the store only.
        if let Some(log) = self.pod_log(key, pod).await {
            failure.log_tail = logs::tail(&log);
            remote.write_log(log.into()).await.map_err(of_remote(key))?;
        }
        if remote.stop_requested().await.map_err(of_remote(key))? {
            failure.reason = FailureReason::Canceled;
            "it was stopped".clone_into(&mut failure.message);
        }
        write_failure(remote, key, failure).await
    }

    /// Deletes the pod of an attempt whose outcome is kept.
    pub(super) async fn collect_garbage(&self, key: &AttemptKey, name: &str) {
        let pods = self.pods(&key.owner);
        let deleted = pods.delete(name, &DeleteParams::background()).await;
        // The reconciler deletes what stays (`PodReconciler::sweep`).
        if let Err(error) = ignore_not_found(deleted) {
            tracing::warn!(name, %error, "a pod is left behind");
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
