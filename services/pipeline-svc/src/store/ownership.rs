//! Who drives a run, and what its driver is asked: the columns `owner` and `fence` of `runs`, and the
//! table `run_requests`.

use ferroflow_db::signal::Topic;
use ferroflow_ownership::{ClaimSql, Metrics, Owned, RequestSql, Text, Topics};
use ferroflow_types::RunId;

use crate::domain::request::{Refusal, Request};

/// The right to drive a run.
pub(crate) type Claim = ferroflow_ownership::Claim<RunId>;

/// Runs, each of which one replica drives.
#[derive(Debug)]
pub(crate) struct Runs;

impl Owned for Runs {
    type Key = RunId;
    type Request = Request;
    type Refusal = Refusal;

    const ONE: &'static str = "run";
    const MANY: &'static str = "runs";
    const TOPICS: Topics = Topics {
        unowned: Topic::new("runs"),
        requests: Topic::new("requests"),
        answers: Topic::new("answers"),
    };
    const METRICS: Metrics = Metrics {
        driven: "ferroflow_pipelines_runs_driven",
        waiting: "ferroflow_pipelines_runs_waiting",
        taken_over: "ferroflow_pipelines_runs_taken_over_total",
    };
    // `finished_at = 0` is the condition of the partial index `runs_by_owner`: looking for runs to
    // drive costs as much as is under way, however many runs are kept.
    const CLAIMS: ClaimSql = ClaimSql {
        table: "runs",
        find: "SELECT id, owner, fence FROM runs WHERE id = $1",
        of_owner: "SELECT id, owner, fence FROM runs WHERE owner = $1 AND finished_at = 0 \
            ORDER BY created_at, id LIMIT $2",
        claim: "UPDATE runs SET owner = $1, fence = fence + 1 \
            WHERE id = $2 AND owner = $3 AND fence = $4",
        // The fence rises here as well, so that a driver that is still at work
        // writes nothing any more.
        release: "UPDATE runs SET owner = '', fence = fence + 1 \
            WHERE owner = $1 AND finished_at = 0",
        release_all: "UPDATE runs SET owner = '', fence = fence + 1 \
            WHERE owner <> '' AND finished_at = 0",
    };
    const REQUESTS: RequestSql = RequestSql {
        table: "run_requests",
        key: "run_id",
        insert: "INSERT INTO run_requests (id, run_id, request, created_at, answered_at, \
            answer) VALUES ($1, $2, $3, $4, 0, '')",
        // A request about a run that is gone has no owner and must be found too:
        // it is answered as missing.
        pending: "SELECT q.id, q.run_id, q.request, r.owner, r.fence FROM run_requests q \
            LEFT JOIN runs r ON r.id = q.run_id WHERE q.answered_at = 0 \
            ORDER BY q.created_at, q.id LIMIT $1",
        // Either this or `withdraw` meets the row, so that what was withdrawn is never answered.
        answer: "UPDATE run_requests SET answered_at = $2, answer = $3 \
            WHERE id = $1 AND answered_at = 0",
        answer_of: "SELECT answer FROM run_requests WHERE id = $1 AND answered_at <> 0",
        remove_answered: "DELETE FROM run_requests WHERE id = $1 AND answered_at <> 0",
        withdraw: "DELETE FROM run_requests WHERE id = $1 AND answered_at = 0",
        forget: "DELETE FROM run_requests WHERE created_at < $1",
    };

    fn missing() -> Refusal {
        Refusal::Missing
    }
}

impl Text for Request {
    fn to_text(&self) -> String {
        self.as_str().to_owned()
    }

    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

impl Text for Refusal {
    fn to_text(&self) -> String {
        self.text()
    }

    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}
