//! Fields of requests: read, or refused with the field's name.

use std::str::FromStr;

use ferroflow_types::{Error, FieldViolation, Timestamp};
use tonic::Status;

use crate::status::to_status;

/// A field of a form of its own, an id for one.
///
/// # Errors
/// INVALID_ARGUMENT that names the field.
pub fn parsed<T: FromStr<Err: ToString>>(field: &str, text: &str) -> Result<T, Status> {
    text.parse()
        .map_err(|error: T::Err| invalid(field, error.to_string()))
}

/// The same for a field that need not be given.
///
/// # Errors
/// INVALID_ARGUMENT that names the field.
pub fn parsed_opt<T: FromStr<Err: ToString>>(field: &str, text: &str) -> Result<Option<T>, Status> {
    if text.is_empty() {
        Ok(None)
    } else {
        parsed(field, text).map(Some)
    }
}

/// A time that need not be given.
///
/// # Errors
/// INVALID_ARGUMENT that names the field, for times that no calendar has.
pub fn time_opt(
    field: &str,
    given: Option<prost_types::Timestamp>,
) -> Result<Option<Timestamp>, Status> {
    let read = |at: prost_types::Timestamp| {
        Timestamp::from_parts(at.seconds, at.nanos)
            .ok_or_else(|| invalid(field, "it is no time: no calendar has it"))
    };
    given.map(read).transpose()
}

/// A number that must not be negative.
///
/// # Errors
/// INVALID_ARGUMENT that names the field.
pub fn non_negative<N, T: TryFrom<N>>(field: &str, number: N) -> Result<T, Status> {
    T::try_from(number).map_err(|_| invalid(field, "it must not be negative"))
}

/// A wrong field.
pub fn invalid(field: &str, problem: impl Into<String>) -> Status {
    let faults = vec![FieldViolation::new(field, problem)];
    to_status(&Error::violations(
        "FIELD_INVALID",
        "Invalid input error",
        faults,
    ))
}

#[cfg(test)]
mod tests {
    use ferroflow_types::RunId;
    use tonic::Code;

    use super::*;

    #[test]
    fn a_wrong_field_is_named() {
        let status = parsed::<RunId>("run_id", "nope").unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("run_id"), "{}", status.message());
        assert!(
            status.message().contains("\"nope\" is not a run id"),
            "{}",
            status.message()
        );
        assert_eq!(parsed_opt::<RunId>("run_id", "").unwrap(), None);
        assert_eq!(
            non_negative::<i64, u64>("offset", -1).unwrap_err().code(),
            Code::InvalidArgument
        );
        assert_eq!(non_negative::<i32, u32>("attempt", 7).unwrap(), 7);
    }

    #[test]
    fn times_of_every_year_that_can_be_told_are_read() {
        let at = |seconds, nanos| {
            time_opt(
                "start_time",
                Some(prost_types::Timestamp { seconds, nanos }),
            )
        };
        assert_eq!(time_opt("start_time", None).unwrap(), None);
        assert_eq!(
            at(1, 500_000_000).unwrap(),
            Some(Timestamp::from_millis(1500))
        );
        assert_eq!(at(-1, 0).unwrap(), Some(Timestamp::from_millis(-1000)));
        for (seconds, nanos) in [(i64::MAX, 0), (0, -1_000_000_001)] {
            let status = at(seconds, nanos).unwrap_err();
            assert!(
                status.message().contains("start_time"),
                "{}",
                status.message()
            );
        }
    }
}
