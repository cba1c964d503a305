//! `kill -9` of the server at random moments of a run: nothing lost, nothing twice.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ferroflow_testkit::{Platform, shell_pipeline, transitions};
use serde_json::Value;

const KILLS: u64 = 20;
const TASKS: usize = 30;

/// A small generator (splitmix64); its seed is printed, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// Five rows of six tasks; a task waits for two of the row before. Each leaves one line of its own.
fn pipeline(folder: &Path) -> Value {
    let tasks: Vec<_> = (0..TASKS)
        .map(|at| {
            let (row, column) = (at / 6, at % 6);
            let upstream = match row {
                0 => Vec::new(),
                _ => [column, (column + 1) % 6]
                    .map(|c| format!("t{:02}", (row - 1) * 6 + c))
                    .to_vec(),
            };
            let file = folder.join(format!("t{at:02}"));
            let script = format!("echo ran >> '{}'; sleep 0.05", file.display());
            (format!("t{at:02}"), script, upstream)
        })
        .collect();
    shell_pipeline("crash", &tasks)
}

#[test]
fn a_server_that_is_killed_loses_nothing_and_repeats_nothing() {
    let seed = match std::env::var("FERROFLOW_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs(),
    };
    println!("seed {seed} (FERROFLOW_TEST_SEED repeats it)");
    let mut random = Random(seed);
    let data = tempfile::tempdir().unwrap();
    for kill in 0..KILLS {
        let folder = data.path().join(format!("effects-{kill}"));
        std::fs::create_dir(&folder).unwrap();
        let mut platform = Platform::start(data.path(), &["--parallel-tasks", "6"]);
        let run = platform.submit("crash", &pipeline(&folder), &serde_json::json!({}));
        let moment = Duration::from_millis(random.below(600));
        std::thread::sleep(moment);
        platform.kill();
        let before = std::fs::read_dir(&folder).unwrap().count();
        drop(platform);

        let platform = Platform::start(data.path(), &["--parallel-tasks", "6"]);
        let ended = platform.wait(&run, Duration::from_mins(1));

        assert_eq!(ended["state"], "SUCCEEDED", "{ended:#}");
        for at in 0..TASKS {
            let file = folder.join(format!("t{at:02}"));
            let text = std::fs::read_to_string(&file).unwrap();
            assert_eq!(
                text, "ran\n",
                "kill {kill} after {moment:?}: task {at} ran again"
            );
        }
        // The relay tells of the run's end a moment after it is stored.
        let complete = |counts: &BTreeMap<(String, String, String), usize>| {
            counts
                .keys()
                .filter(|(kind, ..)| kind.contains("task.succeeded"))
                .count()
                == TASKS + 1
                && counts
                    .keys()
                    .any(|(kind, ..)| kind.contains("run.succeeded"))
        };
        let mut counts = transitions(&platform.events(&run));
        for _ in 0..100 {
            if complete(&counts) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
            counts = transitions(&platform.events(&run));
        }
        assert!(complete(&counts), "{counts:#?}");
        let twice: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).collect();
        assert!(twice.is_empty(), "kill {kill}: {twice:#?}");
        println!(
            "kill {kill:2} after {moment:?}: {before:2} of {TASKS} tasks had run, all ran once"
        );
    }
}

#[test]
fn a_second_platform_on_the_same_folder_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &[]);

    let output = std::process::Command::new(ferroflow_testkit::binary())
        .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data.path())
        .output()
        .unwrap();

    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        text.contains(&format!("process {}", platform.pid())),
        "{text}"
    );
    assert!(text.contains("--data-dir"), "{text}");
}
