//! SQLite: readers as many as like, one writer with group commit.
//!
//! A commit costs a flush to disk. Writers that wait while one is at work share the next flush:
//! each works inside a savepoint of one open transaction and, when done, hands the connection to
//! the next in line; the flush comes after those who waited (or after [`GROUP_MAX`]), and only then
//! do their `commit()` calls return. A writer that gives up rolls back to its own savepoint.
//!
//! Invariants: nobody reads what is not committed (readers have connections of their own); a failed
//! commit fails every writer of the group; a dropped writer never blocks the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, Connection};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use crate::{DbError, error};

/// Writers that share one flush at most; a bound on how long the first of them waits.
const GROUP_MAX: usize = 64;

/// Connections that read.
const READERS: u32 = 8;

/// What became of a group: not decided, committed, failed.
#[derive(Debug, Clone, PartialEq)]
enum Fate {
    Open,
    Committed,
    Failed(String),
}

/// The one connection that writes.
pub(crate) struct Writer {
    /// First come, first served: tokio's mutex is fair.
    state: Arc<Mutex<State>>,
    /// Writers that wait for the connection or have it.
    wanted: AtomicUsize,
}

/// The connection, and what is open on it.
struct State {
    path: String,
    conn: Option<AnyConnection>,
    group: Option<Group>,
    /// A savepoint was dropped before it was released.
    dirty: bool,
}

struct Group {
    members: usize,
    fate: watch::Sender<Fate>,
}

/// A transaction of one writer: a savepoint inside the transaction of the group.
pub(crate) struct Savepoint {
    /// None once it is released.
    state: Option<OwnedMutexGuard<State>>,
    writer: Arc<Writer>,
}

pub(crate) async fn open(path: &str) -> Result<(AnyPool, Arc<Writer>), DbError> {
    let conn = connect(path).await?;
    let options = options(path, "ro")?;
    let readers = AnyPoolOptions::new()
        .max_connections(READERS)
        .min_connections(1)
        .after_connect(|conn, _| {
            Box::pin(async move {
                sqlx::query("PRAGMA busy_timeout = 10000")
                    .execute(&mut *conn)
                    .await?;
                Ok(())
            })
        })
        .connect_with(options)
        .await?;
    let state = State {
        path: path.to_owned(),
        conn: Some(conn),
        group: None,
        dirty: false,
    };
    let writer = Writer {
        state: Arc::new(Mutex::new(state)),
        wanted: AtomicUsize::new(0),
    };
    Ok((readers, Arc::new(writer)))
}

/// The path is a part of a URL: what means something there must not mean it here.
fn options(path: &str, mode: &str) -> Result<AnyConnectOptions, DbError> {
    let path = path
        .replace('%', "%25")
        .replace('?', "%3F")
        .replace('#', "%23");
    Ok(format!("sqlite:{path}?mode={mode}").parse()?)
}

async fn connect(path: &str) -> Result<AnyConnection, DbError> {
    let options = options(path, "rwc")?;
    let mut conn = AnyConnection::connect_with(&options).await?;
    for pragma in [
        "PRAGMA busy_timeout = 10000",
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "PRAGMA foreign_keys = ON",
    ] {
        sqlx::query(pragma).execute(&mut conn).await?;
    }
    Ok(conn)
}

/// Counts a writer until it has the connection or gives up waiting.
struct Wanted<'a>(&'a AtomicUsize);

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Writer {
    /// Waits for the connection and opens a savepoint on it.
    pub(crate) async fn begin(self: Arc<Self>) -> Result<Savepoint, DbError> {
        self.wanted.fetch_add(1, Ordering::AcqRel);
        let wanted = Wanted(&self.wanted);
        let state = Arc::clone(&self.state).lock_owned().await;
        drop(wanted);
        // A caller that stops waiting must not stop a statement half way: what the connection is
        // in the middle of would not be known.
        tokio::spawn(Savepoint::open(state, Arc::clone(&self)))
            .await
            .map_err(error::interrupted)?
    }
}

