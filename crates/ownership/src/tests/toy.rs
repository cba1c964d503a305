//! A toy service: counters, which are incremented until they are finished.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ferroflow_db::signal::Topic;
use ferroflow_db::testing::TestDb;
use ferroflow_db::{Db, Migration, Read as _, Sql, WriteTx};
use ferroflow_types::id::RandomIds;
use ferroflow_types::time::SystemClock;
use ferroflow_types::{Clock, Error, Timestamp};
use sqlx::Row as _;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::member::Timing;
use crate::{
    Actor, Claim, ClaimSql, Factory, Inbox, Member, Metrics, Owned, Ownership, RequestSql, State,
    Supervisor, Text, Topics, claim,
};

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "counters",
    sql: Sql::Both(
        "CREATE TABLE counters (id TEXT PRIMARY KEY, value BIGINT NOT NULL, finished BIGINT NOT NULL, \
        owner TEXT NOT NULL, fence BIGINT NOT NULL); \
        CREATE TABLE counter_requests (id TEXT PRIMARY KEY, counter TEXT NOT NULL, request TEXT NOT \
        NULL, created_at BIGINT NOT NULL, answered_at BIGINT NOT NULL, answer TEXT NOT NULL);",
    ),
}];

/// The name of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id(pub(crate) u32);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{:04}", self.0)
    }
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix('c').and_then(|text| text.parse().ok());
        number.map(Self).ok_or_else(|| format!("{text:?} is no id"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Increment,
    Finish,
}

impl Text for Request {
    fn to_text(&self) -> String {
        match self {
            Self::Increment => "INCREMENT",
            Self::Finish => "FINISH",
        }
        .to_owned()
    }

    fn from_text(text: &str) -> Option<Self> {
        let all = [Self::Increment, Self::Finish];
        all.into_iter().find(|one| one.to_text() == text)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Missing,
    Finished,
}

impl Text for Refusal {
    fn to_text(&self) -> String {
        format!("{self:?}")
    }

    fn from_text(text: &str) -> Option<Self> {
        let all = [Self::Missing, Self::Finished];
        all.into_iter().find(|one| one.to_text() == text)
    }
}

#[derive(Debug)]
pub(crate) struct Counters;

impl Owned for Counters {
    type Key = Id;
    type Request = Request;
    type Refusal = Refusal;

    const ONE: &'static str = "counter";
    const MANY: &'static str = "counters";
    const TOPICS: Topics = Topics {
        unowned: Topic::new("counters"),
        requests: Topic::new("counter_requests"),
        answers: Topic::new("counter_answers"),
    };
    const METRICS: Metrics = Metrics {
        driven: "test_driven",
        waiting: "test_waiting",
        taken_over: "test_taken_over_total",
    };
    const CLAIMS: ClaimSql = ClaimSql {
        table: "counters",
        find: "SELECT id, owner, fence FROM counters WHERE id = $1",
        of_owner: "SELECT id, owner, fence FROM counters WHERE owner = $1 AND finished = 0 \
            ORDER BY id LIMIT $2",
        claim: "UPDATE counters SET owner = $1, fence = fence + 1 \
            WHERE id = $2 AND owner = $3 AND fence = $4",
        release: "UPDATE counters SET owner = '', fence = fence + 1 \
            WHERE owner = $1 AND finished = 0",
        release_all: "UPDATE counters SET owner = '', fence = fence + 1 \
            WHERE owner <> '' AND finished = 0",
    };
    const REQUESTS: RequestSql = RequestSql {
        table: "counter_requests",
        key: "counter",
        insert: "INSERT INTO counter_requests (id, counter, request, created_at, answered_at, \
            answer) VALUES ($1, $2, $3, $4, 0, '')",
        pending: "SELECT q.id, q.counter, q.request, c.owner, c.fence FROM counter_requests q \
            LEFT JOIN counters c ON c.id = q.counter WHERE q.answered_at = 0 \
            ORDER BY q.created_at, q.id LIMIT $1",
        answer: "UPDATE counter_requests SET answered_at = $2, answer = $3 \
            WHERE id = $1 AND answered_at = 0",
        answer_of: "SELECT answer FROM counter_requests WHERE id = $1 AND answered_at <> 0",
        remove_answered: "DELETE FROM counter_requests WHERE id = $1 AND answered_at <> 0",
        withdraw: "DELETE FROM counter_requests WHERE id = $1 AND answered_at = 0",
        forget: "DELETE FROM counter_requests WHERE created_at < $1",
    };

    fn missing() -> Refusal {
        Refusal::Missing
    }
}

/// Counters and injected failures that all actors of a test share.
#[derive(Default)]
pub(crate) struct Hooks {
    /// Actors that were made.
    pub(super) started: AtomicUsize,
    /// Requests that actors were given.
    pub(super) requests_received: AtomicUsize,
    /// Times that they read their counters.
    pub(super) loads: AtomicUsize,
    /// Loads and events that are to fail.
    pub(super) failures: AtomicUsize,
    /// Loads and answers that are to panic.
    pub(crate) panics: AtomicUsize,
    /// Answers that are to fail.
    pub(super) answer_failures: AtomicUsize,
    /// Has an actor increment its counter unasked.
    pub(super) tick: Notify,
    /// Steps under way; two of one counter at once fail the test.
    steps: Mutex<HashSet<Id>>,
    pub(super) overlaps: AtomicUsize,
    /// Actors of these counters stop in the midst of an answer until there are permits.
    gates: Mutex<HashMap<Id, Arc<Semaphore>>>,
}

impl Hooks {
    /// Makes answers about the counter wait.
    pub(super) fn gate(&self, id: Id) -> Arc<Semaphore> {
        let mut gates = self.gates.lock().unwrap();
        Arc::clone(
            gates
                .entry(id)
                .or_insert_with(|| Arc::new(Semaphore::new(0))),
        )
    }

    /// Fails as often as `failures` says.
    fn fail_if_planned(failures: &AtomicUsize) -> Result<(), Error> {
        let (first, then) = (Ordering::SeqCst, Ordering::SeqCst);
        match failures.fetch_update(first, then, |left| left.checked_sub(1)) {
            Ok(_) => Err(Error::internal("it fails", "on purpose")),
            Err(_) => Ok(()),
        }
    }

    async fn wait_at_gate(&self, id: Id) {
        let gate = self.gates.lock().unwrap().get(&id).cloned();
        if let Some(gate) = gate {
            gate.acquire().await.unwrap().forget();
        }
    }

    fn step(self: &Arc<Self>, id: Id) -> StepGuard {
        if !self.steps.lock().unwrap().insert(id) {
            self.overlaps.fetch_add(1, Ordering::SeqCst);
        }
        let step = StepGuard(Arc::clone(self), id);
        assert!(Self::fail_if_planned(&self.panics).is_ok(), "on purpose");
        step
    }
}

struct StepGuard(Arc<Hooks>, Id);

impl Drop for StepGuard {
    fn drop(&mut self) {
        if let Ok(mut steps) = self.0.steps.lock() {
            steps.remove(&self.1);
        }
    }
}

pub(crate) struct Counter {
    ownership: Arc<Ownership<Counters>>,
    hooks: Arc<Hooks>,
    claim: Claim<Id>,
    state: State,
}

impl Counter {
    /// Writes under the claim; the state is lost if that does not hold.
    async fn write(&mut self, set: &'static str, stored: Option<Uuid>) -> Result<(), Error> {
        let mut tx = self.ownership.member().db.begin_write().await?;
        if let Some(id) = stored {
            self.ownership.answer(&mut tx, id, Ok(())).await?;
        }
        if write(&mut tx, set, self.claim).await {
            tx.commit().await?;
        } else {
            self.state = State::Lost;
        }
        Ok(())
    }
}

/// Sets something of a counter under a claim; whether the claim holds.
pub(super) async fn write(tx: &mut WriteTx, set: &'static str, claim: Claim<Id>) -> bool {
    let done = sqlx::query(set)
        .bind(claim.key.to_string())
        .bind(claim.fence)
        .execute(tx.conn())
        .await;
    done.unwrap().rows_affected() == 1
}

pub(super) const INCREMENT: &str =
    "UPDATE counters SET value = value + 1 WHERE id = $1 AND fence = $2";
pub(super) const FINISH: &str = "UPDATE counters SET finished = 1 WHERE id = $1 AND fence = $2";

impl Actor for Counter {
    type Owned = Counters;
    type Event = ();

    fn state(&self) -> State {
        self.state
    }

    fn reset(&mut self) {
        self.state = State::Unread;
    }

    async fn load(&mut self) -> Result<(), Error> {
        let _step = self.hooks.step(self.claim.key);
        self.hooks.loads.fetch_add(1, Ordering::SeqCst);
        Hooks::fail_if_planned(&self.hooks.failures)?;
        let mut tx = self.ownership.member().db.begin_read().await?;
        let found = claim::find::<Counters>(&mut tx, self.claim.key).await?;
        let lost = found.is_none_or(|found| found.claim != self.claim);
        self.state = match (lost, value(&mut tx, self.claim.key).await) {
            (true, _) => State::Lost,
            (false, (_, true)) => State::Idle,
            (false, (_, false)) => State::Active,
        };
        Ok(())
    }

    async fn next_event(&mut self) {
        self.hooks.tick.notified().await;
    }

    async fn handle(&mut self, (): ()) -> Result<(), Error> {
        Hooks::fail_if_planned(&self.hooks.failures)?;
        self.write(INCREMENT, None).await
    }

    async fn answer(
        &mut self,
        request: Request,
        stored: Option<Uuid>,
    ) -> Result<Result<(), Refusal>, Error> {
        let hooks = Arc::clone(&self.hooks);
        hooks.requests_received.fetch_add(1, Ordering::SeqCst);
        let _step = hooks.step(self.claim.key);
        self.hooks.wait_at_gate(self.claim.key).await;
        Hooks::fail_if_planned(&self.hooks.answer_failures)?;
        if self.state == State::Idle {
            return Ok(Err(Refusal::Finished));
        }
        match request {
            Request::Increment => self.write(INCREMENT, stored).await?,
            Request::Finish => {
                self.write(FINISH, stored).await?;
                if self.state == State::Active {
                    self.state = State::Idle;
                }
            }
        }
        Ok(Ok(()))
    }
}

pub(crate) struct CounterFactory {
    ownership: Arc<Ownership<Counters>>,
    hooks: Arc<Hooks>,
}

impl CounterFactory {
    pub(crate) fn new(ownership: &Arc<Ownership<Counters>>, hooks: &Arc<Hooks>) -> Self {
        let (ownership, hooks) = (Arc::clone(ownership), Arc::clone(hooks));
        Self { ownership, hooks }
    }
}

impl Factory for CounterFactory {
    type Actor = Counter;

    fn actor(&self, claim: Claim<Id>) -> Counter {
        self.hooks.started.fetch_add(1, Ordering::SeqCst);
        Counter {
            ownership: Arc::clone(&self.ownership),
            hooks: Arc::clone(&self.hooks),
            claim,
            state: State::Unread,
        }
    }
}

/// A clock that is set by hand.
pub(crate) struct ManualClock(AtomicI64);

impl ManualClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(1_769_860_800_250)))
    }

    pub(super) fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap();
        self.0.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Quick, but not so quick that a machine with much to do loses a lease.
