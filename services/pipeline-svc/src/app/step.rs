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
    noted: Vec<TaskIx>,
    phase_changed: bool,
    /// Artifacts that are new.
    pub(crate) artifacts: Vec<StoredArtifact>,
    /// The stored request that asked for this.
    pub(crate) answers: Option<Uuid>,
}

/// What became of a step.
#[derive(Debug)]
pub(crate) enum Stored {
    /// It is stored, and this is the run now.
    Yes(Box<Run>),
    /// There was nothing to store.
    Unchanged,
    /// The run has been deleted.
    Gone,
    /// Another replica drives the run.
    Lost,
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
        self.noted.extend(decision.noted);
        self.phase_changed |= decision.phase_changed;
        decision.effects
    }

    fn are_none(&self) -> bool {
        self.tasks.is_empty() && !self.phase_changed && self.answers.is_none()
    }

    /// Counts what has ended, for the metrics.
    fn count(&self, status: RunStatus, before: RunStatus) {
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
) -> Result<Stored, Error> {
    if changes.are_none() {
        return Ok(Stored::Unchanged);
    }
    let before = run.status;
    let mut run = run.clone();
    let mut tx = db.begin_write().await?;
    // The events come first, because the row of the run keeps their number. Where the claim is lost,
    // `tx` is dropped without a commit, and the events with it.
    tell(&mut tx, &mut run, state, changes, now).await?;
    driver.answer(&mut tx, changes.answers).await?;
    // The row is written in any case: this is what checks the fence, and no other replica can take
    // the run before the commit.
    let kept = if changes.phase_changed {
        store::runs::set_progress(&mut tx, &run, driver.claim).await?
    } else {
        store::runs::set_driven_event_sequence(&mut tx, &run, driver.claim).await?
    };
    if !kept {
        return why_not(&mut tx, &run).await;
    }
    write_tasks(&mut tx, &run, state, changes, now).await?;
    tx.commit().await?;
    // After the commit, as counters cannot be rolled back.
    changes.count(run.status, before);
    Ok(Stored::Yes(Box::new(run)))
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
            store::tasks::remember(tx, run, &row, &note.fingerprint, now).await?;
        }
    }
    for artifact in &changes.artifacts {
        store::artifacts::insert(tx, run, artifact).await?;
    }
    Ok(())
}

/// Moves the run on and publishes the events of a step, in the order in which things happened.
async fn tell(
    tx: &mut WriteTx,
    run: &mut Run,
    state: &RunState,
    changes: &Changes,
    now: Timestamp,
) -> Result<(), Error> {
    let own = Change::own(now);
    // A run that ends in its first step is started as well, so that history and events have both.
    if changes.phase_changed && run.status == RunStatus::Pending {
        run.enter(RunStatus::Running, None, now);
        tx.publish(&events::run_changed(run, own)).await?;
    }
    for transition in &changes.transitions {
        if let Some(event) = events::task_changed(run, state, transition, now) {
            tx.publish(&event).await?;
        }
    }
    for &ix in &changes.noted {
        tx.publish(&events::task_waits(run, state, ix, now)).await?;
    }
    let status = RunStatus::of(state.phase());
    if status != run.status {
        run.enter(status, error_of(state), now);
        tx.publish(&events::run_changed(run, own)).await?;
        if status.ended() {
            free_slot(tx, run);
        }
    }
    Ok(())
}

/// Removes a run whose attempts have all been stopped; false when another replica drives it.
pub(crate) async fn delete_run(
    db: &Db,
    driver: &Driver<'_>,
    run: &Run,
    answers: Option<Uuid>,
    now: Timestamp,
) -> Result<bool, Error> {
    let mut run = run.clone();
    let mut tx = db.begin_write().await?;
    // Also for a run that is gone already: whoever asked gets the answer, and
    // only the event is left out.
    driver.answer(&mut tx, answers).await?;
    if store::runs::delete(&mut tx, driver.claim).await? {
        let event = events::run_event(&mut run, Change::own(now), "deleted");
        tx.publish(&event).await?;
        free_slot(&mut tx, &run);
    } else if let Stored::Lost = why_not(&mut tx, &run).await? {
        return Ok(false);
    }
    tx.commit().await?;
    Ok(true)
}

/// Why the run's row was not met.
async fn why_not(tx: &mut WriteTx, run: &Run) -> Result<Stored, Error> {
    let found = claim::find::<Runs>(tx, run.id).await?;
    Ok(found.map_or(Stored::Gone, |_| Stored::Lost))
}

/// The schedule of a run may have waited for it to end.
fn free_slot(tx: &mut WriteTx, run: &Run) {
    if run.recurring_run.is_some() {
        tx.signal(SCHEDULES);
    }
}

fn error_of(state: &RunState) -> Option<RunError> {
    match RunStatus::of(state.phase()) {
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
