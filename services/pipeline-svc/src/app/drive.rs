//! How use cases reach the actor that drives a run.

use ferroflow_types::{Error, ErrorKind, RunId};
use tokio::sync::{mpsc, oneshot};

/// What a run's actor is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Drive the run on from where it is.
    Drive,
    /// Stop it.
    Cancel,
    /// Run again what failed.
    Retry,
    /// Stop it and remove it.
    Delete,
}

/// A request on its way to an actor.
#[derive(Debug)]
pub(crate) struct Letter {
    /// The run.
    pub run: RunId,
    /// What is asked.
    pub request: Request,
    /// Where the answer goes, once what was asked is stored.
    pub reply: Option<oneshot::Sender<Result<(), Error>>>,
}

/// Letters that may wait for the supervisor; it only hands them on, so this is never long.
const LETTERS_MAX: usize = 1024;

/// The way to the actors.
#[derive(Debug, Clone)]
pub(crate) struct Driver {
    letters: mpsc::Sender<Letter>,
}

impl Driver {
    /// A driver and the receiver that its supervisor reads.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Letter>) {
        let (letters, inbox) = mpsc::channel(LETTERS_MAX);
        (Self { letters }, inbox)
    }

    /// Asks for the run to be driven; a crash right after is mended at the next start.
    pub(crate) async fn wake(&self, run: RunId) {
        let letter = Letter {
            run,
            request: Request::Drive,
            reply: None,
        };
        if self.letters.send(letter).await.is_err() {
            tracing::debug!(%run, "not woken: the service is stopping");
        }
    }

    /// Asks, and waits until the answer is stored.
    ///
    /// # Errors
    /// What the actor says; `Unavailable` while the service stops.
    pub(crate) async fn ask(&self, run: RunId, request: Request) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let stopping = || {
            Error::new(
                ErrorKind::Unavailable,
                "STOPPING",
                "the service is stopping, try again",
            )
        };
        let letter = Letter {
            run,
            request,
            reply: Some(reply),
        };
        self.letters.send(letter).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}
