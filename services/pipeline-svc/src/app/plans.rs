//! Plans by the digest of their specification: built once, shared by every run.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ferroflow_db::Db;
use ferroflow_pipeline_engine::plan::Plan;
use ferroflow_types::Error;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::spec_file::SpecFile;
use crate::domain::spec::SpecText;
use crate::store;

/// Plans kept in memory at most; one that is dropped is built again when it is needed.
const PLANS_MAX: usize = 256;

/// The plans of the service.
#[derive(Default)]
pub(crate) struct PlanCache {
    plans: Mutex<HashMap<String, Arc<Plan>>>,
}

/// Checks a specification.
///
/// # Errors
/// Everything that is wrong with it, each with its place.
pub(crate) fn check(file: &SpecFile) -> Result<(SpecText, Plan), Error> {
    let pipeline = file.pipeline.to_string();
    let platform = file.platform.as_ref().map(Value::to_string);
    let plan = Plan::from_documents(&file.pipeline, file.platform.as_ref())?;
    let mut hasher = Sha256::new();
    hasher.update(&pipeline);
    // JSON has no zero byte, so that no other two documents come to the same bytes.
    hasher.update([0]);
    hasher.update(platform.as_deref().unwrap_or_default());
    let digest = format!("sha256:{}", hex::encode(hasher.finalize()));
    Ok((
        SpecText {
            digest,
            pipeline,
            platform,
        },
        plan,
    ))
}

impl PlanCache {
    /// Keeps a plan that was just built.
    pub(crate) fn insert(&self, digest: &str, plan: Plan) -> Arc<Plan> {
        let plan = Arc::new(plan);
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        // No order of use is kept, so all of them go.
        if plans.len() >= PLANS_MAX {
            plans.clear();
        }
        plans.insert(digest.to_owned(), Arc::clone(&plan));
        plan
    }

    /// The plan of a stored specification.
    pub(crate) async fn get_or_build(&self, db: &Db, digest: &str) -> Result<Arc<Plan>, Error> {
        let cached = self
            .plans
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(digest)
            .cloned();
        if let Some(plan) = cached {
            return Ok(plan);
        }
        // Two callers that come here at once both build the plan, and one of the
        // two equal plans is kept.
        let mut tx = db.begin_read().await?;
        let text = store::specs::get(&mut tx, digest).await?;
        drop(tx);
        let pipeline = parse_json(&text.pipeline)?;
        let platform = text.platform.as_deref().map(parse_json).transpose()?;
        let plan = Plan::from_documents(&pipeline, platform.as_ref())
            .map_err(|error| Error::internal("a stored specification is not valid", error))?;
        Ok(self.insert(digest, plan))
    }
}

/// Stored JSON.
pub(crate) fn parse_json(text: &str) -> Result<Value, Error> {
    serde_json::from_str(text)
        .map_err(|error| Error::internal("a stored specification cannot be read", error))
}
