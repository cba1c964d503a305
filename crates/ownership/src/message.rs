//! What is on its way to an actor: from a use case or another replica, by way of the supervisor.

use ferroflow_types::Error;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::{Claim, Owned};

/// What the actor of an object is to do.
#[derive(Debug)]
pub(crate) struct Message<O: Owned> {
    /// The object.
    pub(crate) key: O::Key,
    /// The right to drive it, where the sender has got it.
    pub(crate) claim: Option<Claim<O::Key>>,
    /// What is to be done.
    pub(crate) command: Command<O>,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Command<O: Owned> {
    /// Drive the object on from where it is.
    Drive,
    /// Answer a request.
    Answer(O::Request, Reply<O::Refusal>),
}

/// Where an answer goes, once what was asked is stored.
#[derive(Debug)]
pub(crate) enum Reply<R> {
    /// To a use case of this replica.
    Caller(oneshot::Sender<Answer<R>>),
    /// Into the row of the request, in the transaction of the change.
    Stored(Uuid),
}

/// What a use case hears.
#[derive(Debug)]
pub(crate) enum Answer<R> {
    /// It is done, or refused, or has failed.
    Done(Result<Result<(), R>, Error>),
    /// This replica does not drive the object, or no longer.
    NotDriven,
}

/// Messages that wait for the supervisor, which is made with this.
#[derive(Debug)]
pub struct Inbox<O: Owned>(pub(crate) mpsc::Receiver<Message<O>>);