impl State {
    /// Makes the connection usable: cleans up after a dropped savepoint, opens the group's transaction.
    async fn ready(&mut self) -> Result<(), DbError> {
        if self.dirty {
            let rolled_back = match &mut self.conn {
                Some(conn) => roll_back(conn).await,
                None => Ok(()),
            };
            self.dirty = false;
            if let Err(error) = rolled_back {
                self.give_up(&error);
            }
        }
        if self.conn.is_none() {
            self.group = None;
            self.conn = Some(connect(&self.path).await?);
        }
        if let (None, Some(conn)) = (&self.group, &mut self.conn) {
            sqlx::query("BEGIN IMMEDIATE").execute(conn).await?;
            self.group = Some(Group {
                members: 0,
                fate: watch::Sender::new(Fate::Open),
            });
        }
        Ok(())
    }

    /// Flushes if there is something to flush, after cleaning up.
    async fn flush_group(&mut self) {
        if self.group.is_some() && self.ready().await.is_ok() {
            self.flush().await;
        }
    }

    /// Ends the group's transaction and tells its members what became of it.
    async fn flush(&mut self) {
        let Some(group) = self.group.take() else {
            return;
        };
        let Some(conn) = &mut self.conn else { return };
        let fate = match sqlx::query("COMMIT").execute(&mut *conn).await {
            Ok(_) => Fate::Committed,
            Err(error) => {
                // The connection may be in any state; a new one is in a known one.
                self.conn = None;
                Fate::Failed(error.to_string())
            }
        };
        group.fate.send_replace(fate);
    }

    fn give_up(&mut self, error: &sqlx::Error) {
        self.conn = None;
        if let Some(group) = self.group.take() {
            group.fate.send_replace(Fate::Failed(error.to_string()));
        }
    }
}

async fn roll_back(conn: &mut AnyConnection) -> Result<(), sqlx::Error> {
    sqlx::query("ROLLBACK TO writer")
        .execute(&mut *conn)
        .await?;
    sqlx::query("RELEASE writer").execute(&mut *conn).await?;
    Ok(())
}

impl Savepoint {
    pub(crate) fn conn(&mut self) -> &mut AnyConnection {
        let state = self
            .state
            .as_mut()
            .expect("a savepoint has the connection until it is released");
        state
            .conn
            .as_mut()
            .expect("the connection is ready before a savepoint is opened")
    }

    async fn open(mut state: OwnedMutexGuard<State>, writer: Arc<Writer>) -> Result<Self, DbError> {
        state.ready().await?;
        let mut savepoint = Self {
            state: Some(state),
            writer,
        };
        sqlx::query("SAVEPOINT writer")
            .execute(savepoint.conn())
            .await?;
        Ok(savepoint)
    }

    /// Returns once the group that this savepoint belongs to is on disk. Must not be dropped half way.
    pub(crate) async fn commit(self) -> Result<(), DbError> {
        let mut fate = self.close().await?;
        let problem = match fate.wait_for(|fate| *fate != Fate::Open).await.as_deref() {
            Ok(Fate::Committed) => return Ok(()),
            Ok(Fate::Failed(problem)) => format!("the commit failed: {problem}"),
            Ok(Fate::Open) | Err(_) => "the group of this commit was lost".to_owned(),
        };
        Err(DbError::Unavailable(sqlx::Error::Protocol(problem)))
    }

    /// Joins the group, and flushes it or sees to it that somebody does.
    async fn close(mut self) -> Result<watch::Receiver<Fate>, DbError> {
        sqlx::query("RELEASE writer").execute(self.conn()).await?;
        let mut state = self
            .state
            .take()
            .expect("a savepoint has the connection until it is released");
        let group = state.group.as_mut().expect("a savepoint is inside a group");
        group.members += 1;
        let members = group.members;
        let fate = group.fate.subscribe();
        if members >= GROUP_MAX || self.writer.wanted.load(Ordering::Acquire) == 0 {
            state.flush().await;
        } else if members == 1 {
            // The mutex is first come, first served: this flush runs after every writer that waits now.
            let state = Arc::clone(&self.writer.state);
            tokio::spawn(async move { state.lock().await.flush_group().await });
        }
        Ok(fate)
    }
}

impl Drop for Savepoint {
    fn drop(&mut self) {
        let Some(mut state) = self.state.take() else {
            return;
        };
        state.dirty = true;
        // The open transaction must end even if no further writer comes.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { state.flush_group().await });
        }
    }
}
