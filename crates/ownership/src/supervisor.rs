//! The supervisor of the actors of this replica: one actor per object that it drives.
//!
//! It takes objects that nobody drives, as far as there is room, and those of replicas that are gone,
//! and checks now and then that it drives all that is its own. Messages from use cases and requests
//! from other replicas go through it, so that an object never has two actors here; elsewhere its fence
//! sees to that. Claimed objects above the limit wait for an actor.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ferroflow_types::error::chain;
use ferroflow_types::{Error, ErrorKind};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::{self, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::actor::{self, Actor, Context, KeyOf, Notice};
use crate::message::{Answer, Command, Inbox, Message, Reply};
use crate::ownership::ClaimBatch;
use crate::{Claim, Owned, Ownership};

/// Every so many polls what is ours and has no actor is taken up: every 6 seconds.
const RECONCILE_EVERY: u32 = 4;

/// Every so many polls what is long past is deleted: every 10 minutes.
const FORGET_EVERY: u32 = 400;

/// Messages that may wait for one actor; further requests are refused.
pub(crate) const MAILBOX_MAX: usize = 1024;

/// Notices that may wait for the supervisor; further ones make their actors wait.
const NOTICES_MAX: usize = 1024;

/// The wait after objects could not be taken, so that a database that is away is not asked in a loop.
const TAKE_RETRY: Duration = Duration::from_millis(100);

/// Makes actors.
pub trait Factory: Send + 'static {
    /// What it makes.
    type Actor: Actor;

    /// An actor that has read nothing yet.
    fn actor(&self, claim: Claim<KeyOf<Self::Actor>>) -> Self::Actor;

    /// Sets gauges of the service; called with those of the supervisor.
    fn update_gauges(&self) {}
}

/// The kind of object that a factory's actors drive.
type OwnedOf<F> = <<F as Factory>::Actor as Actor>::Owned;
type Key<F> = <OwnedOf<F> as Owned>::Key;

/// The supervisor's side of an actor.
struct Mailbox<O: Owned> {
    claim: Claim<O::Key>,
    /// The actor's task. The claim does not tell an actor from the one that is started after its panic.
    actor: task::Id,
    messages: Sender<Message<O>>,
    /// How many messages went in.
    sent: u64,
}

/// Drives objects until it is stopped.
pub struct Supervisor<F: Factory> {
    factory: F,
    ownership: Arc<Ownership<OwnedOf<F>>>,
    inbox: Receiver<Message<OwnedOf<F>>>,
    actors: HashMap<Key<F>, Mailbox<OwnedOf<F>>>,
    waiting: VecDeque<Claim<Key<F>>>,
    /// Requests of other replicas that an actor has, and the actor's task.
    in_flight_requests: HashMap<Uuid, task::Id>,
    tasks: JoinSet<()>,
    /// Whose tasks they are.
    claims: HashMap<task::Id, Claim<Key<F>>>,
    notice_sender: Sender<Notice<OwnedOf<F>>>,
    notices: Receiver<Notice<OwnedOf<F>>>,
    polls: u32,
}

impl<F: Factory> Supervisor<F> {
    /// A supervisor that drives nothing yet; the inbox is the one of this ownership.
    pub fn new(
        factory: F,
        ownership: Arc<Ownership<OwnedOf<F>>>,
        inbox: Inbox<OwnedOf<F>>,
    ) -> Self {
        let (notice_sender, notices) = mpsc::channel(NOTICES_MAX);
        Self {
            factory,
            ownership,
            inbox: inbox.0,
            actors: HashMap::new(),
            waiting: VecDeque::new(),
            in_flight_requests: HashMap::new(),
            tasks: JoinSet::new(),
            claims: HashMap::new(),
            notice_sender,
            notices,
            polls: 0,
        }
    }

