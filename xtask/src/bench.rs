//! Figures, as ratios against a peer or a limit in the same run. Nothing here asserts a time.

mod cluster;
mod hop;
mod kafka;
mod lists;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::ValueEnum as _;
use ferroflow_testkit::{Platform, shell_pipeline};
use serde_json::{Value, json};

use crate::real_parts;
use crate::shell::build;

/// No run of a bench takes longer.
const LIMIT: Duration = Duration::from_mins(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// Only these figures; all without it.
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with_all = ["cluster", "kafka"])]
    only: Vec<Part>,
    /// Leave out the fan-out of 10,000 tasks, which takes minutes.
    #[arg(long)]
    short: bool,
    /// Steps on a real cluster against bare pods, instead of the rest.
    #[arg(long)]
    cluster: bool,
    /// Events to a real Kafka against its own producer benchmark, instead of the rest.
    #[arg(long, conflicts_with = "cluster")]
    kafka: bool,
}

/// What is measured on this machine, each on a platform of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Start and idle memory.
    Start,
    /// A chain of commands against a shell loop.
    Chain,
    /// A Python step against `python -c`.
    Python,
    /// Runs that are created by several clients at once.
    Create,
    /// What the gateway adds to a call.
    Hop,
    /// Loops of many tasks.
    FanOut,
    /// Lists of 100,000 runs.
    Lists,
}

impl Part {
    fn figures(self, folder: &Path, short: bool) -> anyhow::Result<Vec<Figure>> {
        match self {
            Self::Start => startup(folder),
            Self::Chain => Ok(vec![chain(folder)?]),
            Self::Python => Ok(vec![python_step(folder)?]),
            Self::Create => create_runs(folder),
            Self::Hop => hop::figures(),
            Self::FanOut => fan_outs(folder, short),
            Self::Lists => lists::figures(folder),
        }
    }
}

/// One line of the table.
struct Figure {
    what: &'static str,
    ours: String,
    peer: String,
    ratio: String,
    target: &'static str,
}

impl Bench {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if self.kafka {
            let folder = tempfile::tempdir()?;
            println!("{}", table(&kafka::figures(folder.path())?));
            return Ok(());
        }
        // Read by the test kit, before any thread is started.
        if std::env::var_os("FERROFLOW_BIN").is_none() {
            let given = if self.cluster {
                real_parts::up()?
            } else {
                vec![("FERROFLOW_BIN", build()?.display().to_string())]
            };
            let again = Command::new(std::env::current_exe()?)
                .args(std::env::args_os().skip(1))
                .envs(given)
                .status()?;
            std::process::exit(again.code().unwrap_or(1));
        }
        let folder = tempfile::tempdir()?;
        if self.cluster {
            println!("{}", table(&cluster::figures(folder.path())?));
            return Ok(());
        }
        let parts = if self.only.is_empty() {
            Part::value_variants()
        } else {
            &self.only
        };
        let mut figures = Vec::new();
        for part in parts {
            figures.extend(part.figures(folder.path(), self.short)?);
        }
        println!("{}", table(&figures));
        Ok(())
    }
}

fn table(figures: &[Figure]) -> String {
    let mut text =
        String::from("| what | ours | peer or limit | ratio | target |\n|---|---|---|---|---|\n");
    for Figure {
        what,
        ours,
        peer,
        ratio,
        target,
    } in figures
    {
        let _infallible = writeln!(text, "| {what} | {ours} | {peer} | {ratio} | {target} |");
    }
    text
}

fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// Resident memory of a process in MiB.
fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

fn startup(folder: &Path) -> anyhow::Result<Vec<Figure>> {
    let data = folder.join("startup");
    // The first start makes the databases.
    drop(Platform::start(&data, &[]));
    let mut times = Vec::new();
    let mut memory = 0.0;
    for _ in 0..5 {
        let begun = Instant::now();
        let platform = Platform::start(&data, &[]);
        times.push(begun.elapsed());
        std::thread::sleep(Duration::from_millis(500));
        memory = resident_mib(platform.pid());
    }
    times.sort();
    let median = times[times.len() / 2];
    Ok(vec![
        Figure {
            what: "start of the platform",
            ours: ms(median),
            peer: "1 s".to_owned(),
            ratio: format!("{:.2}", median.as_secs_f64()),
            target: "≤ 1",
        },
        Figure {
            what: "idle platform, resident",
            ours: format!("{memory:.0} MiB"),
            peer: "100 MiB".to_owned(),
            ratio: format!("{:.2}", memory / 100.0),
            target: "≤ 1",
        },
    ])
}

