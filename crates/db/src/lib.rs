//! One database behind every service: SQLite or PostgreSQL, chosen by the URL.
//!
//! One SQL text serves both: `TEXT`, `BIGINT` and `DOUBLE PRECISION` columns, `$1` placeholders.
//! Reads and writes differ in type: only a [`WriteTx`] can write, and a state change and the event
//! that tells of it ([`WriteTx::publish`]) are one transaction.
//!
//! | module | holds |
//! |---|---|
//! | `sqlite` | one writer with group commit, many readers |
//! | `migrate` | numbered migrations with checksums |
//! | [`lease`] | the right to act for a while, with a fence |
//! | [`lead`] | work that one process at a time does |
//! | [`signal`] | that something changed, told to other processes too |
//! | [`outbox`] | events that wait for the bus |
//! | [`list`] | lists of any table: filter, order, pages |
//! | [`row`] | typed cells out of rows |
//! | [`page`] | opaque page tokens |
//! | `testing` | databases for tests, behind the feature of that name |
#![warn(missing_docs)]

mod error;
pub mod lead;
pub mod lease;
pub mod list;
mod migrate;
pub mod outbox;
pub mod page;
pub mod row;
pub mod signal;
mod sqlite;
#[cfg(feature = "testing")]
pub mod testing;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use ferroflow_types::CloudEvent;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions, install_default_drivers};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, AssertSqlSafe, Transaction};

pub use error::{DbError, ensure_one};
pub use migrate::{Migration, Sql};
use signal::{OUTBOX, Signals, Topic};

/// Connections that PostgreSQL gives one service at most.
const POSTGRES_CONNECTIONS: u32 = 16;

/// How long one waits for a connection; whoever asks is better told by then.
const POSTGRES_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// A database.
#[derive(Clone)]
pub struct Db {
    backend: Backend,
    signals: Signals,
}

#[derive(Clone)]
enum Backend {
    Sqlite {
        readers: AnyPool,
        writer: Arc<sqlite::Writer>,
    },
    Postgres(AnyPool),
}

impl Db {
    /// Opens the database at `url` (`sqlite:PATH` or `postgres://…`) and brings it up to date.
    ///
    /// # Errors
    /// [`DbError::Unavailable`] when it cannot be reached, [`DbError::Migration`] when it was
    /// written by a newer version or a released migration was changed.
    pub async fn open(url: &str, migrations: &'static [Migration]) -> Result<Self, DbError> {
        install_default_drivers();
        let (backend, signals) = if let Some(path) = url.strip_prefix("sqlite:") {
            let (readers, writer) = sqlite::open(path.trim_start_matches("//")).await?;
            (Backend::Sqlite { readers, writer }, Signals::local())
        } else {
            let options: AnyConnectOptions = url.parse()?;
            let pool = AnyPoolOptions::new()
                .max_connections(POSTGRES_CONNECTIONS)
                .acquire_timeout(POSTGRES_ACQUIRE_TIMEOUT);
            let pool = pool.connect_with(options).await?;
            let signals = Signals::shared(url, pool.clone());
            (Backend::Postgres(pool), signals)
        };
        let db = Self { backend, signals };
        db.migrate(migrations).await?;
        Ok(db)
    }

    /// A transaction that only reads.
    pub async fn begin_read(&self) -> Result<ReadTx, DbError> {
        let pool = match &self.backend {
            Backend::Sqlite { readers, .. } => readers,
            Backend::Postgres(pool) => pool,
        };
        Ok(ReadTx {
            tx: pool.begin().await?,
        })
    }

    /// A transaction that writes. On SQLite there is one at a time.
    pub async fn begin_write(&self) -> Result<WriteTx, DbError> {
        let inner = match &self.backend {
            Backend::Sqlite { writer, .. } => Writing::Sqlite(Arc::clone(writer).begin().await?),
            Backend::Postgres(pool) => Writing::Postgres(pool.begin().await?),
        };
        Ok(WriteTx {
            inner,
            topics: Vec::new(),
            signals: self.signals.clone(),
        })
    }

    /// How changes are told to whoever waits for them.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Whether it is PostgreSQL; for the few statements that cannot be the same.
    pub fn is_postgres(&self) -> bool {
        matches!(self.backend, Backend::Postgres(_))
    }

    /// A connection outside transactions, for migrations.
    async fn connection(&self) -> Result<Option<PoolConnection<Any>>, DbError> {
        match &self.backend {
            Backend::Sqlite { .. } => Ok(None),
            Backend::Postgres(pool) => Ok(Some(pool.acquire().await?)),
        }
    }
}

/// What can read.
pub trait Read: Send {
    /// The connection, inside the transaction.
    fn conn(&mut self) -> &mut AnyConnection;
}

/// A transaction that only reads; it sees one state of the database.
pub struct ReadTx {
    tx: Transaction<'static, Any>,
}

impl Read for ReadTx {
    fn conn(&mut self) -> &mut AnyConnection {
        &mut self.tx
    }
}

/// A transaction that writes; dropped without [`WriteTx::commit`] it changes nothing.
#[must_use = "a transaction that is not committed changes nothing"]
pub struct WriteTx {
    inner: Writing,
    topics: Vec<Topic>,
    signals: Signals,
}

enum Writing {
    Sqlite(sqlite::Member),
    Postgres(Transaction<'static, Any>),
}

impl Read for WriteTx {
    fn conn(&mut self) -> &mut AnyConnection {
        match &mut self.inner {
            Writing::Sqlite(member) => member.conn(),
            Writing::Postgres(tx) => tx,
        }
    }
}

impl WriteTx {
    /// Puts an event into the outbox; it is told to the world if and only if the rest of the
    /// transaction happens.
    pub async fn publish(&mut self, event: &CloudEvent) -> Result<(), DbError> {
        self.signal(OUTBOX);
        outbox::insert(self, event).await
    }

    /// Locks a row until the transaction ends. Who changes what it has read needs that, to miss nobody
    /// else's change; what is read before the lock may be old. On SQLite, where one transaction writes at
    /// a time, nothing has to be locked.
    pub async fn lock_row(&mut self, table: &'static str, id: impl Display) -> Result<(), DbError> {
        if let Writing::Postgres(tx) = &mut self.inner {
            let query = format!("SELECT 1 FROM {table} WHERE id = $1 FOR UPDATE");
            sqlx::query(AssertSqlSafe(query))
                .bind(id.to_string())
                .fetch_optional(&mut **tx)
                .await?;
        }
        Ok(())
    }

    /// Raises a signal once the transaction has happened.
    pub fn signal(&mut self, topic: Topic) {
        if !self.topics.contains(&topic) {
            self.topics.push(topic);
        }
    }

    /// Makes it so; returns when it is on disk.
    ///
    /// It is made so by a task of its own: a caller that stops waiting cannot leave a commit half
    /// way, nor keep the relay from hearing of it.
    ///
    /// # Errors
    /// Nothing of the transaction happened, unless the connection was lost during the commit.
    pub async fn commit(self) -> Result<(), DbError> {
        let Self {
            inner,
            topics,
            signals,
        } = self;
        let commit = async move {
            match inner {
                Writing::Sqlite(member) => member.commit().await?,
                Writing::Postgres(tx) => tx.commit().await?,
            }
            for topic in topics {
                signals.raise(topic);
            }
            Ok(())
        };
        tokio::spawn(commit).await.map_err(error::interrupted)?
    }
}