pub(super) const QUICK_TIMING: Timing = Timing {
    lease: Duration::from_millis(1500),
    renewal: Duration::from_millis(100),
    answer: Duration::from_secs(20),
    answer_while_stopping: Duration::from_secs(20),
    poll: Duration::from_millis(20),
};

pub(super) fn member(db: &Db, clock: Arc<dyn Clock>, id: &str, timing: Timing) -> Arc<Member> {
    Arc::new(Member::of_several(db.clone(), clock, id, timing))
}

/// A replica without tasks, by a clock that is set by hand.
pub(crate) fn idle_replica(db: &Db, clock: &Arc<ManualClock>, id: &str) -> Ownership<Counters> {
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    let member = member(db, clock, id, Timing::default());
    Ownership::new(member, Arc::new(RandomIds), 10).0
}

/// A replica at work.
pub(super) struct Replica {
    pub(super) ownership: Arc<Ownership<Counters>>,
    pub(super) stop: CancellationToken,
    tasks: Vec<JoinHandle<Result<(), Error>>>,
}

impl Replica {
    pub(super) async fn start(db: &Db, id: &str, active_max: usize, hooks: &Arc<Hooks>) -> Self {
        let member = member(db, Arc::new(SystemClock), id, QUICK_TIMING);
        let (ownership, inbox) = Ownership::new(member, Arc::new(RandomIds), active_max);
        Self::run(ownership, inbox, hooks).await
    }

