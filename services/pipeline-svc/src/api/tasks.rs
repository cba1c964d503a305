//! `TaskService`: tasks in full, logs, artifacts.

use std::collections::HashMap;

use ferroflow_artifacts::read::FileEntry;
use ferroflow_pipeline_engine::engine::task::{TaskState, Values};
use ferroflow_pipeline_engine::outline::{TaskKind, TaskOutline, outline};
use ferroflow_proto::google::api::HttpBody;
use ferroflow_proto::json::timestamp;
use ferroflow_proto::pipelines::v1 as pb;
use ferroflow_proto::pipelines::v1::task_service_server::TaskService;
use ferroflow_runtime::LogRequest;
use ferroflow_service::grpc::caller;
use ferroflow_service::request::{invalid, non_negative, parsed, parsed_opt};
use ferroflow_types::{Error, RunId, TaskId};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use super::elide::SizeBudget;
use super::{Api, into_status};
use crate::app::{artifacts, tasks};
use crate::domain::artifact::{ArtifactFilter, StoredArtifact};
use crate::domain::content_type::content_type;

/// The largest content in bytes that `read_run_artifact` answers with: KFP has it in one message, and
/// not in a stream.
const UNARY_CONTENT_MAX: u64 = 32 * 1024 * 1024;

fn kind(kind: TaskKind) -> pb::TaskType {
    match kind {
        TaskKind::Root => pb::TaskType::Root,
        TaskKind::Iteration => pb::TaskType::Iteration,
        TaskKind::Loop => pb::TaskType::Loop,
        TaskKind::Condition => pb::TaskType::Condition,
        TaskKind::Dag => pb::TaskType::Dag,
        TaskKind::Container => pb::TaskType::Container,
        TaskKind::Importer => pb::TaskType::Importer,
    }
}

fn state(state: TaskState) -> pb::TaskState {
    match state {
        TaskState::Pending | TaskState::Queued => pb::TaskState::Pending,
        TaskState::Running | TaskState::Backoff => pb::TaskState::Running,
        TaskState::Succeeded => pb::TaskState::Succeeded,
        TaskState::Cached => pb::TaskState::Cached,
        TaskState::NotTriggered | TaskState::Omitted => pb::TaskState::Skipped,
        TaskState::Failed => pb::TaskState::Failed,
        TaskState::Canceled => pb::TaskState::Canceled,
    }
}

fn task(run: RunId, outlined: TaskOutline<'_>, budget: &mut SizeBudget) -> pb::Task {
    let row = outlined.row;
    let (inputs, elided_inputs) = budget.split_values(&row.inputs.parameters);
    let (outputs, elided_outputs) = budget.split_values(&row.outputs.parameters);
    let elided_inputs = prefixed("input_parameters", elided_inputs);
    let elided = elided_inputs.chain(prefixed("output_parameters", elided_outputs));
    let cache = row.cache.as_ref().map(|note| pb::CacheInfo {
        fingerprint: note.fingerprint.clone(),
        reason: note.reason.clone(),
        source_task_id: note
            .source
            .as_ref()
            .map(|source| source.task.to_string())
            .unwrap_or_default(),
        source_run_id: note
            .source
            .as_ref()
            .map(|source| source.run.clone())
            .unwrap_or_default(),
    });
    let count = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    pb::Task {
        run_id: run.to_string(),
        task_id: row.id.to_string(),
        parent_task_id: row
            .parent
            .map(|parent| parent.to_string())
            .unwrap_or_default(),
        name: outlined.name,
        display_name: outlined.display_name,
        path: row.path.clone(),
        r#type: outlined.kind.map_or(pb::TaskType::Unspecified, kind) as i32,
        state: state(row.state) as i32,
        iteration_index: row.iteration.map(count),
        attempt: count(row.attempt),
        created_at: Some(timestamp(row.created_at.millis())),
        started_at: row.started_at.map(|at| timestamp(at.millis())),
        finished_at: row.finished_at.map(|at| timestamp(at.millis())),
        error: row.error.as_ref().map(|error| pb::TaskError {
            reason: error.reason.clone(),
            message: error.message.clone(),
            exit_code: error.exit_code,
            log_tail: error.log_tail.clone(),
        }),
        cache,
        input_parameters: Some(inputs),
        output_parameters: Some(outputs),
        elided: elided.collect(),
        input_artifacts: artifact_refs(&row.inputs),
        output_artifacts: artifact_refs(&row.outputs),
        upstream: outlined.upstream.iter().map(TaskId::to_string).collect(),
        iteration_count: outlined.iterations.map(count),
        note: row.note.clone(),
        remarks: row.remarks.clone(),
    }
}

fn prefixed(kind: &str, names: Vec<String>) -> impl Iterator<Item = String> {
    names.into_iter().map(move |name| format!("{kind}.{name}"))
}

fn artifact_refs(values: &Values) -> HashMap<String, pb::ArtifactRefs> {
    let lists = values.artifacts.iter().map(|(name, list)| {
        let ids = list.iter().map(|artifact| artifact.id).collect();
        (name.clone(), pb::ArtifactRefs { ids })
    });
    lists.collect()
}

