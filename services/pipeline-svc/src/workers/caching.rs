//! Looking for earlier results: what inputs contain now, and whether what was kept is still what it was.

use std::sync::Arc;
use std::time::Duration;

use ferroflow_artifacts::contents::State;
use ferroflow_pipeline_engine::engine::task::TaskIx;
use ferroflow_pipeline_engine::engine::{CacheAnswer, CachedResult, Event};
use ferroflow_pipeline_engine::fingerprint::{self, CacheInputs, CacheKey, ObservedContent};
use ferroflow_types::error::chain;
use ferroflow_types::{Error, Namespace};

use super::actor::{Actor, LoadedRun};
use super::attempt::{self, Message};
use crate::app::Ctx;
use crate::app::artifacts::recorded_content;
use crate::store;

/// How long a step of the run waits for an answer, so that most need no step of their own. Content
/// that has to be read again takes as long as it is large.
const LOOKUP_WAIT: Duration = Duration::from_millis(50);

impl Actor {
    /// Asks the cache; the answer comes now, or as a message.
    pub(super) async fn lookup_cache(
        &mut self,
        loaded: &LoadedRun,
        ix: TaskIx,
        key: CacheKey,
    ) -> Result<Option<Event>, Error> {
        let task = loaded.state.task(ix).id;
        let scope = CacheScope {
            namespace: loaded.run.namespace.clone(),
            pipeline_name: loaded.run.pipeline_name.clone(),
        };
        let mut lookup = Box::pin(find_result(Arc::clone(&self.ctx), scope, key));
        if let Ok(answer) = tokio::time::timeout(LOOKUP_WAIT, &mut lookup).await {
            let answer = answer?;
            return Ok(Some(Event::CacheAnswered { task, answer }));
        }
        // The time was up for waiting only: the same search goes on, and does not begin anew.
        let mailbox = self.mailbox.clone();
        self.helpers.spawn(async move {
            let answer = lookup.await;
            attempt::send_to_actor(&mailbox, Message::CacheAnswered { task, answer }).await;
        });
        Ok(None)
    }
}

/// Whose results may be reused.
struct CacheScope {
    namespace: Namespace,
    pipeline_name: String,
}

async fn find_result(
    ctx: Arc<Ctx>,
    scope: CacheScope,
    key: CacheKey,
) -> Result<CacheAnswer, Error> {
    let fingerprint = match key {
        CacheKey::Custom(fingerprint) => fingerprint,
        CacheKey::Computed(inputs) => {
            let observed = observe_inputs(&ctx, &inputs).await;
            fingerprint::compute(&inputs, &observed)
        }
    };
    let mut tx = ctx.db.begin_read().await?;
    let CacheScope {
        namespace,
        pipeline_name,
    } = scope;
    let found =
        store::tasks::get_cached_result(&mut tx, &namespace, &pipeline_name, &fingerprint).await?;
    drop(tx);
    let found = match found {
        None => Err("no earlier task had this fingerprint".to_owned()),
        Some(found) => match invalidation_reason(&ctx, &found).await {
            None => Ok(found),
            Some(reason) => Err(reason),
        },
    };
    Ok(CacheAnswer { fingerprint, found })
}

/// What the inputs contain and what interprets the command. What cannot be looked at counts as what was
/// noted of it: a store that is not read here is not read by tasks that run here either.
async fn observe_inputs(ctx: &Ctx, inputs: &CacheInputs) -> ObservedContent {
    let (image, command) = inputs.command();
    let mut observed = ObservedContent {
        interpreter: ctx.runtime.interpreter(image, command).await,
        ..ObservedContent::default()
    };
    for artifact in inputs.artifacts() {
        match ctx.contents.identity(recorded_content(artifact)).await {
            Ok(content) => {
                // An input that is gone is a content of its own: it differs from every digest.
                let content = content.unwrap_or_else(|| "nothing".to_owned());
                observed.contents.insert(artifact.id, content);
            }
            Err(error) => {
                let (uri, error) = (&artifact.uri, chain(&error));
                tracing::debug!(uri, error, "an input cannot be looked at");
            }
        }
    }
    observed
}

/// Why an earlier result cannot be reused, if so.
async fn invalidation_reason(ctx: &Ctx, found: &CachedResult) -> Option<String> {
    for artifact in found.outputs.artifacts.values().flatten() {
        let uri = &artifact.uri;
        match ctx.contents.state(recorded_content(artifact)).await {
            Ok(State::Same) => {}
            Ok(State::Missing) => return Some(format!("the earlier result {uri} is gone")),
            Ok(State::Changed) => {
                return Some(format!(
                    "the earlier result {uri} is not what its task left there"
                ));
            }
            // This installation does not read such a store. As upstream does, the
            // result is taken to be there.
            Err(error) if error.is_unsupported_store() => {}
            // What cannot be compared is not reused; the task runs instead.
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(uri, error, "an earlier result cannot be looked at");
                return Some(format!("the earlier result {uri} cannot be looked at now"));
            }
        }
    }
    None
}
