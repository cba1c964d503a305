//! One step of a run: events in, one transaction, then what it asks for.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use ferroflow_db::WriteTx;
use ferroflow_launcher::AttemptSpec;
use ferroflow_ownership::claim;
use ferroflow_pipeline_engine::engine::node::{NodeIx, NodeState};
use ferroflow_pipeline_engine::engine::{AttemptFailure, Decision, Effect, Event, Transition};
use ferroflow_service::telemetry;
use ferroflow_types::{Error, Timestamp};
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument as _;
use uuid::Uuid;

use super::actor::{Actor, Loaded, Memory};
use super::attempt::{self, Report};
use crate::app::events::{self, Change};
use crate::app::schedules::SCHEDULES;
use crate::domain::artifact::StoredArtifact;
use crate::domain::run::{Run, RunError, RunStatus};
use crate::store;
use crate::store::ownership::Runs;

/// What a step changes and asks for.
#[derive(Default)]
struct Step {
    changed: Vec<NodeIx>,
    seen: HashSet<NodeIx>,
    transitions: Vec<Transition>,
    noted: Vec<NodeIx>,
    phase_changed: bool,
    artifacts: Vec<StoredArtifact>,
    launches: Vec<(AttemptSpec, Option<OwnedSemaphorePermit>)>,
    stops: Vec<(NodeIx, u32)>,
    timers: Vec<(NodeIx, Timestamp)>,
    /// The stored request that asked for this.
    answers: Option<Uuid>,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// It is stored.
    Yes,
    /// The run has been deleted.
    Gone,
    /// Another replica drives the run.
    Lost,
}

impl Step {
    fn merge(&mut self, decision: Decision) -> Vec<Effect> {
        for ix in decision.changed {
            if self.seen.insert(ix) {
                self.changed.push(ix);
            }
        }
        self.transitions.extend(decision.transitions);
        self.noted.extend(decision.noted);
        self.phase_changed |= decision.phase_changed;
        decision.effects
    }
}

impl Actor {
    /// Takes `events`, and does `effects` that are left over from before a crash; in the trace of
    /// the request that created the run, which goes on into its commands.
    pub(super) async fn turn(
        &mut self,
        events: Vec<Event>,
        effects: Vec<Effect>,
        answers: Option<Uuid>,
    ) -> Result<(), Error> {
        let span = tracing::info_span!("run.turn", run.id = %self.id);
        if let Memory::Loaded(loaded) = &self.memory
            && !loaded.run.traceparent.is_empty()
        {
            telemetry::continue_trace(&span, &loaded.run.traceparent);
        }
        self.take_turn(events, effects, answers)
            .instrument(span)
            .await
    }

    async fn take_turn(
        &mut self,
        events: Vec<Event>,
        effects: Vec<Effect>,
        answers: Option<Uuid>,
    ) -> Result<(), Error> {
        let now = self.ctx.clock.now();
        let Memory::Loaded(mut loaded) = std::mem::replace(&mut self.memory, Memory::Unread) else {
            return Ok(());
        };
        let mut step = Step {
            artifacts: std::mem::take(&mut loaded.fresh),
            answers,
            ..Step::default()
        };
        let mut queue: VecDeque<Event> = events.into();
        for effect in effects {
            queue.extend(self.prepare(&mut loaded, effect, &mut step, now).await?);
        }
        while let Some(event) = queue.pop_front() {
            let decision = loaded.state.decide(event, now);
            for effect in step.merge(decision) {
                queue.extend(self.prepare(&mut loaded, effect, &mut step, now).await?);
            }
        }
        match self.store(&mut loaded, &step, now).await? {
            Kept::Yes => {}
            Kept::Gone => {
                self.memory = Memory::Gone;
                return Ok(());
            }
            Kept::Lost => {
                self.memory = Memory::Lost;
                return Ok(());
            }
        }
        loaded.state.forget_inputs(&step.changed);
        self.perform(&loaded, step);
        self.memory = Memory::Loaded(loaded);
        Ok(())
    }

