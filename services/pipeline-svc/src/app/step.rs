//! One step of a run: what it changed and the events of that, in one transaction that holds only if
//! this replica still drives the run.

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use ferroflow_db::{Db, WriteTx};
use ferroflow_ownership::{Ownership, claim};
use ferroflow_pipeline_engine::engine::task::{TaskIx, TaskState};
use ferroflow_pipeline_engine::engine::{Decision, Effect, RunState, Transition};
use ferroflow_types::{Error, Timestamp};
use uuid::Uuid;

use super::events::{self, Change};
use super::schedules::SCHEDULES;
use crate::domain::artifact::StoredArtifact;
use crate::domain::run::{Run, RunError, RunStatus};
use crate::store;
use crate::store::ownership::{Claim, Runs};

/// What the decisions of one step changed.
#[derive(Default)]
pub(crate) struct Changes {
    /// Tasks whose stored form is out of date, each once.
    pub(crate) tasks: Vec<TaskIx>,
    seen: HashSet<TaskIx>,
    transitions: Vec<Transition>,
    note_changes: Vec<TaskIx>,
    phase_changed: bool,
    /// Artifacts that are new.
    pub(crate) artifacts: Vec<StoredArtifact>,
    /// The stored request that asked for this.
    pub(crate) request_id: Option<Uuid>,
}

/// What became of a step.
#[derive(Debug)]
pub(crate) enum StepOutcome {
    /// It is stored, and this is the run now.
    Stored(Box<Run>),
    /// There was nothing to store.
    Unchanged,
    /// The run has been deleted.
    RunDeleted,
    /// Another replica drives the run.
    ClaimLost,
}

impl Changes {
    /// Adds a decision; returns what it asks for.
    pub(crate) fn merge(&mut self, decision: Decision) -> Vec<Effect> {
        for ix in decision.changed {
            if self.seen.insert(ix) {
                self.tasks.push(ix);
            }
        }
        self.transitions.extend(decision.transitions);
        self.note_changes.extend(decision.noted);
        self.phase_changed |= decision.phase_changed;
        decision.effects
    }

    fn is_empty(&self) -> bool {
        self.tasks.is_empty() && !self.phase_changed && self.request_id.is_none()
    }

    /// Counts what has ended, for the metrics.
    fn record_metrics(&self, status: RunStatus, before: RunStatus) {
        let ends = self.transitions.iter().map(|transition| transition.state);
        for state in ends.filter(|state| state.ended()) {
            metrics::counter!("ferroflow_pipelines_tasks_ended_total", "state" => state.as_str())
                .increment(1);
        }
        if status != before && status.ended() {
            metrics::counter!("ferroflow_pipelines_runs_ended_total", "state" => status.as_str())
                .increment(1);
        }
    }
}

/// Who drives a run.
pub(crate) struct Driver<'a> {
    pub(crate) ownership: &'a Ownership<Runs>,
    pub(crate) claim: Claim,
}

impl Driver<'_> {
    /// Answers the stored request that a change was asked for by, if there is one.
    async fn answer(&self, tx: &mut WriteTx, request: Option<Uuid>) -> Result<(), Error> {
        match request {
            Some(id) => self.ownership.answer(tx, id, Ok(())).await,
            None => Ok(()),
        }
    }
}

/// Writes what a step changed. `run` is as it was before, `state` as it is after.
pub(crate) async fn store_step(
    db: &Db,
    driver: &Driver<'_>,
    (run, state): (&Run, &RunState),
    changes: &Changes,
    now: Timestamp,
) -> Result<StepOutcome, Error> {
    if changes.is_empty() {
        return Ok(StepOutcome::Unchanged);
    }
    let before = run.status;
    let mut run = run.clone();
    let mut tx = db.begin_write().await?;
    // The events come first, because the row of the run keeps their number. Where the claim is lost,
    // `tx` is dropped without a commit, and the events with it.
    publish_events(&mut tx, &mut run, state, changes, now).await?;
    driver.answer(&mut tx, changes.request_id).await?;
    // The row is written in any case: this is what checks the fence, and no other replica can take
    // the run before the commit.
    let updated = if changes.phase_changed {
        store::runs::set_progress(&mut tx, &run, driver.claim).await?
    } else {
        store::runs::set_driven_event_sequence(&mut tx, &run, driver.claim).await?
    };
    if !updated {
        return why_not_stored(&mut tx, &run).await;
    }
    write_tasks(&mut tx, &run, state, changes, now).await?;
    tx.commit().await?;
    // After the commit, as counters cannot be rolled back.
    changes.record_metrics(run.status, before);
    Ok(StepOutcome::Stored(Box::new(run)))
}

