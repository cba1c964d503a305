//! The workspace's test binaries: built together, then run one by one.
//!
//! `cargo test` can do either only: `--workspace --test it` runs the tests of all packages, and
//! `--package` builds what packages share once more, with fewer features.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::shell::{program, root, run};

/// Tests of a package that are run together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selection {
    /// The package's folder; none for those of all packages.
    package: Option<&'static str>,
    /// `lib` for unit tests, else the name of an integration test.
    target: &'static str,
    /// Names, parts of names, and what else a test binary takes.
    arguments: &'static [&'static str],
}

#[cfg(test)]
impl Selection {
    /// Whether it has the tests of a file, by the file's path from the root of the workspace.
    pub(crate) fn covers(&self, file: &str) -> bool {
        let skipped = |module: &str| {
            let mut pairs = self.arguments.windows(2);
            pairs.any(|pair| pair[0] == "--skip" && module.starts_with(pair[1]))
        };
        let named = |module: &str| {
            let mut names = self.arguments.iter().take_while(|name| **name != "--skip");
            let none = self.arguments.first().is_none_or(|name| *name == "--skip");
            none || names.any(|name| module.contains(name.trim_end_matches("::")))
        };
        let (folder, inner) = match self.target {
            "lib" => ("/src/", String::new()),
            target => ("/tests/", format!("{target}/")),
        };
        let Some((package, path)) = file.split_once(folder) else {
            return false;
        };
        // A binary may be a folder or a single file.
        let path = path.strip_suffix(".rs").unwrap_or(path);
        let module = match path.strip_prefix(inner.as_str()) {
            Some(inner) => inner.replace('/', "::"),
            None if path == self.target => String::new(),
            None => return false,
        };
        let of_package = self.package.is_none_or(|wanted| wanted == package);
        of_package && named(&module) && !skipped(&format!("{module}::"))
    }
}

/// Unit tests of every package.
pub(crate) const fn unit_tests(arguments: &'static [&'static str]) -> Selection {
    Selection {
        package: None,
        target: "lib",
        arguments,
    }
}

/// Tests in one binary of a package.
pub(crate) const fn tests_of(
    package: &'static str,
    target: &'static str,
    arguments: &'static [&'static str],
) -> Selection {
    Selection {
        package: Some(package),
        target,
        arguments,
    }
}

/// One that was built.
#[derive(Debug, Clone, PartialEq)]
struct TestBinary {
    /// The package's folder, from the root of the workspace.
    package: String,
    target: String,
    executable: PathBuf,
}

/// All that were built.
pub(crate) struct TestBinaries(Vec<TestBinary>);

impl TestBinaries {
    /// Builds them with these arguments beside those that choose them.
    pub(crate) fn build(arguments: &[&str]) -> anyhow::Result<Self> {
        println!("$ cargo test --workspace --no-run {}", arguments.join(" "));
        let mut cargo = program(env!("CARGO"), &["test", "--quiet", "--workspace"]);
        cargo
            .args(["--no-run", "--message-format", "json-render-diagnostics"])
            .args(arguments)
            .stderr(Stdio::inherit());
        let output = cargo.output().context("cannot start cargo")?;
        if !output.status.success() {
            bail!("{cargo:?} ended with {}", output.status);
        }
        let found = binaries(&String::from_utf8(output.stdout)?, &root());
        Ok(Self(found?))
    }

    fn select(&self, selection: &Selection) -> Vec<&TestBinary> {
        let matches = |binary: &&TestBinary| {
            selection.target == binary.target
                && selection
                    .package
                    .is_none_or(|package| package == binary.package)
        };
        self.0.iter().filter(matches).collect()
    }

