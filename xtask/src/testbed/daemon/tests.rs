//! Processes of every kind of end.

use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use super::Daemon;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Listens, then ends its first thread: the process is a zombie whose port is still held.
const HEADLESS: &str = "
import ctypes, socket, sys, threading, time
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))
threading.Thread(target=lambda: time.sleep(60)).start()
ctypes.CDLL(None).pthread_exit(None)
";

fn python(script: &str, port: u16) -> Command {
    let mut python = Command::new("python3");
    python.args(["-c", script, &port.to_string()]);
    python
}

fn until(what: &str, holds: impl FnMut() -> bool) {
    crate::testbed::wait(what, TIMEOUT, holds).unwrap();
}

fn is_zombie(daemon: &Daemon) -> bool {
    let file = std::fs::read_to_string(&daemon.file).unwrap();
    let (id, _) = file.split_once(' ').unwrap();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    status.contains("State:\tZ")
}

#[test]
fn a_zombie_with_threads_is_waited_for_before_its_successor_starts() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::in_folder(folder.path(), "part").unwrap();
    let port = ferroflow_testkit::services::free_port();
    let answers = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    daemon.start(&mut python(HEADLESS, port)).unwrap();
    until("its first thread ends", || answers() && is_zombie(&daemon));

    assert!(daemon.running().is_some(), "its other thread goes on");
    daemon.kill().unwrap();

    assert!(daemon.running().is_none());
    assert!(!answers(), "nothing of it is left");
    let mut successor = python(HEADLESS, port);
    daemon.ensure(&mut successor, TIMEOUT, answers).unwrap();
    daemon.stop().unwrap();
}

#[test]
fn a_daemon_that_ends_before_it_is_ready_is_reported_with_its_log_tail() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::in_folder(folder.path(), "part").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let begun = Instant::now();

    let never = || false;
    let ended = daemon.ensure(&mut python(HEADLESS, port), Duration::from_mins(10), never);

    let message = ended.unwrap_err().to_string();
    assert!(
        message.contains("part ended before it was ready"),
        "{message}"
    );
    assert!(message.contains("Address already in use"), "{message}");
    assert!(begun.elapsed() < TIMEOUT);
}

#[test]
fn what_answers_in_the_place_of_a_part_is_not_taken_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::in_folder(folder.path(), "part").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();

    let answers = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    let refused = daemon.ensure(&mut python(HEADLESS, port), TIMEOUT, answers);

    let message = refused.unwrap_err().to_string();
    assert!(message.contains("something else answers"), "{message}");
    assert!(daemon.running().is_none(), "nothing was started");
}

#[test]
fn a_daemon_that_does_not_answer_is_reported_with_its_log_tail() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::in_folder(folder.path(), "part").unwrap();
    let mut talks = Command::new("sh");
    talks.args(["-c", "echo waiting for etcd; exec sleep 60"]);
    let mut looks = 0;
    let never = || {
        looks += 1;
        // After the time is up, so that it has talked by then.
        if looks == 2 {
            until("it talks", || {
                std::fs::read_to_string(&daemon.log).is_ok_and(|log| log.contains("etcd"))
            });
        }
        false
    };

    let result = daemon.ensure(&mut talks, Duration::ZERO, never);

    let message = result.unwrap_err().to_string();
    assert!(
        message.contains("part does not answer after 0 s"),
        "{message}"
    );
    assert!(message.ends_with("waiting for etcd"), "{message}");
    daemon.stop().unwrap();
    assert!(daemon.running().is_none());
}