    /// Takes objects and serves messages until `stop`, then gives the objects back. What their actors
    /// have started outside of this process goes on, and is found again by whoever takes them.
    ///
    /// # Errors
    /// None: what fails is tried again.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        let topics = <OwnedOf<F>>::TOPICS;
        let signals = self.ownership.member.db.signals().clone();
        let mut unowned = signals.subscribe(topics.unowned);
        let mut requests = signals.subscribe(topics.requests);
        let mut period = tokio::time::interval(self.ownership.member.timing.renewal);
        // After a slow poll the next one comes a whole period later, and not several at once.
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.update_gauges();
        // There may be objects from before.
        self.ownership.note_backlog();
        loop {
            self.take_new().await;
            self.admit();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(message) = self.inbox.recv() => self.deliver(message),
                Some(notice) = self.notices.recv() => self.handle_notice(notice),
                Some(ended) = self.tasks.join_next_with_id() => self.actor_ended(ended),
                () = unowned.changed() => self.ownership.note_backlog(),
                () = requests.changed() => self.take_requests().await,
                _ = period.tick() => self.poll().await,
            }
        }
        self.leave().await;
        Ok(())
    }

    async fn leave(&mut self) {
        self.ownership.stop();
        // Whoever waits for an answer asks the next driver.
        self.inbox.close();
        // Actors end before their objects are given back, so that nobody else drives these meanwhile.
        self.tasks.shutdown().await;
        self.actors.clear();
        match self.ownership.leave().await {
            Ok(count) => {
                let replica = self.ownership.member.id();
                tracing::info!(count, replica, "gave its {} back", <OwnedOf<F>>::MANY);
            }
            Err(error) => tracing::warn!(
                error = chain(&error),
                "{} cannot be given back, others take them when the lease runs out",
                <OwnedOf<F>>::MANY
            ),
        }
    }

    /// Objects that are driven here or wait for it.
    fn load(&self) -> usize {
        self.actors.len() + self.waiting.len()
    }

    /// How many more objects can be driven here.
    fn free_slots(&self) -> usize {
        self.ownership.active_max().saturating_sub(self.load())
    }

    /// Looks for what no signal announced.
    async fn poll(&mut self) {
        self.polls = self.polls.wrapping_add(1);
        self.update_gauges();
        // A signal may have been lost.
        self.ownership.note_backlog();
        if self.ownership.member.is_steady() {
            let taken = self.ownership.take_over(self.free_slots()).await;
            self.enqueue(taken);
        }
        self.take_requests().await;
        if self.polls.is_multiple_of(RECONCILE_EVERY) {
            self.reconcile().await;
        }
        if self.polls.is_multiple_of(FORGET_EVERY)
            && let Err(error) = self.ownership.forget().await
        {
            tracing::debug!(%error, "what is long past cannot be forgotten");
        }
    }

    /// How much there is to do, for those who watch.
    fn update_gauges(&self) {
        let gauge = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let names = <OwnedOf<F>>::METRICS;
        metrics::gauge!(names.driven).set(gauge(self.actors.len()));
        metrics::gauge!(names.waiting).set(gauge(self.waiting.len()));
        self.factory.update_gauges();
    }

    /// Takes up objects that are ours by the store and have no actor: the answer to a commit was lost,
    /// a caller went away between it and the message, or the actor panicked.
    async fn reconcile(&mut self) {
        let own_claims = match self.ownership.own_claims().await {
            Ok(own_claims) => own_claims,
            Err(error) => {
                let (error, many) = (chain(&error), <OwnedOf<F>>::MANY);
                return tracing::warn!(error, "own {many} cannot be read, trying again");
            }
        };
        for claim in own_claims {
            let waits = self.waiting.iter().any(|waiting| waiting.key == claim.key);
            if !waits && !self.actors.contains_key(&claim.key) {
                self.waiting.push_back(claim);
            }
        }
    }

    /// Takes objects that nobody drives; somewhat more than there is room for, so that many that end
    /// soon are not taken one by one.
    async fn take_new(&mut self) {
        let free_slots = self.free_slots();
        if free_slots == 0 || !self.waiting.is_empty() || !self.ownership.has_backlog() {
            return;
        }
        // Before they are read: whoever adds to it meanwhile sets it again.
        self.ownership.clear_backlog();
        let limit = free_slots + self.ownership.active_max() / 8;
        let taken = self.ownership.take_new(limit).await;
        if taken.is_err() {
            tokio::time::sleep(TAKE_RETRY).await;
        }
        if taken.as_ref().map_or(true, |taken| taken.has_more) {
            self.ownership.note_backlog();
        }
        self.enqueue(taken);
    }

    fn enqueue(&mut self, taken: Result<ClaimBatch<Key<F>>, Error>) {
        match taken {
            Ok(taken) => self.waiting.extend(taken.claims),
            Err(error) => {
                let (error, many) = (chain(&error), <OwnedOf<F>>::MANY);
                tracing::warn!(error, "{many} cannot be taken, trying again");
            }
        }
    }

    /// Takes what other replicas ask of objects that are driven here.
    async fn take_requests(&mut self) {
        if self.ownership.member.is_alone() {
            return;
        }
        let own_requests = match self.ownership.requests().await {
            Ok(own_requests) => own_requests,
            Err(error) => {
                let error = chain(&error);
                return tracing::warn!(error, "requests cannot be read, trying again");
            }
        };
        let pending: HashSet<Uuid> = own_requests.iter().map(|(pending, _)| pending.id).collect();
        self.in_flight_requests.retain(|id, _| pending.contains(id));
        for (pending, claim) in own_requests {
            // A request is found at every poll until it is answered: an actor that has it does not get
            // it again.
            if !self.in_flight_requests.contains_key(&pending.id) {
                let message = Message {
                    key: pending.key,
                    claim: Some(claim),
                    command: Command::Answer(pending.request, Reply::Stored(pending.id)),
                };
                self.deliver(message);
            }
        }
    }

    fn deliver(&mut self, message: Message<OwnedOf<F>>) {
        let key = message.key;
        let known = match (self.actors.get(&key), message.claim) {
            // The actor of a claim that was lost and won again does not know it yet.
            (Some(mailbox), Some(claim)) if mailbox.claim.fence < claim.fence => {
                self.actors.remove(&key);
                None
            }
            (Some(mailbox), _) => Some(mailbox.claim),
            (None, _) => None,
        };
        let waiting = self.waiting.iter().find(|claim| claim.key == key).copied();
        let Some(claim) = known.or(message.claim).or(waiting) else {
            return self.reject_not_driven(message);
        };
        // Driving can wait for room, a request cannot: its actor is started even above the limit.
        if matches!(message.command, Command::Drive) && known.is_none() {
            if waiting.is_none() {
                self.waiting.push_back(claim);
            }
            return;
        }
        self.waiting.retain(|waiting| waiting.key != key);
        let stored = match &message.command {
            Command::Answer(_, Reply::Stored(id)) => Some(*id),
            _ => None,
        };
        let mailbox = self.mailbox(claim);
        // Never waits: the supervisor serves all actors, and one that is busy must not hold up the
        // others.
        match mailbox.messages.try_send(message) {
            Ok(()) => {
                mailbox.sent += 1;
                let actor = mailbox.actor;
                self.in_flight_requests.extend(stored.map(|id| (id, actor)));
            }
            Err(TrySendError::Full(message)) => self.reject_busy(message),
            Err(TrySendError::Closed(message)) => {
                // It reports its end itself, or it panicked; the next message starts a new actor.
                self.actors.remove(&key);
                self.reject_not_driven(message);
            }
        }
    }

    /// A message that no actor here can answer.
    fn reject_not_driven(&mut self, message: Message<OwnedOf<F>>) {
        self.reject(message, Answer::NotDriven);
    }

    /// A message that an actor has no room for.
    fn reject_busy(&mut self, message: Message<OwnedOf<F>>) {
        let one = <OwnedOf<F>>::ONE;
        let key = message.key;
        let text = format!("too many requests wait for the driver of {one} {key}, try again");
        let busy = Error::new(ErrorKind::Exhausted, "DRIVER_BUSY", text);
        self.reject(message, Answer::Done(Err(busy)));
    }

    fn reject(
        &mut self,
        message: Message<OwnedOf<F>>,
        answer: Answer<<OwnedOf<F> as Owned>::Refusal>,
    ) {
        match message.command {
            Command::Answer(_, Reply::Caller(reply)) => {
                if reply.send(answer).is_err() {
                    tracing::debug!(key = %message.key, "nobody waits for the answer any more");
                }
            }
            // Found again at the next poll, by whoever drives the object then.
            Command::Answer(_, Reply::Stored(id)) => {
                self.in_flight_requests.remove(&id);
            }
            Command::Drive => {}
        }
    }

    fn handle_notice(&mut self, notice: Notice<OwnedOf<F>>) {
        match notice {
            // An actor that has nothing to do is released, unless a message is on its way to it.
            Notice::Idle { key, actor, served } => {
                let mailbox = self.actors.get(&key);
                if mailbox.is_some_and(|mailbox| mailbox.sent == served) {
                    self.release(key, actor);
                }
            }
            Notice::Lost {
                key,
                actor,
                messages,
            } => {
                let one = <OwnedOf<F>>::ONE;
                tracing::info!(%key, "another replica has taken over the {one}");
                self.release(key, actor);
                for message in messages {
                    self.reject_not_driven(message);
                }
            }
            Notice::Unanswered(id) => {
                self.in_flight_requests.remove(&id);
            }
        }
    }

    /// Closes the mailbox of an actor, unless the object has another actor by now: if that one lost its
    /// mailbox, the next message would start one more beside it.
    fn release(&mut self, key: Key<F>, actor: task::Id) {
        let mailbox = self.actors.get(&key);
        if mailbox.is_some_and(|mailbox| mailbox.actor == actor) {
            self.actors.remove(&key);
        }
    }

    /// An actor that panicked is started again when what is ours is looked at, not at once: it may
    /// panic again. Stored requests that it had are found again then; where it has answered them,
    /// they are not pending.
    fn actor_ended(&mut self, ended: Result<(task::Id, ()), JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let claim = self.claims.remove(&id);
        self.in_flight_requests.retain(|_, actor| *actor != id);
        if let (Err(error), Some(claim)) = (ended, claim)
            && error.is_panic()
        {
            let (key, one) = (claim.key, <OwnedOf<F>>::ONE);
            tracing::error!(%key, %error, "the actor of a {one} panicked; it is started again soon");
            self.release(key, id);
        }
    }

    /// Starts actors for waiting objects while there is room.
    fn admit(&mut self) {
        while self.actors.len() < self.ownership.active_max() {
            let Some(claim) = self.waiting.pop_front() else {
                break;
            };
            self.mailbox(claim);
        }
        self.ownership.set_load(self.load());
    }

    /// The mailbox of the object's actor, which is started if there is none.
    fn mailbox(&mut self, claim: Claim<Key<F>>) -> &mut Mailbox<OwnedOf<F>> {
        self.actors.entry(claim.key).or_insert_with(|| {
            let (messages, mailbox) = mpsc::channel(MAILBOX_MAX);
            let context = Context {
                ownership: Arc::clone(&self.ownership),
                claim,
                mailbox,
                notices: self.notice_sender.clone(),
            };
            let actor = self.factory.actor(claim);
            let actor = self.tasks.spawn(actor::drive(actor, context)).id();
            self.claims.insert(actor, claim);
            Mailbox {
                claim,
                actor,
                messages,
                sent: 0,
            }
        })
    }
}

#[cfg(test)]
mod tests;
