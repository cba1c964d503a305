//! The picture of the packages in `ARCHITECTURE.md`, drawn from `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

use crate::shell::root;

const FILE: &str = "ARCHITECTURE.md";
const BEGIN: &str = "<!-- drawn by `cargo xtask picture` -->\n";
const END: &str = "<!-- end of the picture -->\n";

/// What depends on what, of ours; without tests and tools, which depend on everything.
type Graph = BTreeMap<String, BTreeSet<String>>;

#[derive(Debug, clap::Args)]
pub(crate) struct Picture {
    /// Change nothing; fail when the picture in ARCHITECTURE.md is out of date.
    #[arg(long)]
    check: bool,
}

/// Fails when the picture is out of date.
pub(crate) fn check() -> anyhow::Result<()> {
    Picture { check: true }.run()
}

impl Picture {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let drawn = draw(&transitive_reduction(&graph(&metadata()?)));
        let path = root().join(FILE);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {FILE}"))?;
        let found = replace_picture(&text, &drawn)?;
        if self.check {
            anyhow::ensure!(
                found == text,
                "the picture of the packages in {FILE} is out of date: run `cargo xtask picture`"
            );
            return Ok(());
        }
        std::fs::write(&path, found).with_context(|| format!("cannot write {FILE}"))
    }
}

fn metadata() -> anyhow::Result<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn graph(metadata: &Value) -> Graph {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut graph = Graph::new();
    for package in list(&metadata["packages"]) {
        let is_ours = |path: &str| {
            ["/bin/", "/crates/", "/services/"]
                .iter()
                .any(|part| path.contains(part))
        };
        let path = package["manifest_path"].as_str().unwrap_or_default();
        let path = path.strip_prefix(&*root().to_string_lossy());
        if !path.is_some_and(is_ours) {
            continue;
        }
        let needs = list(&package["dependencies"]);
        let needs = needs.iter().filter(|other| other["kind"].is_null());
        let needs = needs.filter_map(|other| other["path"].as_str().and(short(&other["name"])));
        if let Some(name) = short(&package["name"]) {
            graph.insert(name, needs.collect());
        }
    }
    graph
}

fn short(name: &Value) -> Option<String> {
    let name = name.as_str()?;
    Some(name.strip_prefix("ferroflow-").unwrap_or(name).to_owned())
}

/// Without the edges that follow from others.
fn transitive_reduction(graph: &Graph) -> Graph {
    let mut reduced = Graph::new();
    for (package, needs) in graph {
        let beyond: BTreeSet<_> = needs
            .iter()
            .flat_map(|need| reachable(graph, need))
            .collect();
        reduced.insert(package.clone(), needs - &beyond);
    }
    reduced
}

/// Everything that a package depends on, at any distance.
fn reachable(graph: &Graph, package: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![package];
    while let Some(package) = open.pop() {
        for need in graph.get(package).into_iter().flatten() {
            if found.insert(need.clone()) {
                open.push(need);
            }
        }
    }
    found
}

/// As a Mermaid graph, which code hosts show as a picture.
fn draw(graph: &Graph) -> String {
    let mut text = String::from("```mermaid\ngraph TD\n");
    for (package, needs) in graph {
        for need in needs {
            let _infallible = writeln!(text, "    {package} --> {need}");
        }
        if needs.is_empty() && !graph.values().any(|needs| needs.contains(package)) {
            let _infallible = writeln!(text, "    {package}");
        }
    }
    text.push_str("```\n");
    text
}

fn replace_picture(text: &str, drawn: &str) -> anyhow::Result<String> {
    let marked = text.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some(format!("{before}{BEGIN}{drawn}{END}{after}"))
    });
    marked.with_context(|| format!("{FILE} has no place for the picture: {BEGIN}{END}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph_of(edges: &[(&str, &[&str])]) -> Graph {
        let edges = edges.iter();
        edges
            .map(|(from, to)| {
                let to = to.iter().map(|name| (*name).to_owned());
                ((*from).to_owned(), to.collect())
            })
            .collect()
    }

    #[test]
    fn edges_that_follow_from_others_are_not_drawn() {
        let graph = graph_of(&[
            ("app", &["db", "types", "log"]),
            ("db", &["types"]),
            ("log", &[]),
            ("alone", &[]),
            ("types", &[]),
        ]);

        let drawn = draw(&transitive_reduction(&graph));

        assert_eq!(
            drawn,
            "```mermaid\ngraph TD\n    alone\n    app --> db\n    app --> log\n    db --> types\n```\n"
        );
    }

    #[test]
    fn only_the_marked_part_of_the_file_changes() {
        let text = format!("# Map\n{BEGIN}old\n{END}rest\n");

        let found = replace_picture(&text, "new\n").unwrap();

        assert_eq!(found, format!("# Map\n{BEGIN}new\n{END}rest\n"));
        assert_eq!(replace_picture(&found, "new\n").unwrap(), found);
        assert!(replace_picture("# Map\n", "new\n").is_err());
    }
}
