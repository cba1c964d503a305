//! How use cases reach the actor that drives a run, in this replica or in another.
//!
//! In this one it gets a letter. In another one it is asked through the database: the request is a
//! row that its driver answers in the transaction of the change, so a crash of either loses nothing
//! and repeats nothing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ferroflow_db::lease;
use ferroflow_db::signal::Topic;
use ferroflow_types::{Error, ErrorKind, RunId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::replica::lease_of;
use super::{Ctx, runs};
use crate::domain::request::{Refusal, Request};
use crate::store;
use crate::store::claims::Claim;

/// There are runs that nobody drives.
pub(crate) const RUNS: Topic = Topic::new("runs");
/// Somebody asks the driver of a run.
pub(crate) const REQUESTS: Topic = Topic::new("requests");
/// A driver has answered.
pub(crate) const ANSWERS: Topic = Topic::new("answers");

/// How long one waits for a driver in another replica; by then a dead one's runs are driven by
/// somebody else.
const PATIENCE: Duration = Duration::from_secs(20);
/// The same while this replica stops.
const LAST_PATIENCE: Duration = Duration::from_secs(3);
/// How often an answer is looked for without a signal.
const LOOK: Duration = Duration::from_millis(300);

/// What the supervisor is told to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// Drive the run on from where it is.
    Drive,
    /// Answer a request.
    Answer(Request, Reply),
}

/// Where an answer goes, once what was asked is stored.
#[derive(Debug)]
pub(crate) enum Reply {
    /// To a use case of this replica.
    Caller(oneshot::Sender<Answer>),
    /// Into the row of the request, in the transaction of the change.
    Stored(Uuid),
}

/// What a use case hears.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is done, or refused, or has failed.
    Done(Result<(), Error>),
    /// This replica does not drive the run, or no longer.
    Elsewhere,
}

/// An order on its way to an actor.
#[derive(Debug)]
pub(crate) struct Letter {
    /// The run.
    pub run: RunId,
    /// The right to drive it, where the sender has got it.
    pub claim: Option<Claim>,
    /// What is to be done.
    pub order: Order,
}

/// Letters that may wait for the supervisor; it only hands them on, so this is never long.
const LETTERS_MAX: usize = 1024;

/// The way to the actors.
#[derive(Debug)]
pub(crate) struct Driver {
    letters: mpsc::Sender<Letter>,
    /// Runs that are driven here or wait for it.
    load: AtomicUsize,
    load_max: usize,
    /// There may be older runs that nobody drives.
    backlog: AtomicBool,
    stopping: AtomicBool,
}

impl Driver {
    /// A driver of at most `load_max` runs, and the receiver that its supervisor reads.
    pub(crate) fn new(load_max: usize) -> (Self, mpsc::Receiver<Letter>) {
        let (letters, inbox) = mpsc::channel(LETTERS_MAX);
        let driver = Self {
            letters,
            load: AtomicUsize::new(0),
            load_max,
            backlog: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        };
        (driver, inbox)
    }

    /// Whether a new run can be driven here: there is room, and no older run waits for it.
    pub(crate) fn has_room(&self) -> bool {
        !self.is_stopping()
            && !self.backlog.load(Ordering::Acquire)
            && self.load.load(Ordering::Acquire) < self.load_max
    }

    /// Says how many runs are driven here or wait for it.
    pub(crate) fn set_load(&self, load: usize) {
        self.load.store(load, Ordering::Release);
    }

    /// Whether there may be runs that nobody drives.
    pub(crate) fn has_backlog(&self) -> bool {
        self.backlog.load(Ordering::Acquire)
    }

