//! How use cases reach the actor that drives an object, in this replica or in another.
//!
//! In this one it gets a message. In another one it is asked through the database: the request is a
//! row that the driver answers in the transaction of the change, so a crash of either loses nothing
//! and repeats nothing.

use ferroflow_db::WriteTx;
use ferroflow_types::{Error, ErrorKind};
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use crate::message::{Answer, Command, Message, Reply};
use crate::request::PendingRequestOf;
use crate::{Claim, ClaimRow, Owned, Ownership, claim, request};

/// Requests that are read at once.
const REQUESTS_MAX: i64 = 200;

/// Which way a request goes.
enum Route<K> {
    Here(Claim<K>),
    Stored(Uuid),
}

impl<O: Owned> Ownership<O> {
    /// Asks whoever drives the object, and waits until the answer is stored.
    ///
    /// # Errors
    /// What the actor says. `Unavailable` when nobody answers in time or the actor failed before it
    /// answered; some of what was asked for may have been done then.
    pub async fn ask(
        &self,
        key: O::Key,
        request: O::Request,
    ) -> Result<Result<(), O::Refusal>, Error> {
        let mut claim = None;
        loop {
            if let Answer::Done(result) = self.ask_here(key, claim, request.clone()).await {
                return result;
            }
            // Before the request is stored, so that its answer is not missed.
            let mut answers = self.member.db.signals().subscribe(O::TOPICS.answers);
            let id = match self.route(key, &request).await? {
                None => return Ok(Err(O::missing())),
                Some(Route::Here(claimed)) => {
                    claim = Some(claimed);
                    continue;
                }
                Some(Route::Stored(id)) => id,
            };
            let timing = self.member.timing;
            // A replica that stops has a few seconds left for its calls.
            let timeout = if self.is_stopping() {
                timing.answer_while_stopping
            } else {
                timing.answer
            };
            let deadline = Instant::now() + timeout;
            loop {
                let deadline_passed = Instant::now() >= deadline;
                if let Some(answer) = self.read_answer(id, deadline_passed).await? {
                    return Ok(answer);
                }
                tokio::select! {
                    () = answers.changed() => {}
                    // A signal may be lost.
                    () = tokio::time::sleep(timing.poll) => {}
                }
            }
        }
    }

    /// Asks an actor of this replica.
    async fn ask_here(
        &self,
        key: O::Key,
        claim: Option<Claim<O::Key>>,
        request: O::Request,
    ) -> Answer<O::Refusal> {
        let (reply, answer) = oneshot::channel();
        let message = Message {
            key,
            claim,
            command: Command::Answer(request, Reply::Caller(reply)),
        };
        if self.messages.send(message).await.is_err() {
            // There is no supervisor any more.
            self.stop();
            return Answer::NotDriven;
        }
        match answer.await {
            Ok(answer) => answer,
            // The supervisor closes its inbox before it stops its actors.
            Err(_) if self.messages.is_closed() => Answer::NotDriven,
            // An actor drops a reply otherwise only if it panics. Asked again, it may panic again.
            Err(_) => {
                let one = O::ONE;
                let text =
                    format!("the driver of {one} {key} failed before it answered, try again");
                let failed = Error::new(ErrorKind::Unavailable, "DRIVER_FAILED", text);
                Answer::Done(Err(failed))
            }
        }
    }

    /// Claims the object if nobody drives it, else stores the request for its driver; `None` when
    /// there is no such object.
    async fn route(
        &self,
        key: O::Key,
        request: &O::Request,
    ) -> Result<Option<Route<O::Key>>, Error> {
        loop {
            // Who drives the object is found and claimed in one transaction.
            let mut tx = self.member.db.begin_write().await?;
            let Some(found) = claim::find::<O>(&mut tx, key).await? else {
                return Ok(None);
            };
            let driven_elsewhere = self.member.is_other_alive(&mut tx, &found.owner).await?;
            // A replica that stops claims nothing more: the next driver answers.
            if driven_elsewhere || self.is_stopping() {
                let id = self.ids.uuid();
                request::insert::<O>(&mut tx, id, key, request, self.member.now()).await?;
                tx.signal(O::TOPICS.requests);
                tx.commit().await?;
                return Ok(Some(Route::Stored(id)));
            }
            if found.owner == self.member.id() {
                return Ok(Some(Route::Here(found.claim)));
            }
            // If another one was faster, the object is looked at anew.
            if let Some(claim) = claim::claim::<O>(&mut tx, &found, self.member.id()).await? {
                tx.commit().await?;
                return Ok(Some(Route::Here(claim)));
            }
        }
    }