fn artifact(stored: &StoredArtifact, budget: &mut SizeBudget) -> pb::Artifact {
    let artifact = &stored.artifact;
    let (metadata, metadata_elided) = budget.split_values(&artifact.metadata);
    pb::Artifact {
        artifact_id: artifact.id,
        name: artifact.name.clone(),
        r#type: artifact.schema_title.clone(),
        uri: artifact.uri.clone(),
        metadata: Some(metadata),
        metadata_elided,
        digest: artifact.digest.clone().unwrap_or_default(),
        size_bytes: artifact
            .size_bytes
            .and_then(|size| i64::try_from(size).ok())
            .unwrap_or(0),
        run_id: stored.run.to_string(),
        task_id: stored.task.to_string(),
        created_at: Some(timestamp(stored.created_at.millis())),
    }
}

fn body(content_type: &str, bytes: bytes::Bytes) -> HttpBody {
    let content_type = content_type.to_owned();
    HttpBody {
        content_type,
        data: bytes.into(),
        extensions: Vec::new(),
    }
}

/// A value as it is read: JSON, in parts.
fn json_parts(value: &Value) -> BodyStream {
    // Each part is far below the limit of a message, however large the value is.
    const PART: usize = 256 * 1024;
    let bytes = bytes::Bytes::from(value.to_string());
    let parts = (0..bytes.len()).step_by(PART).map(move |start| {
        let end = bytes.len().min(start + PART);
        Ok(body("application/json", bytes.slice(start..end)))
    });
    futures::stream::iter(parts).boxed()
}

type BodyStream = BoxStream<'static, Result<HttpBody, Status>>;

#[tonic::async_trait]
impl TaskService for Api {
    type ReadParameterStream = BodyStream;
    type StreamLogsStream = BodyStream;
    type ReadArtifactStream = BodyStream;

    async fn list_tasks(
        &self,
        request: Request<pb::ListTasksRequest>,
    ) -> Result<Response<pb::ListTasksResponse>, Status> {
        let caller = caller(&request)?;
        let run = parsed("run_id", &request.get_ref().run_id)?;
        let (rows, plan) = tasks::list_tasks(&self.ctx, &caller, run)
            .await
            .map_err(into_status)?;
        let mut budget = SizeBudget::for_list();
        let outlined = outline(&plan, &rows).into_iter();
        let tasks = outlined
            .map(|found| task(run, found, &mut budget))
            .collect();
        Ok(Response::new(pb::ListTasksResponse { tasks }))
    }

    async fn get_task(
        &self,
        request: Request<pb::GetTaskRequest>,
    ) -> Result<Response<pb::Task>, Status> {
        let caller = caller(&request)?;
        let run = parsed("run_id", &request.get_ref().run_id)?;
        let wanted = request.into_inner().task_id;
        // All of them are read for one: what it waits for and how many iterations
        // it has is in other rows.
        let (rows, plan) = tasks::list_tasks(&self.ctx, &caller, run)
            .await
            .map_err(into_status)?;
        let mut outlined = outline(&plan, &rows).into_iter();
        let found = outlined
            .find(|found| found.row.id.to_string() == wanted)
            .ok_or_else(|| Status::not_found(format!("task {wanted} not found in this run")))?;
        let shown = task(run, found, &mut SizeBudget::for_object());
        Ok(Response::new(shown))
    }

    async fn read_parameter(
        &self,
        request: Request<pb::ReadParameterRequest>,
    ) -> Result<Response<BodyStream>, Status> {
        let caller = caller(&request)?;
        let pb::ReadParameterRequest {
            run_id,
            task_id,
            name,
            output,
        } = request.into_inner();
        let (run, task) = (parsed("run_id", &run_id)?, parsed("task_id", &task_id)?);
        let value = tasks::read_parameter(&self.ctx, &caller, run, task, &name, output)
            .await
            .map_err(into_status)?;
        Ok(Response::new(json_parts(&value)))
    }

    async fn stream_logs(
        &self,
        request: Request<pb::StreamLogsRequest>,
    ) -> Result<Response<BodyStream>, Status> {
        let caller = caller(&request)?;
        let pb::StreamLogsRequest {
            run_id,
            task_id,
            attempt,
            follow,
            offset,
        } = request.into_inner();
        let (run, task) = (parsed("run_id", &run_id)?, parsed("task_id", &task_id)?);
        let attempt = non_negative("attempt", attempt)?;
        let offset = non_negative("offset", offset)?;
        let wanted = LogRequest { offset, follow };
        let log = tasks::stream_logs(&self.ctx, &caller, run, task, attempt, wanted)
            .await
            .map_err(into_status)?;
        let bodies = log
            .map_ok(|bytes| body("text/plain; charset=utf-8", bytes))
            .map_err(|error| into_status(Error::internal("cannot read the log", error)));
        Ok(Response::new(bodies.boxed()))
    }