    /// Runs what was selected with `variables`. A selection that matches no test fails: it would
    /// pass for ever after a test was renamed.
    pub(crate) fn run(
        &self,
        selections: &[Selection],
        flags: &[&str],
        variables: &[(&'static str, String)],
    ) -> anyhow::Result<()> {
        for selection in selections {
            let mut has_tests = false;
            for binary in self.select(selection) {
                if binary.count(selection.arguments)? == 0 {
                    continue;
                }
                has_tests = true;
                let mut test = binary.command(selection.arguments);
                run(test.args(flags).envs(variables.iter().cloned()))?;
            }
            if !has_tests {
                bail!("there is no test in {selection:?}: correct it in xtask/src/real_parts.rs");
            }
        }
        Ok(())
    }
}

impl TestBinary {
    /// The command, in the folder that cargo would run it in.
    fn command(&self, arguments: &[&str]) -> Command {
        let folder = root().join(&self.package);
        let mut command = program(&self.executable, arguments);
        command
            .env("CARGO_MANIFEST_DIR", &folder)
            .current_dir(folder);
        command
    }

    /// How many tests these arguments leave.
    fn count(&self, arguments: &[&str]) -> anyhow::Result<usize> {
        let mut list = self.command(arguments);
        let output = list.args(["--list", "--format", "terse"]).output()?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("{list:?} ended with {}: {stderr}", output.status);
        }
        Ok(listed(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// Tests in a terse list.
fn listed(text: &str) -> usize {
    text.lines().filter(|line| line.ends_with(": test")).count()
}

/// The test binaries among cargo's messages.
fn binaries(messages: &str, root: &Path) -> anyhow::Result<Vec<TestBinary>> {
    let mut found = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Value = serde_json::from_str(line).context("cargo's messages")?;
        let Some(executable) = message["executable"].as_str() else {
            continue;
        };
        // Programs are built for the integration tests of their packages.
        if message["profile"]["test"] != true {
            continue;
        }
        let manifest = Path::new(message["manifest_path"].as_str().unwrap_or_default());
        let folder = manifest.parent().unwrap_or(manifest);
        let package = folder.strip_prefix(root).unwrap_or(folder);
        let target = &message["target"];
        let name = match target["kind"][0].as_str() {
            Some("test") => target["name"].as_str().unwrap_or_default(),
            Some(kind) => kind,
            None => bail!("cargo names a test of no kind: {line}"),
        };
        found.push(TestBinary {
            package: package.display().to_string(),
            target: name.to_owned(),
            executable: executable.into(),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(package: &str, target: &str, executable: &str) -> TestBinary {
        TestBinary {
            package: package.to_owned(),
            target: target.to_owned(),
            executable: executable.into(),
        }
    }

    #[test]
    fn test_binaries_are_found_among_what_cargo_says() {
        let messages = r#"
{"reason":"compiler-artifact","manifest_path":"/w/crates/db/Cargo.toml","target":{"kind":["lib"],"name":"ferroflow_db"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","manifest_path":"/w/crates/db/Cargo.toml","target":{"kind":["lib"],"name":"ferroflow_db"},"profile":{"test":true},"executable":"/t/db-1"}
{"reason":"compiler-artifact","manifest_path":"/w/crates/db/Cargo.toml","target":{"kind":["test"],"name":"it"},"profile":{"test":true},"executable":"/t/it-1"}
{"reason":"compiler-artifact","manifest_path":"/w/bin/ferroflow/Cargo.toml","target":{"kind":["bin"],"name":"ferroflow"},"profile":{"test":false},"executable":"/t/ferroflow"}
{"reason":"build-finished","success":true}
"#;

        let found = binaries(messages, Path::new("/w")).unwrap();

        let wanted = [
            binary("crates/db", "lib", "/t/db-1"),
            binary("crates/db", "it", "/t/it-1"),
        ];
        assert_eq!(found, wanted);
        assert!(binaries("{\"executable\":", Path::new("/w")).is_err());
    }

    #[test]
    fn a_selection_is_of_one_package_or_of_all() {
        let all = TestBinaries(vec![
            binary("crates/db", "lib", "/t/1"),
            binary("crates/db", "it", "/t/2"),
            binary("crates/bus", "it", "/t/3"),
            binary("crates/bus", "lib", "/t/4"),
        ]);
        let selected = |selection: Selection| -> Vec<String> {
            let found = all.select(&selection).into_iter();
            let found = found.map(|one| one.executable.display().to_string());
            found.collect()
        };

        assert_eq!(selected(unit_tests(&[])), ["/t/1", "/t/4"]);
        assert_eq!(selected(tests_of("crates/bus", "it", &[])), ["/t/3"]);
        assert!(selected(tests_of("crates/x", "it", &[])).is_empty());
    }

    #[test]
    fn a_selection_covers_the_files_whose_tests_it_runs() {
        let all = tests_of("crates/bus", "it", &["--skip", "kafka::"]);
        assert!(all.covers("crates/bus/tests/it/services.rs"));
        assert!(!all.covers("crates/bus/tests/it/kafka/faults.rs"));
        assert!(!all.covers("crates/db/tests/it/services.rs"));
        assert!(!all.covers("crates/bus/src/services.rs"));

        let some = tests_of("tests", "it", &["upgrade::a_recorded", "events::"]);
        assert!(some.covers("tests/tests/it/events.rs"));
        assert!(!some.covers("tests/tests/it/tenants.rs"));
        assert!(!some.covers("tests/tests/cluster/events.rs"));

        let stores = unit_tests(&["store::"]);
        assert!(stores.covers("services/x/src/store/tests.rs"));
        assert!(!stores.covers("services/x/src/app/tests.rs"));
        assert!(!stores.covers("services/x/tests/it/store.rs"));
        assert!(tests_of("crates/x", "lib", &[]).covers("crates/x/src/a/tests.rs"));
        assert!(tests_of("tests/sixth", "it", &[]).covers("tests/sixth/tests/it.rs"));
    }

    /// A test binary lists its tests, and this one is such a binary.
    fn this_binary() -> TestBinaries {
        let this_binary = std::env::current_exe().unwrap();
        TestBinaries(vec![binary("xtask", "bin", this_binary.to_str().unwrap())])
    }

    #[test]
    fn a_selection_without_a_test_fails() {
        let run = |arguments| this_binary().run(&[tests_of("xtask", "bin", arguments)], &[], &[]);

        let refused = run(&["no_test_has_this_name"]).unwrap_err().to_string();
        assert!(refused.contains("no_test_has_this_name"), "{refused}");
        run(&[
            "--exact",
            "test_binaries::tests::tests_in_a_list_are_counted",
        ])
        .unwrap();
    }

    #[test]
    fn a_binary_that_fails_fails_the_run() {
        let selection = tests_of("xtask", "bin", &["tests_in_a_list_are_counted"]);

        this_binary().run(&[selection], &[], &[]).unwrap();
        assert!(
            this_binary()
                .run(&[selection], &["--no-such-flag"], &[])
                .is_err()
        );
    }

    #[test]
    fn tests_in_a_list_are_counted() {
        assert_eq!(listed("a::b: test\nc: test\nd: benchmark\n"), 2);
        assert_eq!(listed(""), 0);
    }
}