/// How long the platform took from creating a run to its end, by its own clock.
fn run_time(platform: &Platform, run: &str) -> anyhow::Result<Duration> {
    platform.wait(run, LIMIT);
    let (_, tasks) = platform.get(&format!("/apis/ferroflow/v1/runs/{run}/tasks"));
    let root = tasks["tasks"]
        .as_array()
        .and_then(|tasks| tasks.first().cloned());
    let root = root.context("the run has no tasks")?;
    let at = |field: &str| millis(root[field].as_str().unwrap_or_default());
    Ok(Duration::from_millis(
        at("finished_at").saturating_sub(at("created_at")),
    ))
}

/// Milliseconds of an RFC 3339 time since midnight; no bench crosses it twice.
fn millis(text: &str) -> u64 {
    let clock = text
        .split('T')
        .nth(1)
        .unwrap_or_default()
        .trim_end_matches('Z');
    let mut parts = clock
        .split(':')
        .map(|part| part.parse::<f64>().unwrap_or(0.0));
    let mut next = || parts.next().unwrap_or(0.0);
    let seconds = next() * 3600.0 + next() * 60.0 + next();
    Duration::from_secs_f64(seconds)
        .as_millis()
        .try_into()
        .unwrap_or(0)
}

fn chain(folder: &Path) -> anyhow::Result<Figure> {
    const STEPS: u32 = 200;
    let tasks: Vec<_> = (0..STEPS)
        .map(|at| {
            let before = if at == 0 {
                vec![]
            } else {
                vec![format!("t{:03}", at - 1)]
            };
            (format!("t{at:03}"), "true".to_owned(), before)
        })
        .collect();
    let platform = Platform::start(&folder.join("chain"), &[]);
    let spec = shell_pipeline("chain", &tasks);
    let mut ours = Vec::new();
    for _ in 0..3 {
        let run = platform.submit("chain", &spec, &json!({}));
        ours.push(run_time(&platform, &run)? / STEPS);
    }
    let ours = ours.into_iter().min().unwrap_or_default();
    // The same folders and files, the same command, by a shell that does nothing else.
    let script = format!(
        "i=0; while [ $i -lt {STEPS} ]; do d=\"$0/$i\"; \
         mkdir -p \"$d/home\" \"$d/tmp\" \"$d/work\" \"$d/outputs\"; \
         echo '{{}}' > \"$d/spec.json\"; : > \"$d/lock\"; : > \"$d/started\"; \
         (cd \"$d/work\" && sh -c true) > \"$d/log.txt\" 2>&1; echo 1 > \"$d/process\"; \
         echo '{{}}' > \"$d/outcome.part\"; mv \"$d/outcome.part\" \"$d/outcome.json\"; \
         i=$((i+1)); done"
    );
    let mut peers = Vec::new();
    for round in 0..3 {
        let target = folder.join(format!("loop-{round}"));
        let begun = Instant::now();
        Command::new("sh")
            .arg("-c")
            .arg(&script)
            .arg(&target)
            .status()?;
        peers.push(begun.elapsed() / STEPS);
    }
    let peer = peers.into_iter().min().unwrap_or_default();
    Ok(Figure {
        what: "`sh -c true`, a chain of 200, per step",
        ours: ms(ours),
        peer: format!("{} shell loop", ms(peer)),
        ratio: format!("{:.2}", ours.as_secs_f64() / peer.as_secs_f64()),
        target: "≤ 3",
    })
}

/// A Python command as a step and bare; both in the same environment.
fn python_step(folder: &Path) -> anyhow::Result<Figure> {
    const CODE: &str = "import json, decimal, http.client; sum(range(5_000_000))";
    let data = folder.join("python");
    let platform = Platform::start(&data, &[]);
    let mut spec = shell_pipeline("python", &[("p".to_owned(), String::new(), Vec::new())]);
    spec["deploymentSpec"]["executors"]["exec-p"]["container"]["command"] =
        json!(["python3", "-c", CODE]);
    let mut ours = Vec::new();
    for _ in 0..6 {
        let run = platform.submit("python", &spec, &json!({}));
        ours.push(run_time(&platform, &run)?);
    }
    let envs = std::fs::read_dir(data.join("envs"))?;
    let python = envs
        .filter_map(|entry| Some(entry.ok()?.path().join("bin/python3")))
        .find(|path| path.exists())
        .context("there is no environment")?;
    let mut peers = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        Command::new(&python)
            .args(["-c", CODE])
            .stdout(Stdio::null())
            .status()?;
        peers.push(begun.elapsed());
    }
    // The first run built the environment.
    let ours = ours.into_iter().skip(1).min().unwrap_or_default();
    let peer = peers.into_iter().min().unwrap_or_default();
    Ok(Figure {
        what: "a Python step, environment warm",
        ours: ms(ours),
        peer: format!("{} `python -c`", ms(peer)),
        ratio: format!("{:.2}", ours.as_secs_f64() / peer.as_secs_f64()),
        target: "≤ 1.2",
    })
}

