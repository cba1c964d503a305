//! The actor of one run: the only one that changes it.
//!
//! Events come from attempts, timers and use cases; each batch of them becomes one transaction
//! (`turn`). If a transaction fails, the state in memory is dropped and read again after a wait:
//! what the runtime has done meanwhile is found there, so nothing is lost and nothing done twice.
//! Each transaction holds only if the claim still does; an actor that lost it writes nothing and
//! ends.

use std::sync::Arc;
use std::time::Duration;

use ferroflow_pipeline_engine::engine::{Event, RunPhase, RunState};
use ferroflow_types::error::chain;
use ferroflow_types::{Error, ErrorKind, RunId};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::AllNamespaces;
use crate::app::Ctx;
use crate::app::drive::{self, Answer, Letter, Order, Reply};
use crate::domain::artifact::StoredArtifact;
use crate::domain::request::{Refusal, Request};
use crate::domain::run::Run;
use crate::store;
use crate::store::claims::Claim;
use crate::workers::attempt::{Granted, Report};

/// Events that attempts may have waiting; more make them wait before they go on.
const EVENTS_MAX: usize = 1024;

/// Events that become one transaction at most.
const BATCH_MAX: usize = 256;

/// The wait after a failed transaction, doubled up to the last.
const RETRY_WAITS: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// One run and those who work for it.
pub(crate) struct Actor {
    pub(super) ctx: Arc<Ctx>,
    pub(super) id: RunId,
    pub(super) claim: Claim,
    pub(super) slots: Arc<Semaphore>,
    /// What is known of the run.
    pub(super) memory: Memory,
    pub(super) reports: mpsc::Sender<Report>,
    incoming: mpsc::Receiver<Report>,
    /// Attempts that are watched and timers that tick.
    pub(super) helpers: JoinSet<()>,
    /// Attempts that got a slot, and go on once that is stored.
    pub(super) granted: Vec<Granted>,
}

/// A run in memory.
pub(super) struct Loaded {
    pub(super) run: Run,
    pub(super) state: RunState,
    /// Artifacts of reports that the next step stores.
    pub(super) fresh: Vec<StoredArtifact>,
}

/// What an actor knows of its run.
pub(super) enum Memory {
    /// To be read from the store.
    Unread,
    /// Everything.
    Loaded(Box<Loaded>),
    /// There is no such run.
    Gone,
    /// Another replica drives it.
    Lost,
}

/// What an actor tells its supervisor.
#[derive(Debug)]
pub(crate) enum Notice {
    /// It has nothing to do.
    Idle {
        /// Its run.
        run: RunId,
        /// How many letters it has served so far.
        served: u64,
    },
    /// Its claim is lost, and these letters are not answered.
    Lost {
        /// What it had.
        claim: Claim,
        /// What is left to others.
        letters: Vec<Letter>,
    },
    /// A stored request is not answered yet.
    Unanswered(Uuid),
}

/// Why an actor goes on.
enum Woken {
    Load,
    Letter(Letter),
    Report(Report),
    Deadline,
    Closed,
}

impl Actor {
    pub(super) fn new(ctx: Arc<Ctx>, claim: Claim, slots: Arc<Semaphore>) -> Self {
        let (reports, incoming) = mpsc::channel(EVENTS_MAX);
        Self {
            ctx,
            id: claim.run,
            claim,
            slots,
            memory: Memory::Unread,
            reports,
            incoming,
            helpers: JoinSet::new(),
            granted: Vec::new(),
        }
    }

    /// Waits for something to do.
    async fn wait(&mut self, letters: &mut mpsc::UnboundedReceiver<Letter>) -> Woken {
        if matches!(self.memory, Memory::Unread) {
            return Woken::Load;
        }
        let deadline = self.time_left();
        tokio::select! {
            letter = letters.recv() => letter.map_or(Woken::Closed, Woken::Letter),
            Some(report) = self.incoming.recv() => Woken::Report(report),
            () = sleep(deadline) => Woken::Deadline,
        }
    }

    /// Reads the run and asks again for what may not have been done.
    async fn load(&mut self) -> Result<(), Error> {
        self.helpers.abort_all();
        self.granted.clear();
        let mut tx = self.ctx.db.begin_read().await?;
        let Some(run) = store::runs::get(&mut tx, &AllNamespaces(()), self.id).await? else {
            self.memory = Memory::Gone;
            return Ok(());
        };
        let found = store::claims::find(&mut tx, self.id).await?;
        if found.is_none_or(|found| found.claim != self.claim) {
            self.memory = Memory::Lost;
            return Ok(());
        }
        let rows = store::tasks::of_run(&mut tx, &run).await?;
        drop(tx);
        let plan = self
            .ctx
            .plans
            .of_digest(&self.ctx.db, &run.spec_digest)
            .await?;
        let facts = self.ctx.facts(&run, &plan);
        let (state, effects) = RunState::restore(plan, facts, run.status.phase(), rows)
            .map_err(|error| Error::internal("cannot read the run back", error))?;
        let is_new = state.phase() == RunPhase::New;
        self.memory = Memory::Loaded(Box::new(Loaded {
            run,
            state,
            fresh: Vec::new(),
        }));
        let events = if is_new {
            vec![Event::Start]
        } else {
            Vec::new()
        };
        self.turn(events, effects, None).await
    }

    /// Whether the run needs nothing from us.
    fn is_idle(&self) -> bool {
        match &self.memory {
            Memory::Unread => false,
            Memory::Loaded(loaded) => matches!(loaded.state.phase(), RunPhase::Ended(_)),
            Memory::Gone | Memory::Lost => true,
        }
    }

