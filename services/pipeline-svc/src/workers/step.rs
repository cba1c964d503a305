//! One step of a run: events in, one transaction, then what it asks for.

use std::collections::VecDeque;
use std::sync::Arc;

use ferroflow_pipeline_engine::engine::task::{TaskIx, TaskState};
use ferroflow_pipeline_engine::engine::{AttemptFailure, Effect, Event};
use ferroflow_service::telemetry;
use ferroflow_types::{Error, Timestamp};
use tracing::Instrument as _;
use uuid::Uuid;

use super::actor::{Actor, LoadedRun, Memory};
use super::attempt::{self, Launch, Message};
use crate::app::step::{Changes, Driver, StepOutcome, delete_run, store_step};

/// What a step changes and asks for.
#[derive(Default)]
struct Step {
    changes: Changes,
    launches: Vec<Launch>,
    stops: Vec<(TaskIx, u32)>,
    timers: Vec<(TaskIx, Timestamp)>,
}

impl Actor {
    /// Takes `events`, and does `effects` that are left over from before a crash; in the trace of
    /// the request that created the run, which goes on into its commands.
    pub(super) async fn step(
        &mut self,
        events: Vec<Event>,
        effects: Vec<Effect>,
        request_id: Option<Uuid>,
    ) -> Result<(), Error> {
        let span = tracing::info_span!("run.step", run.id = %self.id);
        if let Memory::Loaded(loaded) = &self.memory
            && !loaded.run.traceparent.is_empty()
        {
            telemetry::continue_trace(&span, &loaded.run.traceparent);
        }
        self.take_step(events, effects, request_id)
            .instrument(span)
            .await
    }

    async fn take_step(
        &mut self,
        events: Vec<Event>,
        effects: Vec<Effect>,
        request_id: Option<Uuid>,
    ) -> Result<(), Error> {
        let now = self.ctx.clock.now();
        // Whatever fails below leaves `Unread` behind: the state that `decide` has changed is
        // dropped, and the run is read again.
        let Memory::Loaded(mut loaded) = std::mem::replace(&mut self.memory, Memory::Unread) else {
            return Ok(());
        };
        let mut step = Step::default();
        step.changes.artifacts = std::mem::take(&mut loaded.new_artifacts);
        step.changes.request_id = request_id;
        let mut queue: VecDeque<Event> = events.into();
        for effect in effects {
            queue.extend(self.prepare(&mut loaded, effect, &mut step, now).await?);
        }
        while let Some(event) = queue.pop_front() {
            let decision = loaded.state.decide(event, now);
            for effect in step.changes.merge(decision) {
                queue.extend(self.prepare(&mut loaded, effect, &mut step, now).await?);
            }
        }
        let changed = (&loaded.run, &loaded.state);
        match store_step(&self.ctx.db, &self.driver(), changed, &step.changes, now).await? {
            StepOutcome::Stored(run) => loaded.run = *run,
            StepOutcome::Unchanged => {}
            StepOutcome::RunDeleted => {
                self.memory = Memory::Deleted;
                return Ok(());
            }
            StepOutcome::ClaimLost => {
                self.memory = Memory::ClaimLost;
                return Ok(());
            }
        }
        loaded.state.forget_inputs(&step.changes.tasks);
        // Commands are started and stopped after the commit, so that none runs that is not stored. After
        // a crash in between, the stored state asks for the same again (`RunState::restore`).
        self.perform(&loaded, step);
        self.memory = Memory::Loaded(loaded);
        Ok(())
    }