fn create_runs(folder: &Path) -> anyhow::Result<Vec<Figure>> {
    const RUNS: u32 = 2000;
    const CLIENTS: u32 = 16;
    let platform = Platform::start(
        &folder.join("create"),
        &["--active-runs", "1", "--parallel-tasks", "1"],
    );
    // A first run that lasts keeps the engine from taking part in the figure.
    let hold = shell_pipeline(
        "hold",
        &[("h".to_owned(), "sleep 120".to_owned(), Vec::new())],
    );
    platform.submit("hold", &hold, &json!({}));
    let spec = shell_pipeline("small", &[("t".to_owned(), "true".to_owned(), Vec::new())]);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..RUNS / CLIENTS {
                    platform.submit("small", &spec, &Value::Object(serde_json::Map::new()));
                }
            });
        }
    });
    let rate = f64::from(RUNS) / begun.elapsed().as_secs_f64();
    let flushes = flush_rate(folder)?;
    Ok(vec![Figure {
        what: "CreateRun over HTTP, 16 clients, durable",
        ours: format!("{rate:.0}/s"),
        peer: format!("500/s; {flushes:.0} flushes/s"),
        ratio: format!("{:.2}", rate / 500.0),
        target: "≥ 1",
    }])
}

/// Flushes to disk per second, one after the other.
fn flush_rate(folder: &Path) -> anyhow::Result<f64> {
    use std::io::Write as _;
    const COUNT: u32 = 200;
    let mut file = std::fs::File::create(folder.join("flush"))?;
    let begun = Instant::now();
    for _ in 0..COUNT {
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
    }
    Ok(f64::from(COUNT) / begun.elapsed().as_secs_f64())
}

fn fan_out_spec(count: usize) -> Value {
    let items: Vec<usize> = (0..count).collect();
    let mut spec = shell_pipeline("fan-out", &[]);
    spec["components"] = json!({
        "each": {
            "dag": {"tasks": {"t": {"componentRef": {"name": "run"}, "taskInfo": {"name": "t"}}}},
            "inputDefinitions": {"parameters": {"item": {"parameterType": "NUMBER_INTEGER"}}},
        },
        "run": {"executorLabel": "run"},
    });
    spec["deploymentSpec"]["executors"]["run"] =
        json!({"container": {"image": "busybox", "command": ["true"]}});
    spec["root"]["dag"]["tasks"]["loop"] = json!({
        "componentRef": {"name": "each"}, "taskInfo": {"name": "loop"},
        "parameterIterator": {
            "items": {"raw": json!(items).to_string()}, "itemInput": "item",
        },
    });
    spec
}

fn fan_outs(folder: &Path, short: bool) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let (small, _) = fan_out(folder, 100)?;
    let sizes: &[(usize, &'static str)] = if short {
        &[(1_000, "a fan-out of 1,000, per task")]
    } else {
        &[
            (1_000, "a fan-out of 1,000, per task"),
            (10_000, "a fan-out of 10,000, per task"),
        ]
    };
    for (count, what) in sizes {
        let (each, memory) = fan_out(folder, *count)?;
        figures.push(Figure {
            what,
            ours: format!("{}, +{memory:.0} MiB", ms(each)),
            peer: format!("{} at 100; 300 MiB", ms(small)),
            ratio: format!(
                "{:.2}; {:.2}",
                each.as_secs_f64() / small.as_secs_f64(),
                memory / 300.0
            ),
            target: "about 1; ≤ 1",
        });
    }
    Ok(figures)
}

/// Time per task, and the memory that the engine took at its highest.
fn fan_out(folder: &Path, count: usize) -> anyhow::Result<(Duration, f64)> {
    let platform = Platform::start(&folder.join(format!("fan-{count}")), &[]);
    let before = resident_mib(platform.pid());
    let run = platform.submit("fan-out", &fan_out_spec(count), &json!({}));
    let mut highest = before;
    let begun = Instant::now();
    loop {
        highest = highest.max(resident_mib(platform.pid()));
        let list = "/apis/v2beta1/runs?page_size=1";
        let state = platform.get(list).1["runs"][0]["state"].clone();
        if state == "SUCCEEDED" {
            break;
        }
        anyhow::ensure!(
            state != "FAILED" && begun.elapsed() < LIMIT,
            "the fan-out: {state}"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    Ok((run_time(&platform, &run)? / count, highest - before))
}