    pub(crate) fn set_backlog(&self, backlog: bool) {
        self.backlog.store(backlog, Ordering::Release);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// No further run is taken.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Has a run driven that is claimed here; a crash right after is mended by whoever finds it.
    pub(crate) async fn wake(&self, claim: Claim) {
        let letter = Letter {
            run: claim.run,
            claim: Some(claim),
            order: Order::Drive,
        };
        if self.letters.send(letter).await.is_err() {
            tracing::debug!(run = %claim.run, "not woken: the service is stopping");
        }
    }

    /// Asks an actor of this replica.
    async fn ask_here(&self, run: RunId, claim: Option<Claim>, request: Request) -> Answer {
        let (reply, answer) = oneshot::channel();
        let letter = Letter {
            run,
            claim,
            order: Order::Answer(request, Reply::Caller(reply)),
        };
        if self.letters.send(letter).await.is_err() {
            // There is no supervisor any more.
            self.stop();
            return Answer::Elsewhere;
        }
        // An actor that ends with letters unanswered has stopped.
        answer.await.unwrap_or(Answer::Elsewhere)
    }
}

/// Which way a request goes.
enum Way {
    Here(Claim),
    Stored(Uuid),
}

/// Asks whoever drives the run, and waits until the answer is stored.
///
/// # Errors
/// What the actor says; `Unavailable` when nobody answers, and then nothing was done.
pub(crate) async fn ask(ctx: &Ctx, run: RunId, request: Request) -> Result<(), Error> {
    let mut claim = None;
    loop {
        if let Answer::Done(done) = ctx.driver.ask_here(run, claim, request).await {
            return done;
        }
        let mut answers = ctx.db.signals().subscribe(ANSWERS);
        match way(ctx, run, request).await? {
            Way::Here(claimed) => claim = Some(claimed),
            Way::Stored(id) => {
                let patience = if ctx.driver.is_stopping() {
                    LAST_PATIENCE
                } else {
                    PATIENCE
                };
                let deadline = Instant::now() + patience;
                loop {
                    if let Some(answer) = answer_of(ctx, id, Instant::now() >= deadline).await? {
                        return answer.map_err(|refusal| refused(run, refusal));
                    }
                    tokio::select! {
                        () = answers.changed() => {}
                        () = tokio::time::sleep(LOOK) => {}
                    }
                }
            }
        }
    }
}

/// Claims the run if nobody drives it; else leaves a request for its driver.
async fn way(ctx: &Ctx, run: RunId, request: Request) -> Result<Way, Error> {
    loop {
        let mut tx = ctx.db.begin_write().await?;
        let found = store::claims::find(&mut tx, run)
            .await?
            .ok_or_else(|| runs::missing(run))?;
        if ctx.driver.is_stopping() || is_driven_elsewhere(ctx, &mut tx, &found.owner).await? {
            let id = ctx.ids.uuid();
            store::requests::insert(&mut tx, id, run, request, ctx.now()).await?;
            tx.signal(REQUESTS);
            tx.commit().await?;
            return Ok(Way::Stored(id));
        }
        if found.owner == ctx.replica.id {
            return Ok(Way::Here(found.claim));
        }
        if let Some(claim) = store::claims::claim(&mut tx, &found, &ctx.replica.id).await? {
            tx.commit().await?;
            return Ok(Way::Here(claim));
        }
    }
}

/// Whether another replica that is alive drives a run of this owner.
pub(crate) async fn is_driven_elsewhere(
    ctx: &Ctx,
    tx: &mut impl ferroflow_db::Read,
    owner: &str,
) -> Result<bool, Error> {
    if owner.is_empty() || owner == ctx.replica.id || ctx.replica.alone {
        return Ok(false);
    }
    Ok(lease::is_held(tx, &lease_of(owner), ctx.now()).await?)
}

/// The answer to a stored request, if there is one; the `last` time the request is taken back.
async fn answer_of(ctx: &Ctx, id: Uuid, last: bool) -> Result<Option<Result<(), Refusal>>, Error> {
    let mut tx = ctx.db.begin_read().await?;
    let answer = store::requests::answer_of(&mut tx, id).await?;
    drop(tx);
    if answer.is_none() && !last {
        return Ok(None);
    }
    let mut tx = ctx.db.begin_write().await?;
    if answer.is_none() && store::requests::withdraw(&mut tx, id).await? {
        tx.commit().await?;
        return Err(Error::new(
            ErrorKind::Unavailable,
            "DRIVER_SILENT",
            "the replica that drives the run does not answer, try again",
        ));
    }
    let answer = match answer {
        Some(answer) => Some(answer),
        None => store::requests::answer_of(&mut tx, id).await?,
    };
    store::requests::remove_answered(&mut tx, id).await?;
    tx.commit().await?;
    Ok(answer)
}

/// A refusal as its caller reads it.
pub(crate) fn refused(run: RunId, refusal: Refusal) -> Error {
    match refusal {
        Refusal::Missing => runs::missing(run),
        Refusal::Ended(status) => {
            let status = status.as_str();
            let message = format!("run {run} cannot be terminated: it is {status}");
            Error::invalid("RUN_ENDED", message)
        }
        Refusal::NotRetryable(status) => {
            let status = status.as_str();
            let message = format!(
                "run {run} cannot be retried: it is {status}, and only failed or canceled runs can"
            );
            Error::new(ErrorKind::Conflict, "RUN_NOT_RETRYABLE", message)
        }
    }
}
