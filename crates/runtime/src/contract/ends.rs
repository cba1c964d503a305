//! What ends with an attempt: everything that its command started.

use std::time::Duration;

use ferroflow_launcher::{AttemptResult, FailureReason};

use super::{Subject, failure, observe};

/// Every promise about it.
pub(super) async fn all(subject: &Subject) {
    a_stopped_attempt_ends_with_all_it_started(subject).await;
    a_stopped_command_may_clean_up(subject).await;
    what_a_command_started_ends_with_it(subject).await;
}

async fn a_stopped_attempt_ends_with_all_it_started(subject: &Subject) {
    let runtime = (subject.reopen)();
    let script = "(sleep 2; echo still here > \"$FOLDER/left.txt\") & \
        echo here > \"$FOLDER/stopped-here.txt\"; sleep 60";
    let spec = subject.spec(&*runtime, "stopped", script);
    let key = spec.key.clone();
    runtime.ensure(spec).await.expect("it is ensured");
    subject.wait_for("stopped-here.txt").await;

    // By a server that did not start it.
    (subject.reopen)().stop(&key).await.expect("it is stopped");

    assert_eq!(
        failure(observe(&*runtime, &key).await).reason,
        FailureReason::Canceled
    );
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(
        !subject.folder.join("left.txt").exists(),
        "a grandchild went on"
    );
}

async fn a_stopped_command_may_clean_up(subject: &Subject) {
    let runtime = (subject.reopen)();
    let script = "trap 'echo told > \"$FOLDER/goodbye.txt\"; exit 0' TERM; \
        echo here > \"$FOLDER/goodbye-here.txt\"; sleep 60 & wait";
    let spec = subject.spec(&*runtime, "goodbye", script);
    let key = spec.key.clone();
    runtime.ensure(spec).await.expect("it is ensured");
    subject.wait_for("goodbye-here.txt").await;

    runtime.stop(&key).await.expect("it is stopped");

    let found = failure(observe(&*runtime, &key).await);
    assert_eq!(found.reason, FailureReason::Canceled);
    assert_eq!(subject.read("goodbye.txt"), "told\n");
}

/// A process in a session of its own, whose parent has ended, without the environment that it was
/// given, and which does not end when it is asked to.
const DAEMON: &str = "cat > \"$FOLDER/daemon.sh\" <<'END'\n\
    trap '' TERM HUP INT\n\
    while :; do echo beat >> \"$1\"; sleep 0.05; done\n\
    END\n\
    (env -i PATH=\"$PATH\" setsid sh \"$FOLDER/daemon.sh\" \"$FOLDER/$BEAT\" >/dev/null 2>&1 &)\n\
    while [ ! -s \"$FOLDER/$BEAT\" ]; do sleep 0.02; done\n";

/// Whichever way a command ends.
async fn what_a_command_started_ends_with_it(subject: &Subject) {
    let runtime = (subject.reopen)();
    let limit_ms = 3000;
    // Shorter and longer than a command runs before it is put into a control group.
    for (name, end, expected) in [
        ("brief", "exit 0", None),
        ("ended", "sleep 0.5; exit 0", None),
        ("failed", "sleep 0.5; exit 3", Some(FailureReason::ExitCode)),
        ("late", "sleep 60", Some(FailureReason::Timeout)),
        ("canceled", "sleep 60", Some(FailureReason::Canceled)),
    ] {
        let beat = format!("beat-{name}.txt");
        let mut spec = subject.spec(&*runtime, name, &format!("{DAEMON}{end}"));
        spec.env.push(("BEAT".to_owned(), beat.clone()));
        if expected == Some(FailureReason::Timeout) {
            spec.limits.timeout_ms = Some(limit_ms);
        }
        let key = spec.key.clone();
        runtime.ensure(spec).await.expect("it is ensured");
        if expected == Some(FailureReason::Canceled) {
            subject.wait_for(&beat).await;
            runtime.stop(&key).await.expect("it is stopped");
        }
        let ended = observe(&*runtime, &key).await;

        let before = subject.read(&beat).len();
        match (ended.result, expected) {
            (AttemptResult::Succeeded(_), None) => {}
            (AttemptResult::Failed(found), Some(reason)) => {
                assert_eq!(found.reason, reason, "{name}: {found:?}");
            }
            (result, _) => panic!("{name}: {result:?}"),
        }
        assert!(before > 0, "{name}: the daemon never began");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let after = subject.read(&beat).len();
        assert_eq!(before, after, "{name}: the daemon went on");
    }
}
