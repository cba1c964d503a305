//! One partition's events, worked on one after the other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::Message as _;
use rdkafka::message::OwnedMessage;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::super::dead_letters::{DeadLetters, dead_letter_topic};
use super::super::received::ReceivedEvent;
use super::{ConsumerOptions, Delivery, Failure, Handler};

/// A queue with more is full: its partition is paused until half of it is done.
const MESSAGES_MAX: usize = 1000;
const BYTES_MAX: usize = 8 << 20;

/// A partition's queue, between the thread that polls and the task that works.
pub(super) struct PartitionQueue {
    pub(super) topic: String,
    pub(super) partition: i32,
    buffer: Mutex<Buffer>,
    filled: Notify,
    /// The offset after the last event that is done; -1 for none.
    next_offset: AtomicI64,
    /// Whether the partition is paused; only the thread that polls changes it.
    pub(super) paused: AtomicBool,
    /// Tells the task to end after the event at hand.
    pub(super) stop: CancellationToken,
}

#[derive(Default)]
struct Buffer {
    messages: VecDeque<OwnedMessage>,
    bytes: usize,
}

impl PartitionQueue {
    pub(super) fn new(topic: String, partition: i32) -> Self {
        Self {
            topic,
            partition,
            buffer: Mutex::default(),
            filled: Notify::new(),
            next_offset: AtomicI64::new(-1),
            paused: AtomicBool::new(false),
            stop: CancellationToken::new(),
        }
    }

    /// Adds a message; whether the queue is full now.
    pub(super) fn push(&self, message: OwnedMessage) -> bool {
        let mut buffer = self.buffer();
        buffer.bytes += size(&message);
        buffer.messages.push_back(message);
        let full = buffer.messages.len() >= MESSAGES_MAX || buffer.bytes >= BYTES_MAX;
        drop(buffer);
        // A permit stays if nobody waits yet, so a message that comes between `pop` and `notified` is
        // not missed.
        self.filled.notify_one();
        full
    }

    /// Whether it takes messages again.
    pub(super) fn has_capacity(&self) -> bool {
        let buffer = self.buffer();
        buffer.messages.len() <= MESSAGES_MAX / 2 && buffer.bytes <= BYTES_MAX / 2
    }

    /// Where the group goes on, if anything was done.
    pub(super) fn next_offset(&self) -> Option<i64> {
        Some(self.next_offset.load(Ordering::Acquire)).filter(|next_offset| *next_offset >= 0)
    }

    fn pop(&self) -> Option<OwnedMessage> {
        let mut buffer = self.buffer();
        let message = buffer.messages.pop_front()?;
        buffer.bytes = buffer.bytes.saturating_sub(size(&message));
        Some(message)
    }

    /// The next message; `None` when the queue is to end.
    async fn next(&self) -> Option<OwnedMessage> {
        loop {
            // Before the buffer: what is still in there belongs to the next owner of the partition.
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

    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(message: &OwnedMessage) -> usize {
    message.payload().map_or(0, <[u8]>::len)
}

/// What works on every queue of a consumer.
pub(super) struct Worker<H> {
    pub(super) handler: Arc<H>,
    pub(super) dead_letters: DeadLetters,
    pub(super) options: ConsumerOptions,
}

/// A message that is given up.
struct DeadLetter {
    reason: String,
    attempts: u32,
}

impl<H: Handler> Worker<H> {
    /// Works until the queue is to end.
    pub(super) async fn work(self: Arc<Self>, queue: Arc<PartitionQueue>) {
        while let Some(message) = queue.next().await {
            if !self.process(&queue, &message).await {
                return;
            }
            // Kafka's committed offset is that of the next message to read.
            queue
                .next_offset
                .store(message.offset() + 1, Ordering::Release);
        }
    }

    /// Handles one message until it succeeds or is a dead letter; `false` if the queue ends before.
    async fn process(&self, queue: &PartitionQueue, message: &OwnedMessage) -> bool {
        let event = match ReceivedEvent::of(message) {
            Ok(event) => event,
            // No attempt will read it: it is a dead letter at once.
            Err(error) => {
                let dead_letter = DeadLetter {
                    reason: error.to_string(),
                    attempts: 0,
                };
                return self.send_to_dead_letters(queue, message, dead_letter).await;
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
                Err(Failure::Retry(reason)) => (reason, Some(true)),
                Err(Failure::Unavailable(reason)) => (reason, Some(false)),
            };
            let attempt = delivery.attempt;
            if counts.is_none() || counts == Some(true) && attempt >= self.options.attempts {
                let dead_letter = DeadLetter {
                    reason,
                    attempts: attempt,
                };
                return self.send_to_dead_letters(queue, message, dead_letter).await;
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
            if !self.pause(queue, attempt).await {
                return false;
            }
            // What is away is no fault of the event: only its own failures count.
            delivery.attempt += u32::from(counts == Some(true));
        }
    }

    /// Sends a message to the dead letters, for as long as it takes; whether it is there.
    async fn send_to_dead_letters(
        &self,
        queue: &PartitionQueue,
        message: &OwnedMessage,
        dead_letter: DeadLetter,
    ) -> bool {
        let DeadLetter { reason, attempts } = dead_letter;
        tracing::error!(
            topic = queue.topic,
            partition = queue.partition,
            offset = message.offset(),
            attempts,
            reason,
            "an event is given up and goes to {}",
            dead_letter_topic(&queue.topic)
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
            if !self.pause(queue, tries).await {
                return false;
            }
        }
    }

    /// Waits before the next attempt; whether there is to be one.
    async fn pause(&self, queue: &PartitionQueue, attempt: u32) -> bool {
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1));
        let pause = self.options.backoff.saturating_mul(doubled);
        tokio::select! {
            () = queue.stop.cancelled() => false,
            () = tokio::time::sleep(pause.min(self.options.backoff_max)) => true,
        }
    }
}
