//! Signals: that something changed, told to whoever waits for it, here and in other processes.
//!
//! A signal carries nothing; who hears it looks for what changed. It may come twice, and while a
//! connection is away it does not come: who must not miss a change looks once in a while as well.
//! Between processes it is PostgreSQL's `NOTIFY`, sent after the commit by a task of its own, so
//! that a transaction pays nothing for it; SQLite has one process only.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sqlx::postgres::PgListener;
use sqlx::{AnyPool, AssertSqlSafe};
use tokio::sync::{mpsc, watch};

use crate::DbError;

/// What a signal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(&'static str);

impl Topic {
    /// A topic; its name is made of letters and underscores.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }
}

/// Something was put into the outbox.
pub const OUTBOX: Topic = Topic::new("outbox");

/// A lease was given back.
pub const LEASES: Topic = Topic::new("leases");

/// PostgreSQL's channel; the topic is in the message.
const CHANNEL: &str = "ferroflow";

/// Signals that wait to be sent; more are left out, which those who look once in a while bear.
const QUEUE_MAX: usize = 1024;

/// The wait before a broken connection is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Topics(Mutex<HashMap<&'static str, watch::Sender<u64>>>);

impl Topics {
    fn with<T>(&self, topic: Topic, work: impl FnOnce(&watch::Sender<u64>) -> T) -> T {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(topics.entry(topic.0).or_default())
    }

    /// Wakes those who wait for a topic of this name, or for any at all.
    fn wake(&self, name: Option<&str>) {
        let topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (topic, count) in &*topics {
            if name.is_none_or(|name| name == *topic) {
                count.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
    }
}

/// The signals of one database.
#[derive(Clone)]
pub struct Signals {
    topics: Arc<Topics>,
    /// To other processes, where there may be some.
    outbound: Option<mpsc::Sender<Topic>>,
}

impl Signals {
    /// Signals inside this process.
    pub(crate) fn local() -> Self {
        Self {
            topics: Arc::default(),
            outbound: None,
        }
    }

    /// Signals between all processes that use the database at `url`.
    pub(crate) fn shared(url: &str, pool: AnyPool) -> Self {
        let topics = Arc::<Topics>::default();
        let (outbound, queue) = mpsc::channel(QUEUE_MAX);
        // Our own notifications come back to us; the id of this sender tells them apart.
        let sender_id = format!("{:016x}", RandomState::new().build_hasher().finish());
        let receive =
            receive_notifications(url.to_owned(), sender_id.clone(), Arc::downgrade(&topics));
        tokio::spawn(async move {
            let receiver = tokio::spawn(receive);
            send_notifications(pool, sender_id, queue).await;
            receiver.abort();
        });
        Self {
            topics,
            outbound: Some(outbound),
        }
    }

    /// Wakes whoever waits for the topic.
    pub fn raise(&self, topic: Topic) {
        self.topics
            .with(topic, |count| count.send_modify(|c| *c = c.wrapping_add(1)));
        if let Some(outbound) = &self.outbound
            && outbound.try_send(topic).is_err()
        {
            tracing::debug!(topic = topic.0, "a signal is left out");
        }
    }

    /// Hears of the topic from now on.
    pub fn subscribe(&self, topic: Topic) -> Subscription {
        Subscription(self.topics.with(topic, watch::Sender::subscribe))
    }
}

/// Hears of one topic.
pub struct Subscription(watch::Receiver<u64>);

impl Subscription {
    /// Returns once there was a signal since the last time, or since the beginning.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // The database is gone, and nobody will say more.
            std::future::pending::<()>().await;
        }
    }
}

/// Sends signals to other processes, several of one topic as one, until the database is let go of.
async fn send_notifications(pool: AnyPool, sender_id: String, mut queue: mpsc::Receiver<Topic>) {
    while let Some(first) = queue.recv().await {
        let mut topics = BTreeSet::from([first]);
        while let Ok(topic) = queue.try_recv() {
            topics.insert(topic);
        }
        for topic in topics {
            // Made of our own words.
            let statement = format!("NOTIFY {CHANNEL}, '{sender_id} {}'", topic.0);
            let sent = sqlx::query(AssertSqlSafe(statement)).execute(&pool).await;
            if let Err(error) = sent {
                tracing::debug!(%error, topic = topic.0, "a signal cannot be sent");
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }
}

/// Hears the signals of other processes.
async fn receive_notifications(url: String, sender_id: String, topics: Weak<Topics>) {
    loop {
        match listen(&url, &sender_id, &topics).await {
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, "signals cannot be heard, trying again"),
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

async fn listen(url: &str, sender_id: &str, topics: &Weak<Topics>) -> Result<(), DbError> {
    let mut listener = PgListener::connect(url).await?;
    listener.listen(CHANNEL).await?;
    // What was said before is not heard: everybody looks.
    let mut topic_name = None;
    loop {
        let Some(topics) = topics.upgrade() else {
            return Ok(());
        };
        topics.wake(topic_name.as_deref());
        drop(topics);
        topic_name = loop {
            // None when the connection was lost and made again.
            let Some(notification) = listener.try_recv().await? else {
                break None;
            };
            match notification.payload().split_once(' ') {
                Some((from, _)) if from == sender_id => {}
                Some((_, topic)) => break Some(topic.to_owned()),
                None => break None,
            }
        };
    }
}
