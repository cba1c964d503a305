//! The supervisor of the actors that drive this replica's runs: one actor per active run.
//!
//! It takes runs that nobody drives, oldest first and as far as there is room, and those of replicas
//! that are gone, and looks now and then whether it drives all that is its own. Letters from use cases and requests from other replicas go through it, so that a
//! run never has two actors here; elsewhere its fence sees to that. Runs above the limit wait; they
//! stay `PENDING`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use ferroflow_db::lease::RENEWAL;
use ferroflow_types::error::chain;
use ferroflow_types::{Error, RunId};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::drive::{Answer, Letter, Order, REQUESTS, RUNS, Reply};
use crate::app::replica::Taken;
use crate::app::{Ctx, replica};
use crate::store::claims::Claim;
use crate::workers::actor::{self, Actor, Notice};
use crate::workers::heartbeat::Steady;

/// Looks between two at what is ours and forgotten.
const RECONCILE_EVERY: u32 = 4;

/// Looks between two at what is long past.
const FORGET_EVERY: u32 = 400;

/// The way to one actor.
struct Mailbox {
    claim: Claim,
    letters: mpsc::UnboundedSender<Letter>,
    /// How many letters went in.
    sent: u64,
}

/// Drives runs until `stop`.
pub(crate) struct Supervisor {
    ctx: Arc<Ctx>,
    inbox: mpsc::Receiver<Letter>,
    slots: Arc<Semaphore>,
    actors: HashMap<RunId, Mailbox>,
    waiting: VecDeque<Claim>,
    /// Requests of other replicas that an actor has.
    asked: HashSet<Uuid>,
    tasks: JoinSet<()>,
    notice_sender: mpsc::UnboundedSender<Notice>,
    notices: mpsc::UnboundedReceiver<Notice>,
    steady: Steady,
    looks: u32,
}

impl Supervisor {
    /// A supervisor that drives nothing yet.
    pub(crate) fn new(ctx: Arc<Ctx>, inbox: mpsc::Receiver<Letter>, steady: Steady) -> Self {
        let (notice_sender, notices) = mpsc::unbounded_channel();
        let slots = Arc::new(Semaphore::new(ctx.settings.parallel_tasks_max));
        Self {
            ctx,
            inbox,
            slots,
            actors: HashMap::new(),
            waiting: VecDeque::new(),
            asked: HashSet::new(),
            tasks: JoinSet::new(),
            notice_sender,
            notices,
            steady,
            looks: 0,
        }
    }

