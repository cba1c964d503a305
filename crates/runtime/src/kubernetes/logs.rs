//! What commands print: from the container while it runs, from the store afterwards.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use ferroflow_launcher::AttemptKey;
use ferroflow_launcher::remote::RemoteFiles;
use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use object_store::GetOptions;

use super::index::PodState;
use super::{KubernetesRuntime, objects};
use crate::{LogRequest, LogStream};

impl KubernetesRuntime {
    /// What the container printed, as far as the cluster still knows.
    pub(super) async fn pod_log(&self, key: &AttemptKey, name: &str) -> Option<String> {
        let parameters = LogParams {
            container: Some(objects::MAIN_CONTAINER.to_owned()),
            ..LogParams::default()
        };
        self.pods(&key.owner).logs(name, &parameters).await.ok()
    }

    /// A live log: from the moment when the container runs until it ends.
    pub(super) async fn live_log(
        &self,
        key: &AttemptKey,
        name: &str,
        request: LogRequest,
    ) -> io::Result<LogStream> {
        let mut entry = self.index.subscribe(name);
        let mut parameters = LogParams {
            container: Some(objects::MAIN_CONTAINER.to_owned()),
            ..LogParams::default()
        };
        parameters.follow = request.follow;
        loop {
            let ready = match &entry.borrow_and_update().state {
                PodState::Present(pod) => has_started(pod),
                PodState::Unknown => false,
                PodState::Absent => return Ok(futures::stream::empty().boxed()),
            };
            if ready {
                break;
            }
            if !request.follow {
                return Ok(futures::stream::empty().boxed());
            }
            if matches!(self.index.state(name), PodState::Unknown) {
                self.refresh_pod_state(key, name).await;
            }
            // Looked at again after a while, as the watch may be away.
            let _changed = tokio::time::timeout(Duration::from_secs(5), entry.changed())
                .await
                .is_ok();
        }
        let pods = self.pods(&key.owner);
        let stream = pods.log_stream(name, &parameters).await;
        let reader = stream.map_err(io::Error::other)?;
        // The API knows no offset in bytes: what was read before is sent again, and dropped here.
        let mut skip = request.offset;
        let chunks = futures::stream::try_unfold(reader, |mut reader| async move {
            let chunk = reader.fill_buf().await?.to_vec();
            reader.consume_unpin(chunk.len());
            Ok::<_, io::Error>((!chunk.is_empty()).then_some((Bytes::from(chunk), reader)))
        });
        let chunks = chunks.try_filter_map(move |mut chunk| {
            let dropped = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= dropped as u64;
            let rest = chunk.split_off(dropped);
            futures::future::ready(Ok((!rest.is_empty()).then_some(rest)))
        });
        Ok(chunks.boxed())
    }

    /// The log that is kept with the outcome.
    pub(super) async fn stored_log(
        &self,
        remote: &RemoteFiles,
        offset: u64,
    ) -> io::Result<LogStream> {
        let log = remote.log();
        let found = match log.store.get_opts(&log.path, GetOptions::default()).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => {
                return Ok(futures::stream::empty().boxed());
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        if offset >= found.meta.size {
            return Ok(futures::stream::empty().boxed());
        }
        let mut skip = offset;
        let chunks =
            found
                .into_stream()
                .map_err(io::Error::other)
                .map_ok(move |mut chunk: Bytes| {
                    let dropped = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
                    skip -= dropped as u64;
                    chunk.split_off(dropped)
                });
        Ok(chunks.boxed())
    }
}

/// Whether what the container prints can be asked for.
fn has_started(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let main = statuses
        .into_iter()
        .flatten()
        .find(|container| container.name == objects::MAIN_CONTAINER);
    main.and_then(|main| main.state.as_ref())
        .is_some_and(|state| state.running.is_some() || state.terminated.is_some())
}

/// The last lines of a log, at most 4 KiB.
pub(super) fn tail(log: &str) -> String {
    const MAX: usize = 4096;
    let start = log.len().saturating_sub(MAX);
    let start = (start..log.len())
        .find(|at| log.is_char_boundary(*at))
        .unwrap_or(log.len());
    log[start..].trim_end().to_owned()
}
