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

use std::str::FromStr;
use std::sync::Arc;

use ferroflow_service::status::to_status;
use ferroflow_types::{Error, FieldViolation, Timestamp};
use tonic::Status;

use crate::app::Ctx;

/// What every API answers from.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) ctx: Arc<Ctx>,
}

/// An id out of a request's field.
fn id<T: FromStr<Err: ToString>>(field: &str, text: &str) -> Result<T, Status> {
    text.parse()
        .map_err(|error: T::Err| invalid(field, error.to_string()))
}

/// An id that need not be given.
fn id_opt<T: FromStr<Err: ToString>>(field: &str, text: &str) -> Result<Option<T>, Status> {
    if text.is_empty() {
        Ok(None)
    } else {
        id(field, text).map(Some)
    }
}

/// A time that need not be given.
fn time_opt(
    field: &str,
    given: Option<prost_types::Timestamp>,
) -> Result<Option<Timestamp>, Status> {
    let read = |at: prost_types::Timestamp| {
        let at = jiff::Timestamp::new(at.seconds, at.nanos);
        at.map(|at| Timestamp::from_millis(at.as_millisecond()))
            .map_err(|error| invalid(field, format!("it is no time: {error}")))
    };
    given.map(read).transpose()
}

/// A wrong field.
fn invalid(field: &str, problem: impl Into<String>) -> Status {
    let faults = vec![FieldViolation::new(field, problem)];
    failed(Error::violations(
        "FIELD_INVALID",
        "Invalid input error",
        faults,
    ))
}

fn failed(error: Error) -> Status {
    to_status(&error)
}
