//! Lists of 100,000 runs, over HTTP, against a limit for the slowest of a hundred answers.

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ferroflow_testkit::{Platform, agent, shell_pipeline};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{Figure, LIMIT, ms};

const FILL_SCRIPT: &str = include_str!("lists.py");

/// What a list may take, at the 99th percentile.
const TARGET: Duration = Duration::from_millis(10);

const KEYS: [&str; 11] = [
    "created_at",
    "finished_at",
    "scheduled_at",
    "name",
    "description",
    "id",
    "state",
    "storage_state",
    "experiment_id",
    "pipeline_name",
    "recurring_run_id",
];

/// Connecting takes longer than some of the lists.
static AGENT: LazyLock<ureq::Agent> = LazyLock::new(agent);

const REPETITIONS: usize = 50;
const PAGES: usize = 1_000;

pub(super) fn figures(folder: &Path) -> anyhow::Result<Vec<Figure>> {
    let data = folder.join("lists");
    let mut platform = Platform::start(&data, &[]);
    let spec = shell_pipeline("one", &[("t".to_owned(), "true".to_owned(), Vec::new())]);
    let run = platform.submit("one", &spec, &json!({}));
    platform.wait(&run, LIMIT);
    platform.kill();
    let filled = Command::new("python3")
        .args(["-c", FILL_SCRIPT])
        .arg(data.join("pipelines.db"))
        .status()?;
    anyhow::ensure!(filled.success(), "the runs could not be copied");
    let platform = Platform::start(&data, &[]);

    let mut figures = vec![sort_by_each_key(&platform)?];
    for (what, operation, key, value) in [
        ("… of one state of three", "EQUALS", "state", "FAILED"),
        ("… of one name, 1,000 runs", "EQUALS", "name", "nightly"),
        (
            "… with a text in 1,000 names",
            "IS_SUBSTRING",
            "name",
            "ghtl",
        ),
        (
            "… with a text in no name",
            "IS_SUBSTRING",
            "name",
            "nowhere",
        ),
    ] {
        let filter = json!({"predicates": [
            {"operation": operation, "key": key, "string_value": value},
        ]});
        let path = format!(
            "sort_by=created_at%20desc&filter={}",
            utf8_percent_encode(&filter.to_string(), NON_ALPHANUMERIC)
        );
        figures.push(figure(what, String::new(), time_request(&platform, &path)?));
    }
    figures.push(page_through(&platform)?);
    Ok(figures)
}

/// First pages, each with its count, by every key and both ways; the slowest key is told.
fn sort_by_each_key(platform: &Platform) -> anyhow::Result<Figure> {
    let mut slowest = (Duration::ZERO, String::new());
    for key in KEYS {
        for word in ["asc", "desc"] {
            let took = time_request(platform, &format!("sort_by={key}%20{word}"))?;
            if took > slowest.0 {
                slowest = (took, format!("{key} {word}"));
            }
        }
    }
    let (took, key) = slowest;
    let what = "100,000 runs, first page by the slowest key, p99";
    Ok(figure(what, format!(" ({key})"), took))
}

/// One page after the other.
fn page_through(platform: &Platform) -> anyhow::Result<Figure> {
    let mut token = String::new();
    let mut times = Vec::with_capacity(PAGES);
    for _ in 0..PAGES {
        let path = format!("page_token={token}");
        let begun = Instant::now();
        let page = page(platform, &path)?;
        times.push(begun.elapsed());
        token = page["next_page_token"]
            .as_str()
            .context("the list ended")?
            .to_owned();
    }
    let last = *times.last().context("no page")?;
    let what = "… each of 1,000 pages after one another";
    let note = format!("; the last {}", ms(last));
    // The first page counts and is measured above.
    Ok(figure(what, note, p99(times.split_off(1))))
}

fn time_request(platform: &Platform, path: &str) -> anyhow::Result<Duration> {
    page(platform, path)?;
    let mut times = Vec::with_capacity(REPETITIONS);
    for _ in 0..REPETITIONS {
        let begun = Instant::now();
        page(platform, path)?;
        times.push(begun.elapsed());
    }
    Ok(p99(times))
}

fn page(platform: &Platform, path: &str) -> anyhow::Result<Value> {
    let path = format!("/apis/v2beta1/runs?page_size=20&{path}");
    let (status, page) = platform.get_by(&AGENT, &path);
    anyhow::ensure!(status == 200, "{path}: {status} {page}");
    Ok(page)
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    let at = (times.len() * 99).div_ceil(100).saturating_sub(1);
    times.get(at).copied().unwrap_or_default()
}

fn figure(what: &'static str, note: String, took: Duration) -> Figure {
    Figure {
        what,
        ours: format!("{}{note}", ms(took)),
        peer: format!("{:.0} ms", TARGET.as_secs_f64() * 1000.0),
        ratio: format!("{:.2}", took.as_secs_f64() / TARGET.as_secs_f64()),
        target: "≤ 1",
    }
}
