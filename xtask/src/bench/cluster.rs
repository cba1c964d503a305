//! Steps on a cluster against bare pods of the same image, in the same minutes.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use ferroflow_testkit::bare_pods::BarePods;
use ferroflow_testkit::cluster::Cluster;
use ferroflow_testkit::{Platform, shell_pipeline};
use serde_json::json;

use super::{Figure, LIMIT};

const CHAIN: usize = 10;
const PARALLEL: usize = 20;

/// Sequential and parallel `true` steps, in pods of their own and in pods that waited for them.
pub(super) fn figures(folder: &Path) -> anyhow::Result<Vec<Figure>> {
    let cluster = Cluster::open().map_err(|reason| anyhow!(reason))?;
    let bare = BarePods::open(cluster.task_image());
    // The first pod of all warms what all later ones share.
    sequential(&bare, 1);
    let mut figures = Vec::new();
    {
        let platform = platform(&cluster, &folder.join("cold"), 0)?;
        let pair = (sequential(&bare, CHAIN), steps(&platform, &chained_tasks()));
        figures.push(figure("10 `true` steps, one after the other", pair));
        let pair = (parallel(&bare), steps(&platform, &parallel_tasks()));
        figures.push(figure("20 `true` steps at once", pair));
    }
    let platform = platform(&cluster, &folder.join("warm"), PARALLEL)?;
    // The first step says what is to be kept warm.
    steps(&platform, &chained_tasks()[..1]);
    wait_for_warm_pods(&cluster, PARALLEL)?;
    let pair = (sequential(&bare, CHAIN), steps(&platform, &chained_tasks()));
    figures.push(figure("10 steps, one after the other, in warm pods", pair));
    wait_for_warm_pods(&cluster, PARALLEL)?;
    let pair = (parallel(&bare), steps(&platform, &parallel_tasks()));
    figures.push(figure("20 steps at once, in warm pods", pair));
    Ok(figures)
}

fn platform(cluster: &Cluster, folder: &Path, warm: usize) -> anyhow::Result<Platform> {
    std::fs::create_dir_all(folder)?;
    let mut kubernetes = cluster.kubernetes();
    kubernetes["warm"] = json!({"size": warm});
    let more = json!({
        "pipelines": {"parallel_tasks": PARALLEL, "caching": false},
        "kubernetes": kubernetes,
    });
    let settings = cluster.settings(folder, &more);
    Ok(Platform::start(folder, &["--config", &settings]))
}

/// Until as many pods wait, and their start does not disturb what is measured.
fn wait_for_warm_pods(cluster: &Cluster, count: usize) -> anyhow::Result<()> {
    let selector = "pipelines.ferroflow.ai/warm,!pipelines.ferroflow.ai/run";
    let begun = Instant::now();
    loop {
        let ready = "jsonpath={.items[*].status.containerStatuses[*].ready}";
        let ready_states = cluster.kubectl(&["get", "pods", "-l", selector, "-o", ready]);
        if ready_states
            .split_whitespace()
            .filter(|word| *word == "true")
            .count()
            >= count
        {
            return Ok(());
        }
        if begun.elapsed() > LIMIT {
            bail!("{count} warm pods are not there: {ready_states}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

type Tasks = Vec<(String, String, Vec<String>)>;

fn chained_tasks() -> Tasks {
    let task = |at: usize| {
        let upstream = (at > 0).then(|| format!("t{}", at - 1));
        (
            format!("t{at}"),
            "true".to_owned(),
            upstream.into_iter().collect(),
        )
    };
    (0..CHAIN).map(task).collect()
}

fn parallel_tasks() -> Tasks {
    let task = |at| (format!("t{at}"), "true".to_owned(), Vec::new());
    (0..PARALLEL).map(task).collect()
}

fn figure(what: &'static str, (bare, ours): (Duration, Duration)) -> Figure {
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    Figure {
        what,
        ours: seconds(ours),
        peer: format!("{} bare pods", seconds(bare)),
        ratio: format!("{:.2}", ours.as_secs_f64() / bare.as_secs_f64()),
        target: "≤ 1.15",
    }
}

fn sequential(bare: &BarePods, count: usize) -> Duration {
    let begun = Instant::now();
    for at in 0..count {
        let name = format!("bare-{}-{at}", std::process::id());
        bare.create(&name);
        bare.finish(&name);
    }
    begun.elapsed()
}

fn parallel(bare: &BarePods) -> Duration {
    let begun = Instant::now();
    let names: Vec<_> = (0..PARALLEL)
        .map(|at| format!("wide-{}-{at}", std::process::id()))
        .collect();
    for name in &names {
        bare.create(name);
    }
    for name in &names {
        bare.finish(name);
    }
    begun.elapsed()
}

fn steps(platform: &Platform, tasks: &[(String, String, Vec<String>)]) -> Duration {
    let begun = Instant::now();
    let run = platform.submit("bench", &shell_pipeline("bench", tasks), &json!({}));
    let ended = platform.wait(&run, LIMIT);
    assert_eq!(ended["state"], "SUCCEEDED", "{ended:#}");
    begun.elapsed()
}