async fn write_tasks(
    tx: &mut WriteTx,
    run: &Run,
    state: &RunState,
    changes: &Changes,
    now: Timestamp,
) -> Result<(), Error> {
    for &ix in &changes.tasks {
        let row = state.row(ix);
        store::tasks::upsert(tx, run.id, &row).await?;
        // A reused result is `Cached` and is not entered again: the entry stays that
        // of the task that made it.
        if let (TaskState::Succeeded, Some(note)) = (row.state, &row.cache)
            && !note.fingerprint.is_empty()
        {
            store::tasks::put_cached_result(tx, run, &row, &note.fingerprint, now).await?;
        }
    }
    for artifact in &changes.artifacts {
        store::artifacts::insert(tx, run, artifact).await?;
    }
    Ok(())
}

/// Moves the run on and publishes the events of a step, in the order in which things happened.
async fn publish_events(
    tx: &mut WriteTx,
    run: &mut Run,
    state: &RunState,
    changes: &Changes,
    now: Timestamp,
) -> Result<(), Error> {
    let change = Change::automatic(now);
    // A run that ends in its first step is started as well, so that history and events have both.
    if changes.phase_changed && run.status == RunStatus::Pending {
        run.set_status(RunStatus::Running, None, now);
        tx.publish(&events::run_status_event(run, change)).await?;
    }
    for transition in &changes.transitions {
        if let Some(event) = events::task_state_event(run, state, transition, now) {
            tx.publish(&event).await?;
        }
    }
    for &ix in &changes.note_changes {
        tx.publish(&events::task_waiting_event(run, state, ix, now))
            .await?;
    }
    let status = RunStatus::from_phase(state.phase());
    if status != run.status {
        run.set_status(status, error_of(state), now);
        tx.publish(&events::run_status_event(run, change)).await?;
        if status.ended() {
            signal_schedules(tx, run);
        }
    }
    Ok(())
}

/// Removes a run whose attempts have all been stopped; false when another replica drives it.
pub(crate) async fn delete_run(
    db: &Db,
    driver: &Driver<'_>,
    run: &Run,
    request_id: Option<Uuid>,
    now: Timestamp,
) -> Result<bool, Error> {
    let mut run = run.clone();
    let mut tx = db.begin_write().await?;
    // Also for a run that is gone already: whoever asked gets the answer, and
    // only the event is left out.
    driver.answer(&mut tx, request_id).await?;
    if store::runs::delete(&mut tx, driver.claim).await? {
        let event = events::run_event(&mut run, Change::automatic(now), "deleted");
        tx.publish(&event).await?;
        signal_schedules(&mut tx, &run);
    } else if let StepOutcome::ClaimLost = why_not_stored(&mut tx, &run).await? {
        return Ok(false);
    }
    tx.commit().await?;
    Ok(true)
}

/// Why the run's row was not met.
async fn why_not_stored(tx: &mut WriteTx, run: &Run) -> Result<StepOutcome, Error> {
    let found = claim::find::<Runs>(tx, run.id).await?;
    Ok(found.map_or(StepOutcome::RunDeleted, |_| StepOutcome::ClaimLost))
}

/// The schedule of a run may have waited for it to end.
fn signal_schedules(tx: &mut WriteTx, run: &Run) {
    if run.recurring_run.is_some() {
        tx.signal(SCHEDULES);
    }
}

fn error_of(state: &RunState) -> Option<RunError> {
    match RunStatus::from_phase(state.phase()) {
        RunStatus::Canceled => Some(RunError {
            code: 1,
            message: "the run was canceled".to_owned(),
        }),
        RunStatus::Failed => {
            let message = state
                .failure()
                .unwrap_or_else(|| "the run failed".to_owned());
            // The engine puts this reason at the root of a run whose time was up (`end_run`).
            let root = state.tasks().next();
            let expired = root.is_some_and(|(_, task)| {
                task.error
                    .as_ref()
                    .is_some_and(|error| error.reason == "Timeout")
            });
            Some(RunError {
                code: if expired { 4 } else { 13 },
                message,
            })
        }
        RunStatus::Pending | RunStatus::Running | RunStatus::Canceling | RunStatus::Succeeded => {
            None
        }
    }
}
