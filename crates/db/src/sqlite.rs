//! SQLite: readers as many as like, one writer with group commit.
//!
//! A commit costs a flush to disk. Writers that wait while one is at work share the next flush:
//! each works in one open transaction and, when done, hands the connection to the next in line; the
//! flush comes after those who waited (or after [`GROUP_MAX`]), and only then do their `commit()`
//! calls return. A writer that gives up rolls back what it did: the whole transaction when nobody
//! wrote before it, else to a savepoint of its own, which costs SQLite a copy of each page it changes.
//!
//! Invariants: nobody reads what is not committed (readers have connections of their own); a failed
//! commit fails every writer of the group; a dropped writer never blocks the next. A writer must not
//! commit after a statement of its failed: SQLite may have rolled back all of the group then.

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
    /// A writer gave up: what it did must be undone.
    dirty: bool,
}

struct Group {
    /// Writers that are done; the one at work has a savepoint if there are any.
    members: usize,
    fate: watch::Sender<Fate>,
}

/// What one writer does in the transaction of the group.
pub(crate) struct Member {
    /// None once it is done.
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
    /// Waits for the connection and joins the group on it.
    pub(crate) async fn begin(self: Arc<Self>) -> Result<Member, DbError> {
        self.wanted.fetch_add(1, Ordering::AcqRel);
        let wanted = Wanted(&self.wanted);
        let state = Arc::clone(&self.state).lock_owned().await;
        drop(wanted);
        // A caller that stops waiting must not stop a statement half way: what the connection is
        // in the middle of would not be known.
        tokio::spawn(Member::open(state, Arc::clone(&self)))
            .await
            .map_err(error::interrupted)?
    }
}

impl State {
    /// The connection, if the writer that has it works in a savepoint.
    fn savepoint(&mut self) -> Option<&mut AnyConnection> {
        let in_savepoint = self.group.as_ref().is_some_and(|group| group.members > 0);
        self.conn.as_mut().filter(|_| in_savepoint)
    }

    /// Undoes what a writer did that gave up.
    async fn clean_up(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        if let Err(error) = self.roll_back().await {
            self.give_up(&error);
        }
    }

    /// Makes the connection usable, and opens the group's transaction.
    async fn ready(&mut self) -> Result<(), DbError> {
        self.clean_up().await;
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
        self.clean_up().await;
        self.flush().await;
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

    async fn roll_back(&mut self) -> Result<(), sqlx::Error> {
        if let Some(conn) = self.savepoint() {
            sqlx::query("ROLLBACK TO writer")
                .execute(&mut *conn)
                .await?;
            sqlx::query("RELEASE writer").execute(conn).await?;
        } else if let Some(conn) = &mut self.conn {
            self.group = None;
            sqlx::query("ROLLBACK").execute(conn).await?;
        }
        Ok(())
    }

    fn give_up(&mut self, error: &sqlx::Error) {
        self.conn = None;
        if let Some(group) = self.group.take() {
            group.fate.send_replace(Fate::Failed(error.to_string()));
        }
    }
}

impl Member {
    pub(crate) fn conn(&mut self) -> &mut AnyConnection {
        let state = self
            .state
            .as_mut()
            .expect("a writer has the connection until it is done");
        state
            .conn
            .as_mut()
            .expect("the connection is ready before a writer has it")
    }

    async fn open(mut state: OwnedMutexGuard<State>, writer: Arc<Writer>) -> Result<Self, DbError> {
        state.ready().await?;
        if let Some(conn) = state.savepoint() {
            sqlx::query("SAVEPOINT writer").execute(conn).await?;
        }
        Ok(Self {
            state: Some(state),
            writer,
        })
    }

    /// Returns once the group that this writer belongs to is on disk. Must not be dropped half way.
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
        let state = self.state.as_mut();
        let state = state.expect("a writer has the connection until it is done");
        if let Some(conn) = state.savepoint() {
            sqlx::query("RELEASE writer").execute(conn).await?;
        }
        let mut state = self
            .state
            .take()
            .expect("a writer has the connection until it is done");
        let group = state.group.as_mut().expect("a writer is in a group");
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

impl Drop for Member {
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