    async fn list_artifacts(
        &self,
        request: Request<pb::ListArtifactsRequest>,
    ) -> Result<Response<pb::ListArtifactsResponse>, Status> {
        let caller = caller(&request)?;
        let given = request.into_inner();
        let run = parsed_opt("run_id", &given.run_id)?;
        let task = parsed_opt("task_id", &given.task_id)?;
        let filter = match (task, run) {
            (Some(task), _) => ArtifactFilter::Task(task),
            (None, Some(run)) => ArtifactFilter::Run(run),
            (None, None) => {
                let namespace = caller.namespace(&given.namespace);
                ArtifactFilter::Namespace(namespace.map_err(into_status)?)
            }
        };
        let (token, size) = (&given.page_token, given.page_size);
        let page = artifacts::list_artifacts(&self.ctx, &caller, &filter, token, size).await;
        let (found, next_page_token) = page.map_err(into_status)?;
        let mut budget = SizeBudget::for_list();
        let shown = found.iter().map(|found| artifact(found, &mut budget));
        let artifacts = shown.collect();
        Ok(Response::new(pb::ListArtifactsResponse {
            artifacts,
            next_page_token,
        }))
    }

    async fn get_artifact(
        &self,
        request: Request<pb::GetArtifactRequest>,
    ) -> Result<Response<pb::Artifact>, Status> {
        let caller = caller(&request)?;
        let id = request.get_ref().artifact_id;
        let found = artifacts::get_artifact(&self.ctx, &caller, id)
            .await
            .map_err(into_status)?;
        let shown = artifact(&found, &mut SizeBudget::for_object());
        Ok(Response::new(shown))
    }

    async fn list_artifact_files(
        &self,
        request: Request<pb::ListArtifactFilesRequest>,
    ) -> Result<Response<pb::ListArtifactFilesResponse>, Status> {
        let caller = caller(&request)?;
        let given = request.into_inner();
        let (id, token, size) = (given.artifact_id, &given.page_token, given.page_size);
        let (found, next_page_token) = artifacts::list_files(&self.ctx, &caller, id, token, size)
            .await
            .map_err(into_status)?;
        let file = |file: FileEntry| pb::ArtifactFile {
            path: file.path,
            size_bytes: i64::try_from(file.size_bytes).unwrap_or(i64::MAX),
        };
        Ok(Response::new(pb::ListArtifactFilesResponse {
            files: found.into_iter().map(file).collect(),
            next_page_token,
        }))
    }

    async fn read_artifact(
        &self,
        request: Request<pb::ReadArtifactRequest>,
    ) -> Result<Response<BodyStream>, Status> {
        let caller = caller(&request)?;
        let pb::ReadArtifactRequest { artifact_id, path } = request.into_inner();
        let found = artifacts::read_artifact(&self.ctx, &caller, artifact_id, &path)
            .await
            .map_err(into_status)?;
        let (title, name) = (&found.artifact.schema_title, &found.reading.name);
        let read_error = |error| into_status(Error::internal("cannot read the artifact", error));
        let mut bytes = found.reading.bytes;
        // Before the answer begins: the first bytes may decide the content type, and a failure can
        // still be the status of the call.
        let first = bytes.try_next().await.map_err(read_error)?;
        let first = first.unwrap_or_default();
        let kind = content_type(title, !path.is_empty(), name, &first);
        let bodies = futures::stream::iter([Ok(first)])
            .chain(bytes)
            .map_ok(move |bytes| body(kind, bytes))
            .map_err(read_error);
        let mut response = Response::new(bodies.boxed());
        // A name may have any characters. In gRPC only metadata with the ending
        // `-bin` has more than ASCII.
        let name = MetadataValue::from_bytes(name.as_bytes());
        response.metadata_mut().insert_bin("file-name-bin", name);
        Ok(response)
    }

    async fn read_run_artifact(
        &self,
        request: Request<pb::ReadRunArtifactRequest>,
    ) -> Result<Response<pb::ReadRunArtifactResponse>, Status> {
        let caller = caller(&request)?;
        let pb::ReadRunArtifactRequest {
            run_id,
            node_id,
            artifact_name,
        } = request.into_inner();
        let (run, task) = (parsed("run_id", &run_id)?, parsed("node_id", &node_id)?);
        let id = artifacts::find_output(&self.ctx, &caller, run, task, &artifact_name)
            .await
            .map_err(into_status)?;
        let found = artifacts::read_artifact(&self.ctx, &caller, id, "")
            .await
            .map_err(into_status)?;
        let found = found.reading;
        if found.size_bytes > UNARY_CONTENT_MAX {
            let hint = format!("read it from /apis/ferroflow/v1/artifacts/{id}/content");
            return Err(invalid(
                "artifact_name",
                format!("it is larger than {UNARY_CONTENT_MAX} bytes: {hint}"),
            ));
        }
        let chunks: Vec<_> = found
            .bytes
            .try_collect()
            .await
            .map_err(|error| into_status(Error::internal("cannot read the artifact", error)))?;
        Ok(Response::new(pb::ReadRunArtifactResponse {
            data: chunks.concat(),
        }))
    }
}
