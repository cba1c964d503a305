//! Importers, and the artifacts of attempts: their ids and rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferroflow_launcher::{Outputs, ProducedArtifact};
use ferroflow_pipeline_engine::artifact::Artifact;
use ferroflow_pipeline_engine::engine::task::{TaskError, TaskIx, Values};
use ferroflow_pipeline_engine::engine::{AttemptFailure, Event};
use ferroflow_pipeline_engine::invocation::{self, ProducedOutput};
use ferroflow_pipeline_engine::plan::{Body, Importer};
use ferroflow_types::{Error, TaskId, Timestamp};
use serde_json::{Map, Value};

use super::actor::{Actor, LoadedRun, Memory};
use super::attempt::{self, Message};
use crate::domain::artifact::StoredArtifact;
use crate::store;

/// An importer's artifact, and its row if it is a new one.
type ImportResult = Result<(Arc<Artifact>, Option<StoredArtifact>), TaskError>;

impl Actor {
    /// A message as an event; artifacts get their ids here.
    pub(super) async fn event_of(&mut self, message: Message) -> Result<Event, Error> {
        let (task, attempt, outcome) = match message {
            Message::SlotGranted(grant) => {
                let (task, attempt) = (grant.task, grant.attempt);
                self.slot_grants.push(grant);
                return Ok(Event::SlotGranted { task, attempt });
            }
            Message::NoteChanged {
                task,
                attempt,
                note,
            } => {
                return Ok(Event::Noted {
                    task,
                    attempt,
                    note,
                });
            }
            Message::CacheAnswered { task, answer } => {
                // A failed search fails the step: the run is read again then, and
                // the cache is asked again.
                let answer = answer?;
                return Ok(Event::CacheAnswered { task, answer });
            }
            Message::RetryDue { task } => return Ok(Event::RetryDue { task }),
            Message::AttemptEnded {
                task,
                attempt,
                outcome,
            } => (task, attempt, outcome),
        };
        let result = match attempt::result_of(outcome) {
            Ok(outputs) => Ok(self.assign_ids(task, attempt, outputs).await?),
            Err(failure) => {
                let lost = failure.reason.is_lost();
                Err(AttemptFailure {
                    error: attempt::error_of(failure),
                    lost,
                })
            }
        };
        Ok(Event::AttemptEnded {
            task,
            attempt,
            result,
        })
    }

    /// Assigns ids to what an attempt made, unless its outcome comes too late to count.
    async fn assign_ids(
        &mut self,
        id: TaskId,
        attempt: u32,
        outputs: Outputs,
    ) -> Result<Values, Error> {
        let now = self.ctx.clock.now();
        let Memory::Loaded(loaded) = &mut self.memory else {
            return Ok(Values::default());
        };
        let Some(ix) = loaded.state.find(id) else {
            return Ok(Values::default());
        };
        let task = loaded.state.task(ix);
        // The engine ignores such an outcome, and rows of its artifacts would be outputs of no task.
        if task.attempt != attempt || task.state.ended() {
            return Ok(Values::default());
        }
        let mut artifacts = BTreeMap::new();
        for (name, list) in outputs.artifacts {
            let mut numbered = Vec::with_capacity(list.len());
            for output in list {
                let artifact_id = self.ctx.artifact_ids.next(&self.ctx.db).await?;
                let component = loaded.state.component(ix);
                let artifact = Arc::new(invocation::output_artifact(
                    component,
                    &name,
                    artifact_id,
                    produced(output),
                ));
                loaded.new_artifacts.push(StoredArtifact {
                    artifact: Arc::clone(&artifact),
                    run: loaded.run.id,
                    task: id,
                    created_at: now,
                });
                numbered.push(artifact);
            }
            artifacts.insert(name, numbered);
        }
        Ok(Values {
            parameters: outputs.parameters,
            artifacts,
        })
    }

    /// Finds or makes the artifact of an importer.
    pub(super) async fn import(
        &self,
        loaded: &LoadedRun,
        ix: TaskIx,
        uri: String,
        metadata: Map<String, Value>,
        now: Timestamp,
    ) -> Result<ImportResult, Error> {
        let Body::Importer(importer) = &loaded.state.component(ix).body else {
            return Ok(Err(TaskError::new("Internal", "the task is no importer")));
        };
        // As upstream, `reimport` makes a new artifact; without it, one of the same pipeline with the
        // same URI, type and metadata is taken.
        let existing = if importer.reimport {
            None
        } else {
            let title = &importer.kind.schema_title;
            let mut tx = self.ctx.db.begin_read().await?;
            store::artifacts::find_imported(&mut tx, &loaded.run, &uri, title, &metadata).await?
        };
        let (artifact, new_row) = if let Some(existing) = existing {
            (existing.artifact, None)
        } else {
            let id = self.ctx.artifact_ids.next(&self.ctx.db).await?;
            let artifact = Arc::new(imported_artifact(importer, id, uri, metadata));
            let task = loaded.state.task(ix).id;
            let run = loaded.run.id;
            let row = StoredArtifact {
                artifact: Arc::clone(&artifact),
                run,
                task,
                created_at: now,
            };
            (artifact, Some(row))
        };
        if !importer.download_to_workspace {
            return Ok(Ok((artifact, new_row)));
        }
        // The attempt that downloads has ended before the engine asks for the import,
        // so the content is there.
        let place = loaded.state.workspace_copy_path(&artifact.uri);
        Ok(place.map(|path| {
            let artifact = Artifact {
                custom_path: Some(path),
                ..(*artifact).clone()
            };
            (Arc::new(artifact), new_row)
        }))
    }
}

fn produced(artifact: ProducedArtifact) -> ProducedOutput {
    let ProducedArtifact {
        name,
        uri,
        metadata,
        digest,
        stamp,
        size_bytes,
        custom_path,
    } = artifact;
    ProducedOutput {
        name,
        uri,
        metadata,
        digest,
        stamp,
        size_bytes,
        custom_path,
    }
}

fn imported_artifact(
    importer: &Importer,
    id: i64,
    uri: String,
    metadata: Map<String, Value>,
) -> Artifact {
    Artifact {
        id,
        // The only output of an importer has this name in every PipelineSpec.
        name: "artifact".to_owned(),
        schema_title: importer.kind.schema_title.clone(),
        schema_version: importer.kind.schema_version.clone(),
        uri,
        metadata,
        digest: None,
        stamp: None,
        size_bytes: None,
        custom_path: None,
    }
}