    /// What can be done before the step is stored; answers come back as events of the same step.
    async fn prepare(
        &mut self,
        loaded: &mut Loaded,
        effect: Effect,
        step: &mut Step,
        now: Timestamp,
    ) -> Result<Vec<Event>, Error> {
        match effect {
            Effect::LookUpCache { node, key } => {
                let answer = self.look_up(loaded, node, key).await?;
                Ok(answer.into_iter().collect())
            }
            Effect::Import {
                node,
                uri,
                metadata,
            } => {
                let task = loaded.state.node(node).id;
                let result = self.import(loaded, node, uri, metadata, now).await?;
                let result = result.map(|(artifact, fresh)| {
                    step.artifacts.extend(fresh);
                    artifact
                });
                Ok(vec![Event::Imported { task, result }])
            }
            Effect::Launch { node, attempt } => Ok(self.ready(loaded, node, attempt, step).await),
            Effect::Stop { node, attempt } => {
                step.stops.push((node, attempt));
                Ok(Vec::new())
            }
            Effect::WakeAt { node, at } => {
                step.timers.push((node, at));
                Ok(Vec::new())
            }
        }
    }

    /// Makes the command of an attempt ready; takes a slot for it if one is free.
    async fn ready(
        &self,
        loaded: &Loaded,
        node: NodeIx,
        attempt: u32,
        step: &mut Step,
    ) -> Vec<Event> {
        let task = loaded.state.node(node).id;
        let spec = match attempt::spec(&*self.ctx.runtime, &loaded.state, node, attempt) {
            Ok(spec) => spec,
            Err(error) => {
                let failure = AttemptFailure { error, lost: false };
                let result = Err(failure);
                return vec![Event::AttemptEnded {
                    task,
                    attempt,
                    result,
                }];
            }
        };
        let remarks = self.ctx.runtime.remarks(&spec).await;
        let mut events = vec![Event::Remarked {
            task,
            attempt,
            remarks,
        }];
        let permit = Arc::clone(&self.slots).try_acquire_owned().ok();
        if permit.is_some() {
            events.push(Event::SlotGranted { task, attempt });
        }
        step.launches.push((spec, permit));
        events
    }

    /// Writes the step, if the claim still holds.
    async fn store(&self, loaded: &mut Loaded, step: &Step, now: Timestamp) -> Result<Kept, Error> {
        if step.changed.is_empty() && !step.phase_changed && step.answers.is_none() {
            return Ok(Kept::Yes);
        }
        let mut tx = self.ctx.db.begin_write().await?;
        let mut run = loaded.run.clone();
        let state = &loaded.state;
        for &ix in &step.changed {
            let row = state.row(ix);
            store::tasks::upsert(&mut tx, run.id, &row).await?;
            if let (NodeState::Succeeded, Some(note)) = (row.state, &row.cache)
                && !note.fingerprint.is_empty()
            {
                store::tasks::remember(&mut tx, &run, &row, &note.fingerprint, now).await?;
            }
        }
        for artifact in &step.artifacts {
            store::artifacts::insert(&mut tx, &run, artifact).await?;
        }
        let started = step.phase_changed && run.status == RunStatus::Pending;
        if started {
            run.enter(RunStatus::Running, None, now);
            tx.publish(&events::run_changed(&mut run, Change::own(now)))
                .await?;
        }
        for transition in &step.transitions {
            if let Some(event) = events::task_changed(&mut run, state, transition, now) {
                tx.publish(&event).await?;
            }
        }
        for &ix in &step.noted {
            tx.publish(&events::task_waits(&mut run, state, ix, now))
                .await?;
        }
        let status = RunStatus::of(state.phase());
        if status != run.status {
            run.enter(status, error_of(state), now);
            tx.publish(&events::run_changed(&mut run, Change::own(now)))
                .await?;
            if status.ended() {
                free_slot(&mut tx, &run);
            }
        }
        if let Some(id) = step.answers {
            self.ctx.ownership.answer(&mut tx, id, Ok(())).await?;
        }
        let kept = if step.phase_changed {
            store::runs::set_progress(&mut tx, &run, self.claim).await?
        } else {
            store::runs::set_driven_event_sequence(&mut tx, &run, self.claim).await?
        };
        if !kept {
            return self.why_not(&mut tx).await;
        }
        tx.commit().await?;
        count(step, status, loaded.run.status);
        loaded.run = run;
        Ok(Kept::Yes)
    }

