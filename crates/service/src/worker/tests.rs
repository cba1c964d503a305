//! When ticks come, and how a worker stops.

use std::collections::VecDeque;
use std::io;

use tokio::sync::{mpsc, watch};
use tokio::time;

use super::*;

/// Reports each tick and returns the next scripted answer; without one it waits for ever.
struct ScriptedWorker {
    answers: VecDeque<Result<NextTick, io::Error>>,
    ticks: mpsc::Sender<time::Instant>,
    wakes: watch::Receiver<u32>,
}

impl Worker for ScriptedWorker {
    type Error = io::Error;

    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn tick(&mut self) -> Result<NextTick, io::Error> {
        self.ticks.send(time::Instant::now()).await.unwrap();
        let answer = self.answers.pop_front();
        answer.unwrap_or(Ok(NextTick::After(Duration::from_hours(1000))))
    }

    async fn wake(&mut self) {
        if self.wakes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A worker under way: its ticks, what wakes it, what stops it.
struct RunningWorker {
    ticks: mpsc::Receiver<time::Instant>,
    wake: watch::Sender<u32>,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

fn start(answers: impl IntoIterator<Item = Result<NextTick, io::Error>>) -> RunningWorker {
    let (ticked, ticks) = mpsc::channel(100);
    let (wake, wakes) = watch::channel(0);
    let worker = ScriptedWorker {
        answers: answers.into_iter().collect(),
        ticks: ticked,
        wakes,
    };
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let ended = tokio::spawn(async move { run_until_stopped(worker, &stopping).await });
    RunningWorker {
        ticks,
        wake,
        stop,
        ended,
    }
}

fn failure() -> Result<NextTick, io::Error> {
    Err(io::Error::other("away"))
}

#[tokio::test(start_paused = true)]
async fn there_is_a_tick_at_once_and_again_when_it_is_time() {
    let second = Duration::from_secs(1);
    let begun = time::Instant::now();
    let mut worker = start([Ok(NextTick::Now), Ok(NextTick::After(second))]);

    let mut at = Vec::new();
    for _ in 0..3 {
        at.push(worker.ticks.recv().await.unwrap() - begun);
    }

    assert_eq!(at, [Duration::ZERO, Duration::ZERO, second]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_is_woken_before_it_is_time() {
    let mut worker = start([]);
    let first = worker.ticks.recv().await.unwrap();

    worker.wake.send(1).unwrap();

    assert_eq!(worker.ticks.recv().await.unwrap(), first);
}

#[tokio::test(start_paused = true)]
async fn failures_are_followed_by_longer_waits_and_nothing_wakes_them() {
    let mut worker = start([
        failure(),
        failure(),
        failure(),
        Ok(NextTick::Now),
        failure(),
    ]);
    worker.wake.send(1).unwrap();

    let mut ticks = Vec::new();
    for _ in 0..6 {
        ticks.push(worker.ticks.recv().await.unwrap());
    }

    let waits: Vec<_> = ticks.windows(2).map(|two| two[1] - two[0]).collect();
    let min = BACKOFF_MIN;
    assert_eq!(waits, [min, min * 2, min * 4, Duration::ZERO, min]);
}

#[test]
fn waits_after_failures_have_an_end() {
    assert_eq!(backoff(0), BACKOFF_MIN);
    assert_eq!(backoff(6), BACKOFF_MAX);
    assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_every_wait() {
    for answers in [vec![], vec![failure()]] {
        let mut worker = start(answers);
        let first = worker.ticks.recv().await.unwrap();
        // It waits now.
        tokio::task::yield_now().await;

        worker.stop.cancel();

        worker.ended.await.unwrap();
        assert_eq!(time::Instant::now(), first);
    }
}
