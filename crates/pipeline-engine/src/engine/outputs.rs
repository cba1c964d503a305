//! What a DAG and a loop give, out of what their tasks gave.

use serde_json::Value;

use super::RunState;
use super::task::{TaskIx, TaskState, Values};
use crate::plan::{Body, OutputSelector};

impl RunState {
    /// The outputs of a DAG whose tasks have ended. An output whose producer did not run is absent.
    pub(super) fn dag_outputs(&self, ix: TaskIx) -> Values {
        let mut outputs = Values::default();
        let (Body::Dag(dag), Some(first)) = (&self.component(ix).body, self.task(ix).children)
        else {
            return outputs;
        };
        // The first candidate that ran is taken: that is how OneOf chooses between branches.
        let produced = |selectors: &[OutputSelector]| {
            selectors.iter().find_map(|selector| {
                let task = self.task(TaskIx(first.0 + selector.task.0));
                task.state
                    .succeeded()
                    .then(|| (selector.output.clone(), &task.outputs))
            })
        };
        for (name, selectors) in &dag.output_parameters {
            if let Some((output, given)) = produced(selectors)
                && let Some(value) = given.parameters.get(&output)
            {
                outputs.parameters.insert(name.clone(), value.clone());
            }
        }
        for (name, selectors) in &dag.output_artifacts {
            if let Some((output, given)) = produced(selectors)
                && let Some(artifacts) = given.artifacts.get(&output)
            {
                outputs.artifacts.insert(name.clone(), artifacts.clone());
            }
        }
        outputs
    }

    /// The outputs of a loop: a parameter becomes the list over its iterations, artifacts are
    /// joined. Iterations that did not make one contribute nothing.
    pub(super) fn loop_outputs(&self, ix: TaskIx) -> Values {
        let mut outputs = Values::default();
        let component = self.component(ix);
        // A loop without items succeeds with empty lists, and not without outputs.
        for name in component.output_parameters.keys() {
            outputs
                .parameters
                .insert(name.clone(), Value::Array(Vec::new()));
        }
        for name in component.output_artifacts.keys() {
            outputs.artifacts.insert(name.clone(), Vec::new());
        }
        let Some(progress) = &self.task(ix).progress else {
            return outputs;
        };
        // Iterations after these are of an earlier start of the loop, which had more items. Parameters
        // of nested loops nest one list per loop; artifacts stay one flat list.
        for &iteration in progress.iterations.iter().take(progress.started) {
            let given = &self.task(iteration).outputs;
            for (name, value) in &given.parameters {
                if let Some(Value::Array(list)) = outputs.parameters.get_mut(name) {
                    list.push(value.clone());
                }
            }
            for (name, artifacts) in &given.artifacts {
                if let Some(list) = outputs.artifacts.get_mut(name) {
                    list.extend(artifacts.iter().cloned());
                }
            }
        }
        outputs
    }

    /// Whether a task of the DAG failed, and whether one was cancelled.
    pub(super) fn children_verdict(&self, ix: TaskIx) -> (bool, bool) {
        let (Body::Dag(dag), Some(first)) = (&self.component(ix).body, self.task(ix).children)
        else {
            return (false, false);
        };
        let states = (0..super::flow::count(dag.tasks.len()))
            .map(|index| self.task(TaskIx(first.0 + index)).state);
        states.fold((false, false), |(failed, canceled), state| {
            (
                failed || state == TaskState::Failed,
                canceled || state == TaskState::Canceled,
            )
        })
    }

    /// The name of an importer's only output.
    pub(super) fn importer_output(&self, ix: TaskIx) -> String {
        let outputs = &self.component(ix).output_artifacts;
        outputs
            .keys()
            .next()
            .cloned()
            .unwrap_or_else(|| "artifact".to_owned())
    }
}
