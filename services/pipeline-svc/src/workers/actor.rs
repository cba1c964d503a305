//! The actor of one run: the only one that changes it.
//!
//! Events come from attempts, timers and use cases; each batch of them becomes one transaction
//! (`step`). If a transaction fails, the state in memory is dropped and read again after a wait:
//! what the runtime has done meanwhile is found there, so nothing is lost and nothing done twice.
//! Each transaction holds only if the claim still does; an actor that lost it writes nothing and
//! ends.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use ferroflow_ownership::{State, claim};
use ferroflow_pipeline_engine::engine::{Event, RunPhase, RunState};
use ferroflow_types::{Error, RunId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::AllNamespaces;
use crate::app::Ctx;
use crate::domain::artifact::StoredArtifact;
use crate::domain::request::{Refusal, Request};
use crate::domain::run::Run;
use crate::store;
use crate::store::ownership::{Claim, Runs};
use crate::workers::attempt::{Message, SlotGrant};

/// Events that attempts may have waiting; more make them wait before they go on.
const EVENTS_MAX: usize = 1024;

/// Events that become one transaction at most.
const BATCH_MAX: usize = 256;

/// The actor of one run, with its helpers.
pub(crate) struct Actor {
    pub(super) ctx: Arc<Ctx>,
    pub(super) id: RunId,
    pub(super) claim: Claim,
    /// What is known of the run.
    pub(super) memory: Memory,
    pub(super) mailbox: mpsc::Sender<Message>,
    pub(super) incoming: mpsc::Receiver<Message>,
    /// Attempts that are watched and timers that tick.
    pub(super) helpers: JoinSet<()>,
    /// Attempts that got a slot, and go on once that is stored.
    pub(super) slot_grants: Vec<SlotGrant>,
}

/// A run in memory.
pub(super) struct LoadedRun {
    pub(super) run: Run,
    pub(super) state: RunState,
    /// Artifacts of outcomes that the next step stores.
    pub(super) new_artifacts: Vec<StoredArtifact>,
}

/// What an actor knows of its run.
pub(super) enum Memory {
    /// To be read from the store.
    Unread,
    /// Everything.
    Loaded(Box<LoadedRun>),
    /// There is no such run.
    Deleted,
    /// Another replica drives it.
    ClaimLost,
}

/// Why an actor goes on by itself.
pub(crate) enum RunActorEvent {
    Message(Message),
    Deadline,
}

impl Actor {
    pub(super) fn new(ctx: Arc<Ctx>, claim: Claim) -> Self {
        let (mailbox, incoming) = mpsc::channel(EVENTS_MAX);
        Self {
            ctx,
            id: claim.key,
            claim,
            memory: Memory::Unread,
            mailbox,
            incoming,
            helpers: JoinSet::new(),
            slot_grants: Vec::new(),
        }
    }

    /// One batch of messages.
    async fn handle_batch(&mut self, first: Message) -> Result<(), Error> {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(message) = self.incoming.try_recv()
        {
            batch.push(message);
        }
        // If one message fails, the whole batch is dropped with what the actor knows; `load` then
        // asks again for what these messages said.
        let mut events = Vec::with_capacity(batch.len());
        for message in batch {
            events.push(self.event_of(message).await?);
        }
        self.step(events, Vec::new(), None).await
    }

    /// How long the run may still take.
    fn time_left(&self) -> Option<Duration> {
        let Memory::Loaded(loaded) = &self.memory else {
            return None;
        };
        let limit = loaded.state.plan().run_timeout?;
        let started = loaded.run.running_since()?;
        // Only while it runs: a run that stops because its time was up is past its deadline, and a
        // wait of zero would end again and again.
        let running = loaded.state.phase() == RunPhase::Running;
        running.then(|| limit.saturating_sub(self.ctx.clock.now().since(started)))
    }
}

impl ferroflow_ownership::Actor for Actor {
    type Owned = Runs;
    type Event = RunActorEvent;

    fn state(&self) -> State {
        match &self.memory {
            Memory::Unread => State::Unread,
            Memory::Loaded(loaded) if !matches!(loaded.state.phase(), RunPhase::Ended(_)) => {
                State::Active
            }
            Memory::Loaded(_) | Memory::Deleted => State::Idle,
            Memory::ClaimLost => State::Lost,
        }
    }

    fn reset(&mut self) {
        self.memory = Memory::Unread;
    }

    async fn load(&mut self) -> Result<(), Error> {
        // This ends the helpers that watch attempts, and not the attempts, which run outside of this
        // process: the effects that `restore` repeats find them again.
        self.helpers.abort_all();
        self.slot_grants.clear();
        let mut tx = self.ctx.db.begin_read().await?;
        let Some(run) = store::runs::get(&mut tx, &AllNamespaces(()), self.id).await? else {
            self.memory = Memory::Deleted;
            return Ok(());
        };
        // Each write checks the fence, but a step that changes nothing writes nothing
        // and still does its effects.
        let found = claim::find::<Runs>(&mut tx, self.id).await?;
        if found.is_none_or(|found| found.claim != self.claim) {
            self.memory = Memory::ClaimLost;
            return Ok(());
        }
        let rows = store::tasks::of_run(&mut tx, &run).await?;
        drop(tx);
        let plan = self
            .ctx
            .plans
            .get_or_build(&self.ctx.db, &run.spec_digest)
            .await?;
        let facts = self.ctx.facts(&run, &plan);
        let (state, effects) = RunState::restore(plan, facts, run.status.phase(), rows)
            .map_err(|error| Error::internal("cannot read the run back", error))?;
        let is_new = state.phase() == RunPhase::New;
        self.memory = Memory::Loaded(Box::new(LoadedRun {
            run,
            state,
            new_artifacts: Vec::new(),
        }));
        let events = if is_new {
            vec![Event::Start]
        } else {
            Vec::new()
        };
        self.step(events, effects, None).await
    }

    async fn next_event(&mut self) -> RunActorEvent {
        let deadline = self.time_left();
        let deadline_passed = async {
            match deadline {
                Some(wait) => tokio::time::sleep(wait).await,
                None => pending().await,
            }
        };
        // A message of a use case may end this wait at any time. Nothing is lost then: `recv` takes
        // no message before it is ready, and the deadline is computed anew.
        tokio::select! {
            Some(message) = self.incoming.recv() => RunActorEvent::Message(message),
            () = deadline_passed => RunActorEvent::Deadline,
        }
    }

    async fn handle(&mut self, event: RunActorEvent) -> Result<(), Error> {
        match event {
            RunActorEvent::Message(message) => self.handle_batch(message).await,
            RunActorEvent::Deadline => {
                let events = vec![Event::DeadlinePassed];
                self.step(events, Vec::new(), None).await
            }
        }
    }

    async fn answer(
        &mut self,
        request: Request,
        stored: Option<Uuid>,
    ) -> Result<Result<(), Refusal>, Error> {
        let Memory::Loaded(loaded) = &self.memory else {
            return Ok(Err(Refusal::Missing));
        };
        let status = loaded.run.status;
        if let Err(refusal) = request.check(status) {
            return Ok(Err(refusal));
        }
        match request {
            Request::Cancel => self.step(vec![Event::Cancel], Vec::new(), stored).await?,
            Request::Retry => self.step(vec![Event::Retry], Vec::new(), stored).await?,
            Request::Delete => {
                // The stored request is answered by the transaction that deletes, and not by the one
                // that cancels. After a crash between the two, the next driver finds the request and
                // deletes the run.
                if !status.ended() {
                    self.step(vec![Event::Cancel], Vec::new(), None).await?;
                }
                self.delete(stored).await?;
            }
        }
        Ok(Ok(()))
    }
}
