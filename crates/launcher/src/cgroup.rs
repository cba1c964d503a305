//! What the container's control group says of memory.

use crate::{AttemptSpec, Failure, FailureReason};

/// How many processes of this container the kernel has killed for want of memory, where the control
/// group of either version says it.
pub(crate) fn oom_kills() -> u64 {
    // Of version 2, then of version 1.
    const FILES: [&str; 2] = [
        "/sys/fs/cgroup/memory.events",
        "/sys/fs/cgroup/memory/memory.oom_control",
    ];
    let text = FILES
        .iter()
        .find_map(|file| std::fs::read_to_string(file).ok());
    let text = text.unwrap_or_default();
    let count = text
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    count.unwrap_or(0)
}

/// A shell that lost a child to the kernel ends with a code that says nothing.
pub(crate) fn mark_out_of_memory(failure: &mut Failure, spec: &AttemptSpec) {
    if matches!(
        failure.reason,
        FailureReason::ExitCode | FailureReason::Signal
    ) {
        let limit = spec.resources.limits.get("memory");
        let limit = limit
            .map(|limit| format!(" of {limit}"))
            .unwrap_or_default();
        failure.reason = FailureReason::OutOfMemory;
        failure.message = format!("it used more memory than its limit{limit}: raise the limit");
    }
}