    /// The answer to a stored request, if there is one; once the deadline has passed, the
    /// request is withdrawn.
    async fn read_answer(
        &self,
        id: Uuid,
        deadline_passed: bool,
    ) -> Result<Option<Result<(), O::Refusal>>, Error> {
        let mut tx = self.member.db.begin_read().await?;
        let answer = request::answer_of::<O>(&mut tx, id).await?;
        drop(tx);
        if answer.is_none() && !deadline_passed {
            return Ok(None);
        }
        let mut tx = self.member.db.begin_write().await?;
        // Only a request without an answer can be withdrawn, and one that was withdrawn cannot be
        // answered: the caller and the driver never disagree.
        if answer.is_none() && request::withdraw::<O>(&mut tx, id).await? {
            tx.commit().await?;
            let one = O::ONE;
            return Err(Error::new(
                ErrorKind::Unavailable,
                "DRIVER_SILENT",
                format!("the replica that drives the {one} does not answer, try again"),
            ));
        }
        let answer = match answer {
            Some(answer) => Some(answer),
            // It was answered between reading and withdrawing.
            None => request::answer_of::<O>(&mut tx, id).await?,
        };
        request::remove_answered::<O>(&mut tx, id).await?;
        tx.commit().await?;
        Ok(answer)
    }

    /// Requests that this replica is to answer, with the claims to do so. Those about objects that are
    /// gone are answered at once.
    pub(crate) async fn requests(
        &self,
    ) -> Result<Vec<(PendingRequestOf<O>, Claim<O::Key>)>, Error> {
        let mut tx = self.member.db.begin_read().await?;
        let pending = request::pending::<O>(&mut tx, REQUESTS_MAX).await?;
        let (mut own_requests, mut orphaned) = (Vec::new(), Vec::new());
        for request in pending {
            match request.found.clone() {
                Some(found) if found.owner == self.member.id() => {
                    own_requests.push((request, found.claim));
                }
                Some(found) => {
                    // The request of a dead driver is answered by whoever claims its object first.
                    if !self.member.is_other_alive(&mut tx, &found.owner).await? {
                        orphaned.push((request, Some(found)));
                    }
                }
                None => orphaned.push((request, None)),
            }
        }
        drop(tx);
        for (request, found) in orphaned {
            if let Some(claim) = self.adopt(&request, found).await? {
                own_requests.push((request, claim));
            }
        }
        Ok(own_requests)
    }

    /// Claims the object of a request, or answers that there is none.
    async fn adopt(
        &self,
        request: &PendingRequestOf<O>,
        found: Option<ClaimRow<O::Key>>,
    ) -> Result<Option<Claim<O::Key>>, Error> {
        let mut tx = self.member.db.begin_write().await?;
        let claim = if let Some(found) = found {
            claim::claim::<O>(&mut tx, &found, self.member.id()).await?
        } else {
            let (answer, now) = (Err(O::missing()), self.member.now());
            if request::answer::<O>(&mut tx, request.id, answer, now).await? {
                tx.signal(O::TOPICS.answers);
            }
            None
        };
        tx.commit().await?;
        Ok(claim)
    }

    /// Answers a stored request in the transaction of the change that it asked for.
    ///
    /// # Errors
    /// `Conflict` when it was withdrawn: roll back, as its caller was told that nothing was done.
    pub async fn answer(
        &self,
        tx: &mut WriteTx,
        id: Uuid,
        answer: Result<(), O::Refusal>,
    ) -> Result<(), Error> {
        if !request::answer::<O>(tx, id, answer, self.member.now()).await? {
            let message = "the request was taken back";
            return Err(Error::new(
                ErrorKind::Conflict,
                "REQUEST_WITHDRAWN",
                message,
            ));
        }
        tx.signal(O::TOPICS.answers);
        Ok(())
    }

    /// Answers a stored request that is not followed; `false` if the claim is lost, and then its next
    /// driver answers.
    pub(crate) async fn refuse(
        &self,
        claim: Claim<O::Key>,
        id: Uuid,
        refusal: O::Refusal,
    ) -> Result<bool, Error> {
        let mut tx = self.member.db.begin_write().await?;
        let found = claim::find::<O>(&mut tx, claim.key).await?;
        // An object that is gone has no other driver, so the refusal is stored.
        if found.is_some_and(|found| found.claim != claim) {
            return Ok(false);
        }
        self.answer(&mut tx, id, Err(refusal)).await?;
        tx.commit().await?;
        Ok(true)
    }
}
