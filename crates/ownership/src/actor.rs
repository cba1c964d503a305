//! What drives one object: the only one that changes it, and the loop around it.
//!
//! Each step of an actor is one transaction, which holds only if the claim still does. If one fails,
//! what the actor knows is dropped and read again after a wait, so nothing is lost and nothing done
//! twice. An actor that lost its claim writes nothing and ends.

use std::sync::Arc;
use std::time::Duration;

use ferroflow_types::error::chain;
use ferroflow_types::{Error, ErrorKind};
use tokio::sync::mpsc;
use tokio::task;
use uuid::Uuid;

use crate::message::{Answer, Command, Message, Reply};
use crate::{Claim, Owned, Ownership};

/// The waits after steps that failed one after the other; the last one is repeated.
const RETRY_WAITS: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// Drives one object.
pub trait Actor: Send + 'static {
    /// What it drives.
    type Owned: Owned;
    /// What it waits for by itself: that its work goes on, that a time has come.
    type Event: Send;

    /// What it has to do next.
    fn state(&self) -> State;

    /// Drops what it knows, as a step failed; the state is [`State::Unread`] then.
    fn reset(&mut self);

    /// Reads the object, checks the claim, and asks again for what may not have been done. Called
    /// while the state is [`State::Unread`].
    fn load(&mut self) -> impl Future<Output = Result<(), Error>> + Send;

    /// Waits for an event. It is cancelled when a message comes first, and must not lose one then.
    fn next_event(&mut self) -> impl Future<Output = Self::Event> + Send;

    /// Takes an event.
    fn handle(&mut self, event: Self::Event) -> impl Future<Output = Result<(), Error>> + Send;

    /// Does what is asked. If the request is `stored`, [`Ownership::answer`] it in the transaction of
    /// the change; a refusal is stored by the caller.
    fn answer(
        &mut self,
        request: RequestOf<Self>,
        stored: Option<Uuid>,
    ) -> impl Future<Output = Result<Result<(), RefusalOf<Self>>, Error>> + Send;
}

/// What an actor can be asked.
pub type RequestOf<A> = <<A as Actor>::Owned as Owned>::Request;
/// Why an actor does not do it.
pub type RefusalOf<A> = <<A as Actor>::Owned as Owned>::Refusal;
/// What tells the objects of actors from each other.
pub type KeyOf<A> = <<A as Actor>::Owned as Owned>::Key;

/// What an actor has to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has to read its object.
    Unread,
    /// It has work to do or waits for some.
    Active,
    /// Its object needs no driver: it has ended or is gone.
    Idle,
    /// Another replica drives its object.
    Lost,
}

/// What an actor reports to its supervisor.
#[derive(Debug)]
pub(crate) enum Notice<O: Owned> {
    /// It has nothing to do.
    Idle {
        /// Its object.
        key: O::Key,
        /// Its task.
        actor: task::Id,
        /// How many messages it has served so far.
        served: u64,
    },
    /// Its claim is lost, and these messages are not answered.
    Lost {
        /// Its object.
        key: O::Key,
        /// Its task.
        actor: task::Id,
        /// What is left to others.
        messages: Vec<Message<O>>,
    },
    /// A stored request is not answered yet.
    Unanswered(Uuid),
}

/// What the loop around an actor works with.
pub(crate) struct Context<O: Owned> {
    pub(crate) ownership: Arc<Ownership<O>>,
    pub(crate) claim: Claim<O::Key>,
    pub(crate) mailbox: mpsc::Receiver<Message<O>>,
    /// To the supervisor, which never waits for an actor, so this does not block for long.
    pub(crate) notices: mpsc::Sender<Notice<O>>,
}

/// What an actor is to do next.
enum ActorEvent<O: Owned, E> {
    Load,
    Message(Message<O>),
    Event(E),
    Closed,
}

