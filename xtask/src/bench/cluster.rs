//! Steps on a cluster against bare pods of the same image, in the same minutes.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use ferroflow_testkit::bare_pods::BarePods;
use ferroflow_testkit::cluster::Cluster;
use ferroflow_testkit::{Platform, shell_pipeline};
use serde_json::json;

use super::{Figure, LIMIT};

const CHAIN: usize = 10;
const PARALLEL: usize = 20;

/// Sequential and parallel `true` steps.
pub(super) fn figures(folder: &Path) -> anyhow::Result<Vec<Figure>> {
    let cluster = Cluster::open().map_err(|reason| anyhow!(reason))?;
    let more = json!({"pipelines": {"parallel_tasks": PARALLEL, "caching": false}});
    let settings = cluster.settings(folder, &more).display().to_string();
    let platform = Platform::start(folder, &["--config", &settings]);
    let bare = BarePods::open(cluster.task_image());
    // The first pod of all warms what all later ones share.
    sequential(&bare, 1);

    let chain: Vec<_> = (0..CHAIN)
        .map(|at| {
            let upstream = (at > 0).then(|| format!("t{}", at - 1));
            (
                format!("t{at}"),
                "true".to_owned(),
                upstream.into_iter().collect(),
            )
        })
        .collect();
    let wide: Vec<_> = (0..PARALLEL)
        .map(|at| (format!("t{at}"), "true".to_owned(), Vec::new()))
        .collect();
    let chain = (sequential(&bare, CHAIN), steps(&platform, &chain));
    let wide = (parallel(&bare), steps(&platform, &wide));
    Ok(vec![
        figure("10 `true` steps, one after the other", chain),
        figure("20 `true` steps at once", wide),
    ])
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
