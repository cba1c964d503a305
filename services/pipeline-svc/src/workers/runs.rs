//! The supervisor of the actors that drive runs: one actor per active run.
//!
//! At start it takes up every run that has not ended. Letters from use cases go through it, so that
//! a run never has two actors. Runs above the limit wait, oldest first; they stay `PENDING`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ferroflow_types::RunId;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::app::Ctx;
use crate::app::drive::{Letter, Request};
use crate::store;
use crate::workers::actor::{self, Actor, Idle};

/// Letters that may wait for one actor.
const MAILBOX_MAX: usize = 64;

/// The way to one actor.
struct Mailbox {
    letters: mpsc::Sender<Letter>,
    /// How many letters went in.
    sent: u64,
}

/// Drives every run until `stop`.
pub(crate) struct Supervisor {
    ctx: Arc<Ctx>,
    inbox: mpsc::Receiver<Letter>,
    slots: Arc<Semaphore>,
    actors: HashMap<RunId, Mailbox>,
    waiting: VecDeque<RunId>,
    tasks: JoinSet<()>,
    idle_sender: mpsc::Sender<Idle>,
    idle: mpsc::Receiver<Idle>,
}

impl Supervisor {
    /// A supervisor that drives nothing yet.
    pub(crate) fn new(ctx: Arc<Ctx>, inbox: mpsc::Receiver<Letter>) -> Self {
        let (idle_sender, idle) = mpsc::channel(MAILBOX_MAX);
        let slots = Arc::new(Semaphore::new(ctx.settings.parallel_tasks_max));
        Self {
            ctx,
            inbox,
            slots,
            actors: HashMap::new(),
            waiting: VecDeque::new(),
            tasks: JoinSet::new(),
            idle_sender,
            idle,
        }
    }

    /// Takes up unfinished runs, then serves letters until `stop`. Commands that run go on without
    /// us and are found again at the next start.
    pub(crate) async fn run(
        mut self,
        stop: CancellationToken,
    ) -> Result<(), ferroflow_types::Error> {
        let mut tx = self.ctx.db.begin_read().await?;
        let unfinished = store::runs::unfinished(&mut tx).await?;
        drop(tx);
        if !unfinished.is_empty() {
            tracing::info!(runs = unfinished.len(), "taking up unfinished runs");
        }
        self.waiting.extend(unfinished);
        self.admit();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(letter) = self.inbox.recv() => self.deliver(letter).await,
                Some(idle) = self.idle.recv() => self.release(idle),
                Some(ended) = self.tasks.join_next() => {
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(%error, "the actor of a run panicked; its run is taken up at the next start");
                    }
                }
            }
        }
        self.tasks.shutdown().await;
        Ok(())
    }

    async fn deliver(&mut self, letter: Letter) {
        let run = letter.run;
        if letter.request == Request::Drive && !self.actors.contains_key(&run) {
            self.waiting.push_back(run);
            return self.admit();
        }
        self.waiting.retain(|waiting| *waiting != run);
        let mailbox = self.mailbox(run);
        mailbox.sent += 1;
        let letters = mailbox.letters.clone();
        if letters.send(letter).await.is_err() {
            // Its panic is logged where it is joined; the next letter starts a new actor.
            self.actors.remove(&run);
        }
    }

    /// Lets go of an actor that has nothing to do, unless a letter is on its way to it.
    fn release(&mut self, idle: Idle) {
        if self
            .actors
            .get(&idle.run)
            .is_some_and(|mailbox| mailbox.sent == idle.served)
        {
            self.actors.remove(&idle.run);
        }
        self.admit();
    }

    /// Starts actors for waiting runs while there is room.
    fn admit(&mut self) {
        while self.actors.len() < self.ctx.settings.active_runs_max {
            let Some(run) = self.waiting.pop_front() else {
                break;
            };
            self.mailbox(run);
        }
    }

    /// The mailbox of the run's actor, which is started if there is none.
    fn mailbox(&mut self, run: RunId) -> &mut Mailbox {
        self.actors.entry(run).or_insert_with(|| {
            let (letters, inbox) = mpsc::channel(MAILBOX_MAX);
            let actor = Actor::new(Arc::clone(&self.ctx), run, Arc::clone(&self.slots));
            self.tasks
                .spawn(actor::drive(actor, inbox, self.idle_sender.clone()));
            Mailbox { letters, sent: 0 }
        })
    }
}
