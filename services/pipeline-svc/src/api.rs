//! gRPC: one file per service. Decode and check, call `app`, encode; nothing else.

pub(crate) mod convert;
mod elide;
pub(crate) mod experiments;
pub(crate) mod pipelines;
pub(crate) mod recurring_runs;
pub(crate) mod runs;
mod source;
pub(crate) mod tasks;
pub(crate) mod uploads;

use std::sync::Arc;

use ferroflow_service::status::to_status;
use ferroflow_types::Error;
use tonic::Status;

use crate::app::Ctx;

/// What every API answers from.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) ctx: Arc<Ctx>,
}

fn into_status(error: Error) -> Status {
    to_status(&error)
}