    fn driver(&self) -> Driver<'_> {
        Driver {
            ownership: &self.ctx.ownership,
            claim: self.claim,
        }
    }

    /// What can be done before the step is stored; answers come back as events of the same step.
    async fn prepare(
        &mut self,
        loaded: &mut LoadedRun,
        effect: Effect,
        step: &mut Step,
        now: Timestamp,
    ) -> Result<Vec<Event>, Error> {
        match effect {
            Effect::LookUpCache { task: ix, key } => {
                let answer = self.lookup_cache(loaded, ix, key).await?;
                Ok(answer.into_iter().collect())
            }
            Effect::Import {
                task: ix,
                uri,
                metadata,
            } => {
                let task = loaded.state.task(ix).id;
                let result = self.import(loaded, ix, uri, metadata, now).await?;
                let result = result.map(|(artifact, new_row)| {
                    step.changes.artifacts.extend(new_row);
                    artifact
                });
                Ok(vec![Event::Imported { task, result }])
            }
            Effect::Launch { task: ix, attempt } => {
                Ok(self.prepare_launch(loaded, ix, attempt, step).await)
            }
            Effect::Stop { task: ix, attempt } => {
                step.stops.push((ix, attempt));
                Ok(Vec::new())
            }
            Effect::WakeAt { task: ix, at } => {
                step.timers.push((ix, at));
                Ok(Vec::new())
            }
        }
    }

    /// Makes the command of an attempt ready; takes a slot for it if one is free.
    async fn prepare_launch(
        &self,
        loaded: &LoadedRun,
        ix: TaskIx,
        attempt: u32,
        step: &mut Step,
    ) -> Vec<Event> {
        let task = loaded.state.task(ix).id;
        let spec = match attempt::spec(&*self.ctx.runtime, &loaded.state, ix, attempt) {
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
        // Taken before the step is stored, which then has the task as RUNNING already:
        // the command starts without a second transaction. If the step is not stored, the
        // slot is dropped with it.
        let slot = self.ctx.runtime.slots().try_take();
        if slot.is_some() {
            events.push(Event::SlotGranted { task, attempt });
        }
        let note = loaded.state.task(ix).note.clone();
        step.launches.push(Launch { spec, slot, note });
        events
    }

    /// Does what the stored step asks for.
    fn perform(&mut self, loaded: &LoadedRun, step: Step) {
        // Finished helpers are released, so that long runs do not collect them.
        while self.helpers.try_join_next().is_some() {}
        for launch in step.launches {
            let runtime = Arc::clone(&self.ctx.runtime);
            let mailbox = self.mailbox.clone();
            self.helpers.spawn(attempt::watch(runtime, launch, mailbox));
        }
        for grant in self.slot_grants.drain(..) {
            // A grant that came too late is dropped, which ends its watcher without a command.
            let may_start = loaded.state.tasks().any(|(_, task)| {
                task.id == grant.task
                    && task.attempt == grant.attempt
                    && task.state == TaskState::Running
            });
            if may_start && grant.start.send(()).is_err() {
                tracing::debug!(run = %self.id, "an attempt has ended before it began");
            }
        }
        for (ix, attempt) in step.stops {
            let key = attempt::key(&loaded.state, ix, attempt);
            let runtime = Arc::clone(&self.ctx.runtime);
            self.helpers
                .spawn(attempt::stop(runtime, key, self.mailbox.clone()));
        }
        for (ix, at) in step.timers {
            let task = loaded.state.task(ix).id;
            let wait = at.since(self.ctx.clock.now());
            let mailbox = self.mailbox.clone();
            self.helpers.spawn(async move {
                tokio::time::sleep(wait).await;
                attempt::send_to_actor(&mailbox, Message::RetryDue { task }).await;
            });
        }
    }

    /// Removes the run; its actor has nothing more to do.
    pub(super) async fn delete(&mut self, request_id: Option<Uuid>) -> Result<(), Error> {
        // Unless it is known how this ended, the run is read again, and with it the messages that are
        // dropped below.
        let loaded = match std::mem::replace(&mut self.memory, Memory::Unread) {
            Memory::Loaded(loaded) => loaded,
            other => {
                self.memory = other;
                return Ok(());
            }
        };
        // Before the rows go: nothing would lead to these commands any more.
        let running = loaded
            .state
            .tasks()
            .filter(|(_, task)| task.state == TaskState::Running);
        let stops: Vec<_> = running
            .map(|(ix, task)| attempt::key(&loaded.state, ix, task.attempt))
            .map(|key| attempt::stop(Arc::clone(&self.ctx.runtime), key, self.mailbox.clone()))
            .collect();
        let mut stops = std::pin::pin!(futures::future::join_all(stops));
        // All of them send their outcome to the mailbox, which is bounded and has no other reader
        // meanwhile.
        loop {
            tokio::select! {
                _ = &mut stops => break,
                Some(_) = self.incoming.recv() => {}
            }
        }
        let (db, now) = (&self.ctx.db, self.ctx.now());
        let deleted = delete_run(db, &self.driver(), &loaded.run, request_id, now).await?;
        self.memory = if deleted {
            Memory::Deleted
        } else {
            Memory::ClaimLost
        };
        Ok(())
    }
}