    pub(super) async fn run(
        ownership: Ownership<Counters>,
        inbox: Inbox<Counters>,
        hooks: &Arc<Hooks>,
    ) -> Self {
        let ownership = Arc::new(ownership);
        let fence = ownership.enter().await.unwrap();
        let stop = CancellationToken::new();
        let factory = CounterFactory::new(&ownership, hooks);
        let supervisor = Supervisor::new(factory, Arc::clone(&ownership), inbox);
        let heartbeat = Arc::clone(ownership.member()).keep_alive(fence, stop.clone());
        let tasks = vec![
            tokio::spawn(heartbeat),
            tokio::spawn(supervisor.run(stop.clone())),
        ];
        Self {
            ownership,
            stop,
            tasks,
        }
    }

    /// Ends it as `kill -9` does.
    pub(super) async fn kill(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
    }

    /// Ends it as it should.
    pub(super) async fn leave(mut self) {
        self.stop.cancel();
        for task in self.tasks.drain(..) {
            task.await.unwrap().unwrap();
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

pub(crate) async fn each_db() -> Vec<TestDb> {
    ferroflow_db::testing::each_db(MIGRATIONS).await
}

/// Inserts a counter with this owner.
pub(super) async fn insert(db: &Db, id: Id, owner: &str) -> Claim<Id> {
    let mut tx = db.begin_write().await.unwrap();
    sqlx::query("INSERT INTO counters VALUES ($1, 0, 0, $2, $3)")
        .bind(id.to_string())
        .bind(owner)
        .bind(Claim::<Id>::FIRST_FENCE)
        .execute(tx.conn())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    Claim::first(id)
}

/// A counter's value, and whether it is finished.
pub(super) async fn value(tx: &mut impl ferroflow_db::Read, id: Id) -> (i64, bool) {
    let query = sqlx::query("SELECT value, finished FROM counters WHERE id = $1");
    let row = query.bind(id.to_string()).fetch_one(tx.conn()).await;
    let row = row.unwrap();
    let finished: i64 = row.get("finished");
    (row.get("value"), finished == 1)
}

pub(super) async fn value_of(db: &Db, id: Id) -> i64 {
    value(&mut db.begin_read().await.unwrap(), id).await.0
}

pub(super) async fn owner_of(db: &Db, id: Id) -> String {
    let mut tx = db.begin_read().await.unwrap();
    let found = claim::find::<Counters>(&mut tx, id).await.unwrap();
    found.unwrap().owner
}

/// How many requests are stored.
pub(super) async fn stored(db: &Db) -> i64 {
    let mut tx = db.begin_read().await.unwrap();
    let query = sqlx::query("SELECT COUNT(*) AS n FROM counter_requests");
    query.fetch_one(tx.conn()).await.unwrap().get("n")
}

/// Waits until it is so.
pub(super) async fn eventually(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let limit = Duration::from_secs(20);
    let done = tokio::time::timeout(limit, waited).await;
    assert!(done.is_ok(), "not within {limit:?}: {what}");
}
