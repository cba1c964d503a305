//! What the engine says of an attempt that left no outcome.

use bollard::models::{ContainerState, ContainerStateStatusEnum};
use ferroflow_launcher::{AttemptSpec, Failure, FailureReason};

/// How a container stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// It was made and not started.
    Created,
    /// It runs.
    Running,
    /// It has ended; if there is no outcome, this is why.
    Ended(Failure),
}

/// The launcher's exit code when it does not know what it is asked for.
const NOT_UNDERSTOOD: i64 = 2;

/// Judges a container. `started` says whether the command was, or was about to be, executed.
pub(super) fn judge(state: &ContainerState, spec: Option<&AttemptSpec>, started: bool) -> Verdict {
    match state.status {
        // A container that the engine could not start stays as created, with an error.
        Some(ContainerStateStatusEnum::CREATED) if engine_error(state).is_empty() => {
            Verdict::Created
        }
        Some(
            ContainerStateStatusEnum::RUNNING
            | ContainerStateStatusEnum::PAUSED
            | ContainerStateStatusEnum::RESTARTING
            | ContainerStateStatusEnum::REMOVING,
        ) => Verdict::Running,
        _ => Verdict::Ended(ended(state, spec, started)),
    }
}

fn engine_error(state: &ContainerState) -> &str {
    state.error.as_deref().unwrap_or_default()
}

fn ended(state: &ContainerState, spec: Option<&AttemptSpec>, started: bool) -> Failure {
    let code = state.exit_code.unwrap_or_default();
    // First: exit code 137 alone may be anybody's SIGKILL.
    if state.oom_killed == Some(true) {
        let limit = spec.and_then(|spec| spec.resources.limits.get("memory"));
        let limit = limit
            .map(|limit| format!(" of {limit}"))
            .unwrap_or_default();
        return Failure {
            exit_code: i32::try_from(code).ok(),
            ..Failure::new(
                FailureReason::OutOfMemory,
                format!("it used more memory than its limit{limit}: raise the limit"),
            )
        };
    }
    match engine_error(state) {
        "" => {}
        error if started => {
            let message = format!("its container was lost: {error}");
            return Failure::new(FailureReason::Lost, message);
        }
        error => {
            let message = format!("its container cannot be started: {error}");
            return Failure::new(FailureReason::StartFailed, message);
        }
    }
    match (started, code) {
        (false, NOT_UNDERSTOOD) => Failure::new(
            FailureReason::StartFailed,
            "docker.launcher does not know how to run in a container: use the one of this version \
             (`cargo xtask launcher` builds it)",
        ),
        (false, 1..) => Failure::new(
            FailureReason::StartFailed,
            format!("its container ended with {code} before the command was started"),
        ),
        _ => Failure::new(
            FailureReason::Lost,
            format!(
                "its container ended with {code} and without a report (the engine was stopped, or \
                 somebody killed it)"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(status: ContainerStateStatusEnum) -> ContainerState {
        ContainerState {
            status: Some(status),
            ..ContainerState::default()
        }
    }

    #[test]
    fn ends_are_told_apart() {
        let exited = || state(ContainerStateStatusEnum::EXITED);
        let coded = |code| ContainerState {
            exit_code: Some(code),
            ..exited()
        };
        let memory = ContainerState {
            oom_killed: Some(true),
            ..coded(137)
        };
        let refused = ContainerState {
            error: Some("exec format error".to_owned()),
            ..state(ContainerStateStatusEnum::CREATED)
        };
        for (state, started, expected) in [
            (memory, true, FailureReason::OutOfMemory),
            (coded(137), true, FailureReason::Lost),
            (coded(2), false, FailureReason::StartFailed),
            (coded(1), false, FailureReason::StartFailed),
            (coded(0), false, FailureReason::Lost),
            (refused, false, FailureReason::StartFailed),
        ] {
            match judge(&state, None, started) {
                Verdict::Ended(failure) => assert_eq!(failure.reason, expected, "{failure:?}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_has_not_ended_is_no_failure() {
        let of = |status| judge(&state(status), None, false);

        assert_eq!(of(ContainerStateStatusEnum::CREATED), Verdict::Created);
        assert_eq!(of(ContainerStateStatusEnum::RUNNING), Verdict::Running);
    }
}
