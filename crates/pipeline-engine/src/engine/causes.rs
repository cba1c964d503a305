//! Why a run, or a part of it, failed: the tasks that did, by path and error.

use std::cmp::Reverse;

use serde_json::{Value, json};

use super::node::{Node, NodeIx, NodeState};
use super::{RunEnd, RunPhase, RunState};

/// Tasks that a sentence names.
const NAMED_MAX: usize = 3;

impl RunState {
    /// Why the run failed: the task that failed first, or what the run's time was spent on.
    pub fn failure(&self) -> Option<String> {
        let root = NodeIx(0);
        if self.phase == RunPhase::Ended(RunEnd::Failed)
            && let Some(error) = self.nodes.first().and_then(|root| root.error.as_ref())
        {
            return Some(format!("{}{}", error.message, self.stopped()));
        }
        self.failure_in(root)
    }

    /// The task that failed first among `within` and what is below it, with its error.
    fn failure_in(&self, within: NodeIx) -> Option<String> {
        let failed = self
            .nodes()
            .filter(|(ix, node)| node.state == NodeState::Failed && self.is_in(*ix, within))
            .filter_map(|(_, node)| node.error.as_ref().map(|error| (node, error)));
        // Of those that ended in one step, the first in the plan.
        let (first, count) = failed.fold((None::<(&Node, _)>, 0), |(first, count), this| {
            let first = first.filter(|(node, _)| node.finished_at <= this.0.finished_at);
            (Some(first.unwrap_or(this)), count + 1)
        });
        let (node, error) = first?;
        let others = match count {
            1 => String::new(),
            2 => " (and 1 more task failed)".to_owned(),
            more => format!(" (and {} more tasks failed)", more - 1),
        };
        Some(format!(
            "task {} failed: {}{others}",
            place(node),
            error.message
        ))
    }

    /// Whether a node is `within`, or below it.
    fn is_in(&self, ix: NodeIx, within: NodeIx) -> bool {
        let mut at = Some(ix);
        while let Some(here) = at {
            if here == within {
                return true;
            }
            at = self.node(here).parent;
        }
        false
    }

    /// The commands that had to end because the run did, those that took longest first.
    fn stopped(&self) -> String {
        let mut stopped: Vec<&Node> = self
            .nodes
            .iter()
            .filter(|node| node.state == NodeState::Canceled && node.started_at.is_some())
            .filter(|node| node.children.is_none() && node.progress.is_none())
            .collect();
        stopped.sort_by_key(|node| {
            let ended = node.finished_at.zip(node.started_at);
            Reverse(ended.map(|(finished, started)| finished.since(started)))
        });
        let named: Vec<_> = stopped
            .iter()
            .take(NAMED_MAX)
            .map(|node| place(node))
            .collect();
        let named = named.join(", ");
        match stopped.len() {
            0 => String::new(),
            1 => format!(", task {named} was stopped"),
            few if few <= NAMED_MAX => format!(", tasks {named} were stopped"),
            many => format!(", tasks {named} and {} more were stopped", many - NAMED_MAX),
        }
    }

    /// `PipelineTaskFinalStatus` of a task, with KFP's state words.
    pub(super) fn final_status(&self, producer: NodeIx) -> Value {
        let node = self.node(producer);
        let state = match node.state {
            NodeState::Succeeded | NodeState::Cached => "COMPLETE",
            NodeState::Failed => "FAILED",
            NodeState::Canceled | NodeState::NotTriggered | NodeState::Omitted => "CANCELED",
            NodeState::Pending | NodeState::Queued | NodeState::Running | NodeState::Backoff => {
                "RUNNING"
            }
        };
        let error = match node.state {
            NodeState::Failed => {
                let cause = self.failure_in(producer);
                let cause = cause.unwrap_or_else(|| format!("task {} failed", place(node)));
                json!({"code": 13, "message": cause})
            }
            _ => json!({}),
        };
        let name = self.task(producer).map_or("root", |task| &task.key);
        json!({
            "state": state,
            "pipelineJobResourceName": self.facts.resource_name,
            "pipelineTaskName": name,
            "error": error,
        })
    }
}

/// What a task is called among those of its run.
fn place(node: &Node) -> &str {
    node.path.strip_prefix("root.").unwrap_or(&node.path)
}