    /// Takes runs and serves letters until `stop`, then gives the runs back. Commands that run go on
    /// without us and are found again by whoever takes their run.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        let signals = self.ctx.db.signals().clone();
        let mut unclaimed = signals.subscribe(RUNS);
        let mut requests = signals.subscribe(REQUESTS);
        let mut period = tokio::time::interval(RENEWAL);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.show();
        // There may be runs from before.
        self.ctx.driver.set_backlog(true);
        loop {
            self.take_new().await;
            self.admit();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(letter) = self.inbox.recv() => self.deliver(letter),
                Some(notice) = self.notices.recv() => self.heed(notice),
                Some(ended) = self.tasks.join_next() => {
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(%error, "the actor of a run panicked; its run is taken up at the next start");
                    }
                }
                () = unclaimed.changed() => self.ctx.driver.set_backlog(true),
                () = requests.changed() => self.take_requests().await,
                _ = period.tick() => self.look().await,
            }
        }
        self.leave().await;
        Ok(())
    }

    async fn leave(&mut self) {
        self.ctx.driver.stop();
        // Whoever waits for an answer asks the next driver.
        self.inbox.close();
        self.tasks.shutdown().await;
        self.actors.clear();
        match replica::leave(&self.ctx).await {
            Ok(runs) => tracing::info!(runs, replica = self.ctx.replica.id, "gave its runs back"),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(
                    error,
                    "runs cannot be given back, others take them when the lease runs out"
                );
            }
        }
    }

    /// How many more runs can be driven here.
    fn room(&self) -> usize {
        let load = self.actors.len() + self.waiting.len();
        self.ctx.settings.active_runs_max.saturating_sub(load)
    }

    /// Looks for what nobody told us of.
    async fn look(&mut self) {
        self.looks = self.looks.wrapping_add(1);
        self.show();
        // A signal may have been lost.
        self.ctx.driver.set_backlog(true);
        if self.steady.is() {
            let room = self.room();
            let taken = replica::take_over(&self.ctx, room).await;
            self.keep(taken);
        }
        self.take_requests().await;
        if self.looks.is_multiple_of(RECONCILE_EVERY) {
            self.reconcile().await;
        }
        if self.looks.is_multiple_of(FORGET_EVERY)
            && let Err(error) = replica::forget(&self.ctx).await
        {
            tracing::debug!(%error, "what is long past cannot be forgotten");
        }
    }

    /// How much there is to do, for those who watch.
    fn show(&self) {
        let shown = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        metrics::gauge!("ferroflow_pipelines_runs_driven").set(shown(self.actors.len()));
        metrics::gauge!("ferroflow_pipelines_runs_waiting").set(shown(self.waiting.len()));
        let free = self.slots.available_permits();
        metrics::gauge!("ferroflow_pipelines_task_slots_free").set(shown(free));
    }

    /// Takes up runs that are ours by the store, and that we have not heard of: the answer to a
    /// commit was lost, or a caller went away between it and the letter.
    async fn reconcile(&mut self) {
        let ours = match replica::mine(&self.ctx).await {
            Ok(ours) => ours,
            Err(error) => {
                let error = chain(&error);
                return tracing::warn!(error, "own runs cannot be read, trying again");
            }
        };
        for claim in ours {
            let waits = self.waiting.iter().any(|waiting| waiting.run == claim.run);
            if !waits && !self.actors.contains_key(&claim.run) {
                self.waiting.push_back(claim);
            }
        }
    }

    /// Takes runs that nobody drives; somewhat more than there is room for, so that many short runs
    /// are not taken one by one.
    async fn take_new(&mut self) {
        let room = self.room();
        if room == 0 || !self.waiting.is_empty() || !self.ctx.driver.has_backlog() {
            return;
        }
        // Set again by whoever adds to it meanwhile.
        self.ctx.driver.set_backlog(false);
        let limit = room + self.ctx.settings.active_runs_max / 8;
        let taken = replica::take_new(&self.ctx, limit).await;
        if taken.is_err() {
            // Tried again at the next occasion, which is not at once.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let more = taken.as_ref().map_or(true, |taken| taken.more);
        if more {
            self.ctx.driver.set_backlog(true);
        }
        self.keep(taken);
    }

    fn keep(&mut self, taken: Result<Taken, Error>) {
        match taken {
            Ok(taken) => self.waiting.extend(taken.claims),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "runs cannot be taken, trying again");
            }
        }
    }

    /// Takes what other replicas ask of runs that are driven here.
    async fn take_requests(&mut self) {
        if self.ctx.replica.alone {
            return;
        }
        let ours = match replica::requests(&self.ctx).await {
            Ok(ours) => ours,
            Err(error) => {
                let error = chain(&error);
                return tracing::warn!(error, "requests cannot be read, trying again");
            }
        };
        let pending: HashSet<Uuid> = ours.iter().map(|(pending, _)| pending.id).collect();
        self.asked.retain(|id| pending.contains(id));
        for (pending, claim) in ours {
            if self.asked.insert(pending.id) {
                let letter = Letter {
                    run: pending.run,
                    claim: Some(claim),
                    order: Order::Answer(pending.request, Reply::Stored(pending.id)),
                };
                self.deliver(letter);
            }
        }
    }

    fn deliver(&mut self, letter: Letter) {
        let run = letter.run;
        let known = match (self.actors.get(&run), letter.claim) {
            // The actor of a claim that was lost and won again does not know it yet.
            (Some(mailbox), Some(claim)) if mailbox.claim.fence < claim.fence => {
                self.actors.remove(&run);
                None
            }
            (Some(mailbox), _) => Some(mailbox.claim),
            (None, _) => None,
        };
        let waiting = self.waiting.iter().find(|claim| claim.run == run).copied();
        let Some(claim) = known.or(letter.claim).or(waiting) else {
            return self.send_back(letter);
        };
        if matches!(letter.order, Order::Drive) && known.is_none() {
            if waiting.is_none() {
                self.waiting.push_back(claim);
            }
            return;
        }
        self.waiting.retain(|waiting| waiting.run != run);
        let mailbox = self.mailbox(claim);
        mailbox.sent += 1;
        if let Err(unsent) = mailbox.letters.send(letter) {
            // Its end is told by itself, or was a panic; the next letter starts a new actor.
            self.actors.remove(&run);
            self.send_back(unsent.0);
        }
    }

    /// A letter that no actor here can answer.
    fn send_back(&mut self, letter: Letter) {
        match letter.order {
            Order::Answer(_, Reply::Caller(reply)) => {
                if reply.send(Answer::Elsewhere).is_err() {
                    tracing::debug!(run = %letter.run, "nobody waits for the answer any more");
                }
            }
            // Found again at the next look, by whoever drives the run then.
            Order::Answer(_, Reply::Stored(id)) => {
                self.asked.remove(&id);
            }
            Order::Drive => {}
        }
    }

    fn heed(&mut self, notice: Notice) {
        match notice {
            // An actor that has nothing to do is let go of, unless a letter is on its way to it.
            Notice::Idle { run, served } => {
                if self
                    .actors
                    .get(&run)
                    .is_some_and(|mailbox| mailbox.sent == served)
                {
                    self.actors.remove(&run);
                }
            }
            Notice::Lost { claim, letters } => {
                let run = claim.run;
                tracing::info!(%run, "another replica has taken over the run");
                if self
                    .actors
                    .get(&run)
                    .is_some_and(|mailbox| mailbox.claim == claim)
                {
                    self.actors.remove(&run);
                }
                for letter in letters {
                    self.send_back(letter);
                }
            }
            Notice::Unanswered(id) => {
                self.asked.remove(&id);
            }
        }
    }

    /// Starts actors for waiting runs while there is room.
    fn admit(&mut self) {
        while self.actors.len() < self.ctx.settings.active_runs_max {
            let Some(claim) = self.waiting.pop_front() else {
                break;
            };
            self.mailbox(claim);
        }
        let load = self.actors.len() + self.waiting.len();
        self.ctx.driver.set_load(load);
    }

    /// The mailbox of the run's actor, which is started if there is none.
    fn mailbox(&mut self, claim: Claim) -> &mut Mailbox {
        self.actors.entry(claim.run).or_insert_with(|| {
            let (letters, inbox) = mpsc::unbounded_channel();
            let actor = Actor::new(Arc::clone(&self.ctx), claim, Arc::clone(&self.slots));
            self.tasks
                .spawn(actor::drive(actor, inbox, self.notice_sender.clone()));
            Mailbox {
                claim,
                letters,
                sent: 0,
            }
        })
    }
}
