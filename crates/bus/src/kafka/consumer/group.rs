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
use super::lane::Lane;

/// How often what is done is committed; a crash repeats what was done since.
const COMMIT_EVERY: Duration = Duration::from_millis(500);

/// How long the event at hand may go on when its partition is given away.
/// Polling stands still meanwhile, which a group bears for `max.poll.interval.ms`: five minutes unless
/// it is set.
const PATIENCE: Duration = Duration::from_secs(30);

type Key = (String, i32);
type Spawn = Box<dyn Fn(Arc<Lane>) -> JoinHandle<()> + Send + Sync>;

/// The context of a consumer.
pub(super) struct Group {
    name: String,
    runtime: Handle,
    spawn: Spawn,
    state: Mutex<State>,
}

struct State {
    lanes: BTreeMap<Key, Working>,
    committed_at: Instant,
}

struct Working {
    lane: Arc<Lane>,
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
                lanes: BTreeMap::new(),
                committed_at: Instant::now(),
            }),
        }
    }

    /// Takes a message to its lane, and pauses its partition when that is full.
    pub(super) fn push(
        &self,
        consumer: &BaseConsumer<Self>,
        message: OwnedMessage,
    ) -> Result<(), KafkaError> {
        let key = (message.topic().to_owned(), message.partition());
        let state = self.state();
        // A message of a partition that has gone meanwhile belongs to its next owner.
        let Some(working) = state.lanes.get(&key) else {
            return Ok(());
        };
        if working.lane.push(message) && !working.lane.paused.load(Ordering::Relaxed) {
            consumer.pause(&list([(&key, None)])?)?;
            working.lane.paused.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Resumes what has room again, and commits now and then.
    pub(super) fn tend(&self, consumer: &BaseConsumer<Self>) -> Result<(), KafkaError> {
        let mut state = self.state();
        for (key, working) in &state.lanes {
            if working.task.is_finished() {
                return Err(KafkaError::Stopped {
                    group: self.name.clone(),
                    problem: format!("the handler panicked on partition {} of {}", key.1, key.0),
                });
            }
            if working.lane.paused.load(Ordering::Relaxed) && working.lane.has_room() {
                consumer.resume(&list([(key, None)])?)?;
                working.lane.paused.store(false, Ordering::Relaxed);
            }
        }
        if state.committed_at.elapsed() >= COMMIT_EVERY {
            state.committed_at = Instant::now();
            let new: Vec<_> = state
                .lanes
                .iter_mut()
                .filter_map(|(key, working)| Some((key.clone(), working.news()?)))
                .collect();
            // The callback of a commit takes the lock as well.
            drop(state);
            commit(consumer, &new, CommitMode::Async);
        }
        Ok(())
    }

    /// Ends every lane and commits what is done.
    pub(super) fn finish(&self, consumer: &BaseConsumer<Self>) {
        let keys: Vec<Key> = self.state().lanes.keys().cloned().collect();
        self.give_away(consumer, &keys);
    }

    /// Ends lanes after the event at hand, and commits what is done unless others own it already.
    fn give_away(&self, consumer: &BaseConsumer<Self>, keys: &[Key]) {
        let mut leaving = Vec::new();
        let mut state = self.state();
        for key in keys {
            if let Some(working) = state.lanes.remove(key) {
                working.lane.stop.cancel();
                leaving.push((key.clone(), working));
            }
        }
        drop(state);
        // All lanes were told to stop before the first one is waited for, so they share one wait.
        let until = Instant::now() + PATIENCE;
        let mut done = Vec::new();
        for (key, mut working) in leaving {
            // A thread of `spawn_blocking` may wait for a task of the runtime.
            let ended = self.runtime.block_on(async {
                let left = until.saturating_duration_since(Instant::now());
                let ended = tokio::time::timeout(left, &mut working.task).await;
                if ended.is_err() {
                    working.task.abort();
                    // Once it is gone, what it did is known for certain.
                    return (&mut working.task).await;
                }
                ended.unwrap_or(Ok(()))
            });
            if let Err(error) = ended {
                tracing::warn!(
                    topic = key.0, partition = key.1, %error,
                    "an event was given up half way; it comes again"
                );
            }
            done.extend(working.news().map(|offset| (key, offset)));
        }
        if !consumer.assignment_lost() {
            commit(consumer, &done, CommitMode::Sync);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Working {
    /// The offset to commit, when it is another one than the last.
    fn news(&mut self) -> Option<i64> {
        let done = self.lane.done();
        if done == self.committed {
            return None;
        }
        self.committed = done;
        done
    }
}

impl ClientContext for Group {}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            let keys = keys(partitions);
            tracing::info!(group = self.name, ?keys, "partitions go");
            self.give_away(consumer, &keys);
        }
    }

    fn post_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                // With `cooperative-sticky` these are only the partitions that are new here: lanes of
                // the others go on.
                let keys = keys(partitions);
                tracing::info!(group = self.name, ?keys, "partitions come");
                let mut state = self.state();
                for key in keys {
                    let lane = Arc::new(Lane::new(key.0.clone(), key.1));
                    let working = Working {
                        task: (self.spawn)(Arc::clone(&lane)),
                        lane,
                        committed: None,
                    };
                    state.lanes.insert(key, working);
                }
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => tracing::warn!(%error, "a rebalance failed"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            // All is committed again with the next one; until then a crash repeats more.
            for working in self.state().lanes.values_mut() {
                working.committed = None;
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

fn list<'a>(
    of: impl IntoIterator<Item = (&'a Key, Option<i64>)>,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (key, offset) in of {
        let offset = offset.map_or(Offset::Invalid, Offset::Offset);
        list.add_partition_offset(&key.0, key.1, offset)?;
    }
    Ok(list)
}

fn commit(consumer: &BaseConsumer<Group>, done: &[(Key, i64)], mode: CommitMode) {
    if done.is_empty() {
        return;
    }
    let committed = list(done.iter().map(|(key, offset)| (key, Some(*offset))))
        .and_then(|list| consumer.commit(&list, mode));
    match committed {
        Ok(()) => {}
        // There was nothing to commit.
        Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::NoOffset) => {}
        Err(error) => tracing::warn!(%error, "what is done could not be committed; it comes again"),
    }
}
