//! A member's partitions: they come and go with rebalances, fill, pause, and are committed.
//!
//! Everything here runs on the thread that polls, callbacks of librdkafka too, so no offset is
//! committed while its partition goes to another member.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::KafkaResult;
use rdkafka::message::OwnedMessage;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Message as _, Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::super::KafkaError;
use super::partition_queue::PartitionQueue;

/// How often what is done is committed; a crash repeats what was done since.
const COMMIT_EVERY: Duration = Duration::from_millis(500);

/// How long the event at hand may go on when its partition is revoked.
/// Polling stands still meanwhile, which a group bears for `max.poll.interval.ms`: five minutes unless
/// it is set.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(30);

type Key = (String, i32);
type Spawn = Box<dyn Fn(Arc<PartitionQueue>) -> JoinHandle<()> + Send + Sync>;

/// The context of a consumer.
pub(super) struct Group {
    name: String,
    runtime: Handle,
    spawn: Spawn,
    state: Mutex<State>,
}

struct State {
    partitions: BTreeMap<Key, AssignedPartition>,
    committed_at: Instant,
}

struct AssignedPartition {
    queue: Arc<PartitionQueue>,
    task: JoinHandle<()>,
    committed: Option<i64>,
}

impl Group {
    pub(super) fn new(name: String, runtime: Handle, spawn: Spawn) -> Self {
        Self {
            name,
            runtime,
            spawn,
            state: Mutex::new(State {
                partitions: BTreeMap::new(),
                committed_at: Instant::now(),
            }),
        }
    }

    /// Puts a message into its queue, and pauses its partition when that is full.
    pub(super) fn push(
        &self,
        consumer: &BaseConsumer<Self>,
        message: OwnedMessage,
    ) -> Result<(), KafkaError> {
        let key = (message.topic().to_owned(), message.partition());
        let state = self.state();
        // A message of a partition that has gone meanwhile belongs to its next owner.
        let Some(assigned) = state.partitions.get(&key) else {
            return Ok(());
        };
        if assigned.queue.push(message) && !assigned.queue.paused.load(Ordering::Relaxed) {
            consumer.pause(&partition_list([(&key, None)])?)?;
            assigned.queue.paused.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Resumes what takes messages again, and commits now and then.
    pub(super) fn resume_and_commit(
        &self,
        consumer: &BaseConsumer<Self>,
    ) -> Result<(), KafkaError> {
        let mut state = self.state();
        for (key, assigned) in &state.partitions {
            if assigned.task.is_finished() {
                return Err(KafkaError::Stopped {
                    group: self.name.clone(),
                    problem: format!("the handler panicked on partition {} of {}", key.1, key.0),
                });
            }
            if assigned.queue.paused.load(Ordering::Relaxed) && assigned.queue.has_capacity() {
                consumer.resume(&partition_list([(key, None)])?)?;
                assigned.queue.paused.store(false, Ordering::Relaxed);
            }
        }
        if state.committed_at.elapsed() >= COMMIT_EVERY {
            state.committed_at = Instant::now();
            let offsets: Vec<_> = state
                .partitions
                .iter_mut()
                .filter_map(|(key, assigned)| Some((key.clone(), assigned.offset_to_commit()?)))
                .collect();
            // The callback of a commit takes the lock as well.
            drop(state);
            commit(consumer, &offsets, CommitMode::Async);
        }
        Ok(())
    }

    /// Ends every queue and commits what is done.
    pub(super) fn stop_all(&self, consumer: &BaseConsumer<Self>) {
        let keys: Vec<Key> = self.state().partitions.keys().cloned().collect();
        self.revoke(consumer, &keys);
    }

    /// Ends queues after the event at hand, and commits what is done unless others own it already.
    fn revoke(&self, consumer: &BaseConsumer<Self>, keys: &[Key]) {
        let mut revoked = Vec::new();
        let mut state = self.state();
        for key in keys {
            if let Some(assigned) = state.partitions.remove(key) {
                assigned.queue.stop.cancel();
                revoked.push((key.clone(), assigned));
            }
        }
        drop(state);
        // All queues were stopped before the first one is waited for, so they share one wait.
        let deadline = Instant::now() + REVOKE_TIMEOUT;
        let mut offsets = Vec::new();
        for (key, mut assigned) in revoked {
            // A thread of `spawn_blocking` may wait for a task of the runtime.
            let ended = self.runtime.block_on(async {
                let remaining = deadline.saturating_duration_since(Instant::now());
                let ended = tokio::time::timeout(remaining, &mut assigned.task).await;
                if ended.is_err() {
                    assigned.task.abort();
                    // Once it is gone, what it did is known for certain.
                    return (&mut assigned.task).await;
                }
                ended.unwrap_or(Ok(()))
            });
            if let Err(error) = ended {
                tracing::warn!(
                    topic = key.0, partition = key.1, %error,
                    "an event was given up half way; it comes again"
                );
            }
            offsets.extend(assigned.offset_to_commit().map(|offset| (key, offset)));
        }
        if !consumer.assignment_lost() {
            commit(consumer, &offsets, CommitMode::Sync);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AssignedPartition {
    /// The offset to commit, when it is another one than the last.
    fn offset_to_commit(&mut self) -> Option<i64> {
        let next_offset = self.queue.next_offset();
        if next_offset == self.committed {
            return None;
        }
        self.committed = next_offset;
        next_offset
    }
}

impl ClientContext for Group {}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            let keys = keys(partitions);
            tracing::info!(group = self.name, ?keys, "partitions go");
            self.revoke(consumer, &keys);
        }
    }

    fn post_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                // With `cooperative-sticky` these are only the partitions that are new here: the
                // queues of the others go on.
                let keys = keys(partitions);
                tracing::info!(group = self.name, ?keys, "partitions come");
                let mut state = self.state();
                for key in keys {
                    let queue = Arc::new(PartitionQueue::new(key.0.clone(), key.1));
                    let assigned = AssignedPartition {
                        task: (self.spawn)(Arc::clone(&queue)),
                        queue,
                        committed: None,
                    };
                    state.partitions.insert(key, assigned);
                }
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => tracing::warn!(%error, "a rebalance failed"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            // All is committed again with the next one; until then a crash repeats more.
            for assigned in self.state().partitions.values_mut() {
                assigned.committed = None;
            }
            tracing::warn!(%error, "what is done could not be committed");
        }
    }
}

fn keys(partitions: &TopicPartitionList) -> Vec<Key> {
    let elements = partitions.elements();
    let keys = elements
        .iter()
        .map(|one| (one.topic().to_owned(), one.partition()));
    keys.collect()
}

fn partition_list<'a>(
    offsets: impl IntoIterator<Item = (&'a Key, Option<i64>)>,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (key, offset) in offsets {
        let offset = offset.map_or(Offset::Invalid, Offset::Offset);
        list.add_partition_offset(&key.0, key.1, offset)?;
    }
    Ok(list)
}

fn commit(consumer: &BaseConsumer<Group>, offsets: &[(Key, i64)], mode: CommitMode) {
    if offsets.is_empty() {
        return;
    }
    let committed = partition_list(offsets.iter().map(|(key, offset)| (key, Some(*offset))))
        .and_then(|list| consumer.commit(&list, mode));
    match committed {
        Ok(()) => {}
        // There was nothing to commit.
        Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::NoOffset) => {}
        Err(error) => tracing::warn!(%error, "what is done could not be committed; it comes again"),
    }
}
