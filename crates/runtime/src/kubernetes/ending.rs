//! How an attempt's end is noticed, judged where its launcher left no outcome, and cleaned up after.

use std::sync::Arc;
use std::time::Duration;

use ferroflow_launcher::remote::RemoteFiles;
use ferroflow_launcher::{AttemptKey, Failure, FailureReason, Outcome};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use tokio::time::Instant;

use super::index::Seen;
use super::verdict::{Verdict, judge, waits_for};
use super::{KubernetesRuntime, fail, gone, logs, objects, of_remote};
use crate::RuntimeError;

/// After this long it is told what a pod that has not begun waits for. A container for which nothing
/// has to be pulled starts sooner.
const LONG: Duration = Duration::from_secs(5);

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
    pub(super) async fn pod_ended(&self, key: &AttemptKey, name: &str) -> Failure {
        let mut pod = self.index.subscribe(name);
        let begun = Instant::now();
        loop {
            let known = pod.borrow_and_update().clone();
            // The caller reads the outcome from the store; this failure counts only if it is not
            // there.
            if known.reported {
                return Failure::new(FailureReason::Lost, "its launcher's report is not there");
            }
            let patience = match known.seen {
                Seen::There(pod) => match judge(&pod) {
                    Verdict::Ended(failure) => return failure,
                    Verdict::Stuck(failure) => {
                        self.notes.say(key, Some(&failure.message));
                        // Waiting warm pods hold what they request, which may be just what this pod
                        // lacks.
                        if failure.reason == FailureReason::Unschedulable {
                            self.warm.make_room();
                        }
                        let patience = self.patience(&failure);
                        if patience.is_some_and(|patience| begun.elapsed() >= patience) {
                            return failure;
                        }
                        patience.map(|patience| begun + patience)
                    }
                    Verdict::AtWork => self.note_of(key, &pod, begun),
                },
                Seen::Gone => {
                    return Failure::new(FailureReason::Lost, "its pod was deleted");
                }
                Seen::Unknown => {
                    self.look(key, name).await;
                    // `look` notes the API's answer, which wakes this loop. If the API is away, the
                    // watch or the next look tells.
                    Some(Instant::now() + Duration::from_secs(5))
                }
            };
            tokio::select! {
                _ = pod.changed() => {}
                () = until(patience) => {}
            }
        }
    }

    /// Says what a pod that is not stuck waits for, if it takes long; when to look again.
    fn note_of(&self, key: &AttemptKey, pod: &Pod, begun: Instant) -> Option<Instant> {
        let Some(waits) = waits_for(pod) else {
            self.notes.say(key, None);
            return None;
        };
        if begun.elapsed() < LONG {
            return Some(begun + LONG);
        }
        self.notes.say(key, Some(&waits));
        None
    }

    /// Asks the API for a pod that the watch has not spoken of.
    pub(super) async fn look(&self, key: &AttemptKey, name: &str) {
        match self.pods(&key.owner).get_opt(name).await {
            Ok(Some(pod)) => self.index.note(name, Seen::There(Arc::new(pod))),
            Ok(None) => self.index.note(name, Seen::Gone),
            Err(error) => tracing::warn!(name, %error, "a pod cannot be looked at"),
        }
    }

    /// How long an attempt may be stuck for this reason.
    fn patience(&self, failure: &Failure) -> Option<Duration> {
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
        if remote.stop_asked().await.map_err(of_remote(key))? {
            failure.reason = FailureReason::Canceled;
            "it was stopped".clone_into(&mut failure.message);
        }
        fail(remote, key, failure).await
    }

    /// Deletes the pod of an attempt whose outcome is kept.
    pub(super) async fn collect_garbage(&self, key: &AttemptKey, name: &str) {
        let pods = self.pods(&key.owner);
        let deleted = pods.delete(name, &DeleteParams::background()).await;
        // The keeper deletes what stays (`Keeper::sweep`).
        if let Err(error) = gone(deleted) {
            tracing::warn!(name, %error, "a pod is left behind");
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
