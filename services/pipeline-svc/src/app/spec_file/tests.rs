use std::fmt::Write as _;
use std::io::{Cursor, Write as _};

use flate2::write::GzEncoder;

use super::{from_json, read};

const GOOD: &str = "pipelineInfo: {name: p}\nschemaVersion: 2.1.0\nroot: {dag: {tasks: {}}}\n";

fn tar_gz(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), flate2::Compression::best()));
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        // Written into the header as it is: the builder would refuse what an attacker would not.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append(&header, *bytes).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        archive
            .start_file(*name, zip::write::SimpleFileOptions::default())
            .unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn problem(filename: &str, bytes: &[u8]) -> String {
    read(filename, bytes).unwrap_err().to_string()
}

#[test]
fn every_form_of_the_same_pipeline_reads_the_same() {
    let plain = read("p.yaml", GOOD.as_bytes()).unwrap();
    let member: &[(&str, &[u8])] = &[("other.txt", b"x"), ("pipeline.yaml", GOOD.as_bytes())];

    assert_eq!(read("p.tar.gz", &tar_gz(member)).unwrap(), plain);
    assert_eq!(read("p.zip", &zip(member)).unwrap(), plain);
    assert_eq!(
        read("p.zip", &zip(&[("any.yaml", GOOD.as_bytes())])).unwrap(),
        plain
    );
    assert_eq!(from_json(plain.pipeline.clone()).unwrap(), plain);
    let both = serde_json::json!({"pipeline_spec": plain.pipeline, "platform_spec": null});
    assert_eq!(from_json(both).unwrap(), plain);
}

#[test]
fn unsafe_paths_and_archive_bombs_are_refused_by_name() {
    let good = GOOD.as_bytes();
    let out = tar_gz(&[("../evil.yaml", good), ("pipeline.yaml", good)]);
    assert!(problem("p.tar.gz", &out).contains("../evil.yaml"));
    let absolute = tar_gz(&[("/etc/evil.yaml", good)]);
    assert!(problem("p.tar.gz", &absolute).contains("/etc/evil.yaml"));
    let bomb = vec![b'#'; 40 * 1024 * 1024];
    assert!(problem("p.tar.gz", &tar_gz(&[("pipeline.yaml", &bomb)])).contains("unpacks to more"));
    assert!(problem("p.zip", &zip(&[("pipeline.yaml", &bomb)])).contains("unpacks to more"));
    assert!(problem("p.zip", &zip(&[])).contains("empty"));
    assert!(problem("p.zip", &zip(&[("a.txt", good)])).contains("a.txt"));
    assert!(problem("p.zip", b"not an archive").contains("must end with"));
    assert!(problem("p.png", good).contains("must end with"));
}

#[test]
fn documents_are_counted_and_others_ignored() {
    let platform = "platforms: {kubernetes: {deploymentSpec: {executors: {}}}}\n";
    let read = |text: String| read("p.yaml", text.as_bytes());

    assert!(
        read(format!("{GOOD}---\n{platform}---\nother: 1\n"))
            .unwrap()
            .platform
            .is_some()
    );
    for (text, words) in [
        (format!("{GOOD}---\n{GOOD}"), "multiple pipeline specs"),
        (
            format!("{GOOD}---\n{platform}---\n{platform}"),
            "multiple platform specs",
        ),
        (platform.to_owned(), "no pipeline spec is provided"),
        ("a: [".to_owned(), "failed to parse pipeline spec YAML"),
        (
            format!("{GOOD}pipelineInfo: {{name: q}}\n"),
            "failed to parse pipeline spec YAML",
        ),
    ] {
        let error = read(text.clone()).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn every_unknown_field_is_named_with_its_place() {
    let text = "pipelineInfo: {name: 3, nick: x}\nroot: {dag: {tasks: {a: {componentReff: {}}}}}\n";

    let error = read("p.yaml", text.as_bytes()).unwrap_err();

    let places: Vec<_> = error
        .field_violations()
        .iter()
        .map(|v| v.field.as_str())
        .collect();
    assert_eq!(
        places,
        [
            "pipelineInfo.name",
            "pipelineInfo.nick",
            "root.dag.tasks.a.componentReff"
        ]
    );
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let inner = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(text, "a{level}: &a{level} [{inner}]").unwrap();
    }

    assert!(problem("p.yaml", text.as_bytes()).contains("failed to parse"));
}

#[test]
fn a_workflow_of_another_engine_is_refused_by_its_kind() {
    let argo = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {}\n";

    let text = read("w.yaml", argo.as_bytes()).unwrap_err().to_string();
    assert!(
        text.contains("an Argo Workflow") && text.contains("compile with kfp 2"),
        "{text}"
    );

    let tekton =
        serde_json::json!({"apiVersion": "tekton.dev/v1beta1", "kind": "PipelineRun", "spec": {}});
    let text = from_json(tekton).unwrap_err().to_string();
    assert!(text.contains("a Tekton PipelineRun"), "{text}");
}
