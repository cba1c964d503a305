//! One partition's events, worked on one after the other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::Message as _;
use rdkafka::message::OwnedMessage;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::super::dead_letters::{DeadLetters, topic_of};
use super::super::received::ReceivedEvent;
use super::{ConsumerOptions, Delivery, Failure, Handler};

/// A lane with more is full: its partition is paused until half of it is done.
const MESSAGES: usize = 1000;
const BYTES: usize = 8 << 20;

/// A partition's queue, between the thread that polls and the task that works.
pub(super) struct Lane {
    pub(super) topic: String,
    pub(super) partition: i32,
    queue: Mutex<Queue>,
    filled: Notify,
    /// The offset after the last event that is done; -1 for none.
    done: AtomicI64,
    /// Whether the partition is paused; only the thread that polls changes it.
    pub(super) paused: AtomicBool,
    /// Tells the task to end after the event at hand.
    pub(super) stop: CancellationToken,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<OwnedMessage>,
    bytes: usize,
}

impl Lane {
    pub(super) fn new(topic: String, partition: i32) -> Self {
        Self {
            topic,
            partition,
            queue: Mutex::default(),
            filled: Notify::new(),
            done: AtomicI64::new(-1),
            paused: AtomicBool::new(false),
            stop: CancellationToken::new(),
        }
    }

    /// Adds a message; whether the lane is full now.
    pub(super) fn push(&self, message: OwnedMessage) -> bool {
        let mut queue = self.queue();
        queue.bytes += size(&message);
        queue.messages.push_back(message);
        let full = queue.messages.len() >= MESSAGES || queue.bytes >= BYTES;
        drop(queue);
        // A permit stays if nobody waits yet, so a message that comes between `pop` and `notified` is
        // not missed.
        self.filled.notify_one();
        full
    }

    /// Whether there is room again.
    pub(super) fn has_room(&self) -> bool {
        let queue = self.queue();
        queue.messages.len() <= MESSAGES / 2 && queue.bytes <= BYTES / 2
    }

    /// Where the group goes on, if anything was done.
    pub(super) fn done(&self) -> Option<i64> {
        Some(self.done.load(Ordering::Acquire)).filter(|done| *done >= 0)
    }

    fn pop(&self) -> Option<OwnedMessage> {
        let mut queue = self.queue();
        let message = queue.messages.pop_front()?;
        queue.bytes = queue.bytes.saturating_sub(size(&message));
        Some(message)
    }

    /// The next message; `None` when the lane is to end.
    async fn next(&self) -> Option<OwnedMessage> {
        loop {
            // Before the queue: what is still in there belongs to the next owner of the partition.
            if self.stop.is_cancelled() {
                return None;
            }
            if let Some(message) = self.pop() {
                return Some(message);
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = self.filled.notified() => {}
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(message: &OwnedMessage) -> usize {
    message.payload().map_or(0, <[u8]>::len)
}

/// What works on every lane of a consumer.
pub(super) struct Worker<H> {
    pub(super) handler: Arc<H>,
    pub(super) dead_letters: DeadLetters,
    pub(super) options: ConsumerOptions,
}

/// A message that is given up.
struct Dead {
    reason: String,
    attempts: u32,
}

impl<H: Handler> Worker<H> {
    /// Works until the lane is to end.
    pub(super) async fn work(self: Arc<Self>, lane: Arc<Lane>) {
        while let Some(message) = lane.next().await {
            if !self.process(&lane, &message).await {
                return;
            }
            // Kafka's committed offset is that of the next message to read.
            lane.done.store(message.offset() + 1, Ordering::Release);
        }
    }

    /// Handles one message until it succeeds or is a dead letter; `false` if the lane is to end before.
    async fn process(&self, lane: &Lane, message: &OwnedMessage) -> bool {
        let event = match ReceivedEvent::of(message) {
            Ok(event) => event,
            // No attempt will read it: it is a dead letter at once.
            Err(undecodable) => {
                let dead = Dead {
                    reason: undecodable.to_string(),
                    attempts: 0,
                };
                return self.bury(lane, message, dead).await;
            }
        };
        let mut delivery = Delivery {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            attempt: 1,
            event,
        };
        loop {
            let (reason, counts) = match self.handler.handle(&delivery).await {
                Ok(()) => return true,
                Err(Failure::Poison(reason)) => (reason, None),
                Err(Failure::Again(reason)) => (reason, Some(true)),
                Err(Failure::Unavailable(reason)) => (reason, Some(false)),
            };
            let attempt = delivery.attempt;
            if counts.is_none() || counts == Some(true) && attempt >= self.options.attempts {
                let dead = Dead {
                    reason,
                    attempts: attempt,
                };
                return self.bury(lane, message, dead).await;
            }
            tracing::warn!(
                topic = delivery.topic,
                partition = delivery.partition,
                offset = delivery.offset,
                id = delivery.event.id,
                attempt,
                reason,
                "an event was not handled, trying again"
            );
            if !self.pause(lane, attempt).await {
                return false;
            }
            // What is away is no fault of the event: only its own failures count.
            delivery.attempt += u32::from(counts == Some(true));
        }
    }

    /// Sends a message to the dead letters, for as long as it takes; whether it is there.
    async fn bury(&self, lane: &Lane, message: &OwnedMessage, dead: Dead) -> bool {
        let Dead { reason, attempts } = dead;
        tracing::error!(
            topic = lane.topic,
            partition = lane.partition,
            offset = message.offset(),
            attempts,
            reason,
            "an event is given up and goes to {}",
            topic_of(&lane.topic)
        );
        let mut tries = 0;
        loop {
            tries += 1;
            match self.dead_letters.send(message, &reason, attempts).await {
                Ok(()) => return true,
                Err(error) => {
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(%error, source, "a dead letter is not taken, trying again");
                }
            }
            if !self.pause(lane, tries).await {
                return false;
            }
        }
    }

    /// Waits before the next attempt; whether there is to be one.
    async fn pause(&self, lane: &Lane, attempt: u32) -> bool {
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1));
        let pause = self.options.backoff.saturating_mul(doubled);
        tokio::select! {
            () = lane.stop.cancelled() => false,
            () = tokio::time::sleep(pause.min(self.options.backoff_max)) => true,
        }
    }
}