    /// Why the run's row was not met.
    async fn why_not(&self, tx: &mut WriteTx) -> Result<Kept, Error> {
        let found = claim::find::<Runs>(tx, self.id).await?;
        Ok(found.map_or(Kept::Gone, |_| Kept::Lost))
    }

    /// Does what the stored step asks for.
    fn perform(&mut self, loaded: &Loaded, step: Step) {
        // Finished helpers are let go of, so that long runs do not collect them.
        while self.helpers.try_join_next().is_some() {}
        for (spec, permit) in step.launches {
            let runtime = Arc::clone(&self.ctx.runtime);
            let slots = Arc::clone(&self.slots);
            let reports = self.reports.clone();
            self.helpers
                .spawn(attempt::watch(runtime, spec, permit, slots, reports));
        }
        for granted in self.granted.drain(..) {
            let begins = loaded.state.nodes().any(|(_, node)| {
                node.id == granted.task
                    && node.attempt == granted.attempt
                    && node.state == NodeState::Running
            });
            if begins && granted.go.send(()).is_err() {
                tracing::debug!(run = %self.id, "an attempt has ended before it began");
            }
        }
        for (node, attempt) in step.stops {
            let key = attempt::key(&loaded.state, node, attempt);
            let runtime = Arc::clone(&self.ctx.runtime);
            self.helpers
                .spawn(attempt::stop(runtime, key, self.reports.clone()));
        }
        for (node, at) in step.timers {
            let task = loaded.state.node(node).id;
            let wait = at.since(self.ctx.clock.now());
            let reports = self.reports.clone();
            self.helpers.spawn(async move {
                tokio::time::sleep(wait).await;
                attempt::tell(&reports, Report::RetryDue { task }).await;
            });
        }
    }

    /// Removes the run; its actor has nothing more to do.
    pub(super) async fn delete(&mut self, answers: Option<Uuid>) -> Result<(), Error> {
        let Memory::Loaded(loaded) = &self.memory else {
            return Ok(());
        };
        // Nobody could stop these once the run is forgotten.
        let running = loaded
            .state
            .nodes()
            .filter(|(_, node)| node.state == NodeState::Running);
        let stops: Vec<_> = running
            .map(|(ix, node)| attempt::key(&loaded.state, ix, node.attempt))
            .map(|key| attempt::stop(Arc::clone(&self.ctx.runtime), key, self.reports.clone()))
            .collect();
        futures::future::join_all(stops).await;
        let now = self.ctx.clock.now();
        let mut run = loaded.run.clone();
        let mut tx = self.ctx.db.begin_write().await?;
        if let Some(id) = answers {
            self.ctx.ownership.answer(&mut tx, id, Ok(())).await?;
        }
        if store::runs::delete(&mut tx, self.claim).await? {
            tx.publish(&events::run_event(&mut run, Change::own(now), "deleted"))
                .await?;
            free_slot(&mut tx, &run);
        } else if self.why_not(&mut tx).await? == Kept::Lost {
            self.memory = Memory::Lost;
            return Ok(());
        }
        tx.commit().await?;
        self.memory = Memory::Gone;
        Ok(())
    }
}

/// The schedule of a run may have waited for it to end.
fn free_slot(tx: &mut WriteTx, run: &Run) {
    if run.recurring_run.is_some() {
        tx.signal(SCHEDULES);
    }
}

/// Counts what has ended, for those who watch.
fn count(step: &Step, status: RunStatus, before: RunStatus) {
    let ends = step.transitions.iter().map(|transition| transition.state);
    for state in ends.filter(|state| state.ended()) {
        metrics::counter!("ferroflow_pipelines_tasks_ended_total", "state" => state.as_str())
            .increment(1);
    }
    if status != before && status.ended() {
        metrics::counter!("ferroflow_pipelines_runs_ended_total", "state" => status.as_str())
            .increment(1);
    }
}

fn error_of(state: &ferroflow_pipeline_engine::engine::RunState) -> Option<RunError> {
    match RunStatus::of(state.phase()) {
        RunStatus::Canceled => Some(RunError {
            code: 1,
            message: "the run was canceled".to_owned(),
        }),
        RunStatus::Failed => {
            let message = state
                .failure()
                .unwrap_or_else(|| "the run failed".to_owned());
            let root = state.nodes().next();
            let expired = root.is_some_and(|(_, node)| {
                node.error
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