    /// One batch of reports.
    async fn step(&mut self, first: Report) -> Result<(), Error> {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(report) = self.incoming.try_recv()
        {
            batch.push(report);
        }
        let mut events = Vec::with_capacity(batch.len());
        for report in batch {
            events.push(self.event_of(report).await?);
        }
        self.turn(events, Vec::new(), None).await
    }

    /// Does what is asked; the answer to a stored request is stored with it.
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
            Request::Cancel => self.turn(vec![Event::Cancel], Vec::new(), stored).await?,
            Request::Retry => self.turn(vec![Event::Retry], Vec::new(), stored).await?,
            Request::Delete => {
                if !status.ended() {
                    self.turn(vec![Event::Cancel], Vec::new(), None).await?;
                }
                self.delete(stored).await?;
            }
        }
        Ok(Ok(()))
    }

    /// How long the run may still take.
    fn time_left(&self) -> Option<Duration> {
        let Memory::Loaded(loaded) = &self.memory else {
            return None;
        };
        let limit = loaded.state.plan().run_timeout?;
        let started = loaded.run.started_at?;
        let running = loaded.state.phase() == RunPhase::Running;
        running.then(|| limit.saturating_sub(self.ctx.clock.now().since(started)))
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// Drives a run until it has ended and the supervisor has no more letters for it.
///
/// An actor with nothing to do says how many letters it has served. The supervisor lets go of it
/// only if that is all it has sent, so no letter can fall between two actors.
pub(super) async fn drive(
    mut actor: Actor,
    mut letters: mpsc::UnboundedReceiver<Letter>,
    notices: mpsc::UnboundedSender<Notice>,
) {
    let mut failures = 0;
    let mut served = 0;
    let mut announced = None;
    loop {
        let mut proven = true;
        let outcome = match actor.wait(&mut letters).await {
            Woken::Load => {
                // Reading back may store nothing, so it does not prove that storing works again.
                proven = false;
                actor.load().await
            }
            Woken::Letter(letter) => {
                served += 1;
                match serve(&mut actor, letter, &notices).await {
                    Ok(None) => Ok(()),
                    Ok(Some(unserved)) => {
                        return lose(actor, vec![unserved], letters, notices).await;
                    }
                    Err(error) => Err(error),
                }
            }
            Woken::Report(report) => actor.step(report).await,
            Woken::Deadline => {
                let events = vec![Event::DeadlinePassed];
                actor.turn(events, Vec::new(), None).await
            }
            Woken::Closed => return,
        };
        if matches!(actor.memory, Memory::Lost) {
            return lose(actor, Vec::new(), letters, notices).await;
        }
        if let Err(error) = outcome {
            let wait = RETRY_WAITS[failures.min(RETRY_WAITS.len() - 1)];
            let cause = chain(&error);
            tracing::error!(run = %actor.id, error = cause, ?wait, "a step failed, the run is read again");
            failures += 1;
            actor.memory = Memory::Unread;
            tokio::time::sleep(wait).await;
            continue;
        }
        if proven {
            failures = 0;
        }
        if actor.is_idle() && announced != Some(served) {
            announced = Some(served);
            let run = actor.id;
            if notices.send(Notice::Idle { run, served }).is_err() {
                return;
            }
        }
    }
}

/// Ends without a claim; what was not answered goes back.
async fn lose(
    actor: Actor,
    mut unserved: Vec<Letter>,
    mut letters: mpsc::UnboundedReceiver<Letter>,
    notices: mpsc::UnboundedSender<Notice>,
) {
    letters.close();
    while let Some(letter) = letters.recv().await {
        unserved.push(letter);
    }
    let lost = Notice::Lost {
        claim: actor.claim,
        letters: unserved,
    };
    if notices.send(lost).is_err() {
        tracing::debug!(run = %actor.id, "nobody needs to know that the run is lost");
    }
}

/// Answers a letter, or gives it back where the claim is lost. What the caller did wrong is told to
/// the caller and is no failure of ours.
async fn serve(
    actor: &mut Actor,
    letter: Letter,
    notices: &mpsc::UnboundedSender<Notice>,
) -> Result<Option<Letter>, Error> {
    let Order::Answer(request, ref reply) = letter.order else {
        return Ok(None);
    };
    let stored = match reply {
        Reply::Stored(id) => Some(*id),
        Reply::Caller(_) => None,
    };
    let mut answered = actor.answer(request, stored).await;
    if let (Some(id), Ok(Err(refusal))) = (stored, &answered)
        && let Err(error) = actor.refuse(id, *refusal).await
    {
        answered = Err(error);
    }
    if matches!(actor.memory, Memory::Lost) {
        return Ok(Some(letter));
    }
    let run = actor.id;
    let (told, outcome) = match answered {
        Ok(Ok(())) => (Ok(()), Ok(None)),
        Ok(Err(refusal)) => (Err(drive::refused(run, refusal)), Ok(None)),
        Err(error) if error.kind() == ErrorKind::Internal => {
            let told = Error::new(
                ErrorKind::Unavailable,
                "NOT_STORED",
                "not stored, try again",
            );
            (Err(told), Err(error))
        }
        Err(error) => (Err(error), Ok(None)),
    };
    match letter.order {
        Order::Answer(_, Reply::Caller(reply)) => {
            if reply.send(Answer::Done(told)).is_err() {
                tracing::debug!(%run, "nobody waits for the answer any more");
            }
        }
        Order::Answer(_, Reply::Stored(id)) => {
            if told.is_err() && notices.send(Notice::Unanswered(id)).is_err() {
                tracing::debug!(%run, "the request is found again by its next driver");
            }
        }
        Order::Drive => {}
    }
    outcome
}