/// Drives an object until it needs no driver and the supervisor has no more messages for it.
///
/// An actor with nothing to do says how many messages it has served. The supervisor lets go of it
/// only if that is all it has sent, so no message is lost between two actors.
pub(crate) async fn drive<A: Actor>(mut actor: A, mut context: Context<A::Owned>) {
    let key = context.claim.key;
    let (mut failures, mut served, mut reported_idle) = (0, 0, None);
    loop {
        let mut clears_failures = true;
        let outcome = match wait(&mut actor, &mut context.mailbox).await {
            ActorEvent::Load => {
                // Reading back may store nothing, so it does not prove that storing works again.
                clears_failures = false;
                actor.load().await
            }
            ActorEvent::Message(message) => {
                served += 1;
                match serve(&mut actor, message, &context).await {
                    Ok(None) => Ok(()),
                    Ok(Some(unserved)) => return report_lost(context, vec![unserved]).await,
                    Err(error) => Err(error),
                }
            }
            ActorEvent::Event(event) => actor.handle(event).await,
            ActorEvent::Closed => return,
        };
        if actor.state() == State::Lost {
            return report_lost(context, Vec::new()).await;
        }
        if let Err(error) = outcome {
            let wait = RETRY_WAITS[failures.min(RETRY_WAITS.len() - 1)];
            let (error, one) = (chain(&error), <A::Owned>::ONE);
            tracing::error!(%key, error, ?wait, "a step failed, the {one} is read again");
            failures += 1;
            actor.reset();
            // Messages wait in the mailbox meanwhile, and are refused once it is full.
            tokio::time::sleep(wait).await;
            continue;
        }
        if clears_failures {
            failures = 0;
        }
        // Once for each number of messages: the supervisor ignores it while a message is on its way
        // here, and after that message it is said again.
        if actor.state() == State::Idle && reported_idle != Some(served) {
            reported_idle = Some(served);
            let actor = task::id();
            let idle = Notice::Idle { key, actor, served };
            if context.notices.send(idle).await.is_err() {
                return;
            }
        }
    }
}

/// Waits for something to do.
async fn wait<A: Actor>(
    actor: &mut A,
    mailbox: &mut mpsc::Receiver<Message<A::Owned>>,
) -> ActorEvent<A::Owned, A::Event> {
    if actor.state() == State::Unread {
        return ActorEvent::Load;
    }
    tokio::select! {
        message = mailbox.recv() => message.map_or(ActorEvent::Closed, ActorEvent::Message),
        event = actor.next_event() => ActorEvent::Event(event),
    }
}

/// Ends without a claim; what was not answered goes back.
async fn report_lost<O: Owned>(mut context: Context<O>, mut messages: Vec<Message<O>>) {
    let (key, actor) = (context.claim.key, task::id());
    // Closed first, so that no message comes in behind those that are given back.
    context.mailbox.close();
    while let Some(message) = context.mailbox.recv().await {
        messages.push(message);
    }
    let lost = Notice::Lost {
        key,
        actor,
        messages,
    };
    if context.notices.send(lost).await.is_err() {
        tracing::debug!(%key, "nobody needs to know that the claim is lost");
    }
}

/// Serves a message, or gives it back where the claim is lost. What the caller did wrong is a
/// reply to the caller and no failure of ours.
async fn serve<A: Actor>(
    actor: &mut A,
    message: Message<A::Owned>,
    context: &Context<A::Owned>,
) -> Result<Option<Message<A::Owned>>, Error> {
    // `Command::Drive` only had the actor started, which it is.
    let Command::Answer(request, reply) = &message.command else {
        return Ok(None);
    };
    let stored = match reply {
        Reply::Stored(id) => Some(*id),
        Reply::Caller(_) => None,
    };
    let mut answered = actor.answer(request.clone(), stored).await;
    let mut lost = actor.state() == State::Lost;
    if let (Some(id), Ok(Err(refusal))) = (stored, &answered) {
        let refused = context.ownership.refuse(context.claim, id, refusal.clone());
        match refused.await {
            Ok(held) => lost |= !held,
            Err(error) => answered = Err(error),
        }
    }
    if lost {
        return Ok(Some(message));
    }
    let (result, outcome) = match answered {
        // The caller may try again; the causes are for the log, which `drive` writes them to.
        Err(error) if error.kind() == ErrorKind::Internal => {
            let unavailable = Error::new(
                ErrorKind::Unavailable,
                "NOT_STORED",
                "not stored, try again",
            );
            (Err(unavailable), Err(error))
        }
        answered => (answered, Ok(None)),
    };
    send_reply(message, result, &context.notices).await;
    outcome
}

/// Replies to who asked; the answer to a stored request is stored already, unless it failed.
async fn send_reply<O: Owned>(
    message: Message<O>,
    result: Result<Result<(), O::Refusal>, Error>,
    notices: &mpsc::Sender<Notice<O>>,
) {
    let key = message.key;
    match message.command {
        Command::Answer(_, Reply::Caller(reply)) => {
            if reply.send(Answer::Done(result)).is_err() {
                tracing::debug!(%key, "nobody waits for the answer any more");
            }
        }
        Command::Answer(_, Reply::Stored(id)) => {
            if result.is_err() && notices.send(Notice::Unanswered(id)).await.is_err() {
                tracing::debug!(%key, "the request is found again by its next driver");
            }
        }
        Command::Drive => {}
    }
}
