//! Whether a command has to run at all: what its result is looked up by, and what the answer means.

use ferroflow_types::TaskId;

use super::task::{CacheNote, CacheSource, TaskIx, TaskState, Values};
use super::{Effect, RunState, Step};
use crate::fingerprint::{self, CacheInputs, CacheKey};

/// An earlier task with the same fingerprint.
#[derive(Debug, Clone)]
pub struct CachedResult {
    /// Whose result it is.
    pub source: CacheSource,
    /// What it gave.
    pub outputs: Values,
}

/// What came of looking for an earlier result.
#[derive(Debug, Clone)]
pub struct CacheAnswer {
    /// What was looked for.
    pub fingerprint: String,
    /// The result, or why none is reused.
    pub found: Result<CachedResult, String>,
}

impl Step<'_> {
    /// A command asks the cache first, unless its result may not be reused.
    pub(super) fn queue(&mut self, ix: TaskIx) {
        if let Err(error) = self.run.check_platform(ix) {
            return self.fail(ix, error);
        }
        self.enter(ix, TaskState::Queued);
        let enabled = self.run.spec(ix).is_some_and(|spec| spec.cache.enabled);
        if !enabled || !self.run.facts.caching {
            let whose = if enabled { "run" } else { "task" };
            let reason = format!("not looked up: caching is off for this {whose}");
            self.note_cache(ix, String::new(), reason, None);
            return self.launch(ix);
        }
        let looking = "looking for an earlier result".to_owned();
        self.note_cache(ix, String::new(), looking, None);
        // Stored with the task, so that a restart asks the cache again instead of waiting for its
        // answer.
        if let Some(note) = &mut self.change(ix).cache {
            note.looking = true;
        }
        // An effect, and its answer an event: contents of input artifacts may have to be read for it,
        // and the run does not stand still meanwhile.
        let key = self.run.cache_key(ix);
        self.effect(Effect::LookUpCache { task: ix, key });
    }

    pub(super) fn cache_answered(&mut self, id: TaskId, answer: CacheAnswer) {
        let Some(ix) = self.run.find(id) else {
            return;
        };
        // An answer that comes twice, or after the task was cancelled, changes nothing.
        if self.task(ix).state != TaskState::Queued || !self.run.awaits_cache(ix) {
            return;
        }
        match answer.found {
            Err(why) => {
                self.note_cache(ix, answer.fingerprint, format!("not reused: {why}"), None);
                self.launch(ix);
            }
            Ok(found) => {
                let reason = "reused: an earlier task of this pipeline had the same fingerprint";
                let source = Some(found.source);
                self.note_cache(ix, answer.fingerprint, reason.to_owned(), source);
                self.change(ix).outputs = found.outputs;
                self.enter(ix, TaskState::Cached);
            }
        }
    }

    fn note_cache(
        &mut self,
        ix: TaskIx,
        fingerprint: String,
        reason: String,
        source: Option<CacheSource>,
    ) {
        self.change(ix).cache = Some(CacheNote {
            fingerprint,
            reason,
            looking: false,
            source,
        });
    }
}

impl RunState {
    /// Whether an answer of the cache is awaited.
    pub(super) fn awaits_cache(&self, ix: TaskIx) -> bool {
        let note = self.task(ix).cache.as_ref();
        note.is_some_and(|note| note.looking)
    }

    /// What the result of a task is looked up by.
    pub(super) fn cache_key(&self, ix: TaskIx) -> CacheKey {
        let component = self.component(ix);
        let custom_key = self.spec(ix).and_then(|spec| spec.cache.key.as_ref());
        if let Some(key) = custom_key {
            return CacheKey::Custom(fingerprint::custom(&component.name, key));
        }
        let facts = self.task_facts(ix);
        let inputs = &self.task(ix).inputs;
        let inputs = CacheInputs::of(component, inputs, &facts, || self.platform_asked(ix));
        CacheKey::Computed(Box::new(inputs))
    }
}
