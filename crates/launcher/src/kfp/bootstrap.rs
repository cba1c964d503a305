//! The SDK's Python bootstrap, with its large arguments moved to files.
//!
//! ```text
//! sh -c <script that installs> sh -ec <script that runs> <source> --executor_input <JSON> …
//!                                              a file ◄──┘         a file ◄──┘
//! python3 -m kfp.dsl.executor_main --executor_input <JSON> …
//! ```
//!
//! The first three words are missing where nothing is to be installed; the second form is that of
//! components whose source is in their image. Contract: `component_factory.py` of the kfp SDK, whose
//! executor takes its input as a word only. So a few lines of Python read the word from the file and
//! go on as `python3 -m` would.

use std::fs;
use std::io;
use std::path::Path;

/// The variable with [`EXECUTOR`].
const EXECUTOR_VARIABLE: &str = "FERROFLOW_EXECUTOR";

/// What `python3 -m <module> …` does, the word after `--executor_input` read from a file.
const EXECUTOR: &str = "\
import os, runpy, sys
module, words = sys.argv[1], sys.argv[2:]
at = words.index('--executor_input') + 1
with open(words[at], encoding='utf-8', newline='') as file:
    words[at] = file.read()
sys.path[0] = os.getcwd()
sys.argv = [module] + words
runpy.run_module(module, run_name='__main__', alter_sys=True)
";

/// The executor, and where betas of the SDK had it.
const MODULES: [&str; 2] = ["kfp.dsl.executor_main", "kfp.components.executor_main"];

/// How the running script writes the source, and the same for a source that is a file.
const WRITE_SOURCE: [&str; 2] = [r#"printf "%s" "$0" >"#, r#"cat "$0" >"#];

/// A command whose large arguments are in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RewrittenCommand {
    pub(crate) argv: Vec<String>,
    pub(crate) env: (String, String),
}

/// The command with source and input in files of `folder`; nothing when it is not the SDK's.
pub(crate) fn move_to_files(
    argv: &[String],
    folder: &Path,
) -> io::Result<Option<RewrittenCommand>> {
    let Some(rewrite) = find_rewrite(argv) else {
        return Ok(None);
    };
    fs::create_dir_all(folder)?;
    let mut argv = argv.to_vec();
    for (at, name) in rewrite.files {
        let path = folder.join(name);
        fs::write(&path, &argv[at])?;
        argv[at] = path.display().to_string();
    }
    let start = rewrite.start;
    argv.splice(start..start + rewrite.replaced, rewrite.replacement);
    let env = (EXECUTOR_VARIABLE.to_owned(), EXECUTOR.to_owned());
    Ok(Some(RewrittenCommand { argv, env }))
}

/// What is to be changed of a command.
struct BootstrapRewrite {
    /// Arguments that go into files, and their names; all of them after the ones that are replaced.
    files: Vec<(usize, &'static str)>,
    /// The arguments from here on are replaced, so many.
    start: usize,
    replaced: usize,
    replacement: Vec<String>,
}

/// Arguments before the command proper in a component that installs packages.
const INSTALLER_LEN: usize = 3;

fn find_rewrite(argv: &[String]) -> Option<BootstrapRewrite> {
    let input = argv.iter().position(|word| word == "--executor_input")? + 1;
    argv.get(input)?;
    let input = (input, "executor_input.json");
    if let [python, flag, module, ..] = argv
        && program(python).starts_with("python")
        && flag == "-m"
        && MODULES.contains(&module.as_str())
    {
        return Some(BootstrapRewrite {
            files: vec![input],
            start: 0,
            replaced: 2,
            replacement: vec![python.clone(), "-c".to_owned(), EXECUTOR.to_owned()],
        });
    }
    let installs = is_shell(argv, 0, "-c") && is_shell(argv, INSTALLER_LEN, "-ec");
    let start = if installs { INSTALLER_LEN } else { 0 };
    // `sh -ec <script> <source>` are four words, and `--executor_input` comes before its value.
    if !is_shell(argv, start, "-ec") || input.0 < start + 5 {
        return None;
    }
    let script = argv.get(start + 2)?;
    let rewritten = MODULES.into_iter().find_map(|module| {
        let runs = format!("python3 -m {module} ");
        let reads = format!("python3 -c \"${EXECUTOR_VARIABLE}\" {module} ");
        script
            .contains(&runs)
            .then(|| script.replace(&runs, &reads))
    })?;
    if !rewritten.contains(WRITE_SOURCE[0]) {
        return None;
    }
    Some(BootstrapRewrite {
        files: vec![input, (start + 3, "ephemeral_component.py")],
        start: start + 2,
        replaced: 1,
        replacement: vec![rewritten.replace(WRITE_SOURCE[0], WRITE_SOURCE[1])],
    })
}

fn is_shell(argv: &[String], at: usize, flag: &str) -> bool {
    matches!(argv.get(at..at + 2), Some([shell, given])
        if matches!(program(shell), "sh" | "bash") && given == flag)
}

fn program(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "program_path=$(mktemp -d)\n\n\
        printf \"%s\" \"$0\" > \"$program_path/ephemeral_component.py\"\n\
        _KFP_RUNTIME=true python3 -m kfp.dsl.executor_main                         \
        --component_module_path                         \
        \"$program_path/ephemeral_component.py\"                         \"$@\"\n";

    fn to_argv(args: &[&str]) -> Vec<String> {
        args.iter().map(|arg| (*arg).to_owned()).collect()
    }

    #[test]
    fn source_and_input_go_into_files_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let rest = ["--executor_input", "{}", "--function_to_execute", "f"];
        let plain = to_argv(&[&["sh", "-ec", RUN, "source"][..], &rest].concat());
        let installs = to_argv(
            &[
                &[
                    "sh",
                    "-c",
                    "pip && \"$0\" \"$@\"",
                    "sh",
                    "-ec",
                    RUN,
                    "source",
                ][..],
                &rest,
            ]
            .concat(),
        );
        for (argv, start) in [(plain, 0), (installs, 3)] {
            let rewritten = move_to_files(&argv, folder.path()).unwrap().unwrap();

            assert_eq!(rewritten.argv.len(), argv.len());
            assert_eq!(rewritten.argv[..start + 2], argv[..start + 2]);
            let script = &rewritten.argv[start + 2];
            assert!(script.contains("cat \"$0\" > \"$program_path"), "{script}");
            assert!(script.contains("python3 -c \"$FERROFLOW_EXECUTOR\" kfp.dsl.executor_main "));
            let read = |at: usize| fs::read_to_string(&rewritten.argv[at]).unwrap();
            assert_eq!(read(start + 3), "source");
            assert_eq!(read(start + 5), "{}");
            assert_eq!(rewritten.argv[start + 6..], argv[start + 6..]);
        }
    }

    #[test]
    fn a_component_whose_source_is_in_its_image_reads_its_input() {
        let folder = tempfile::tempdir().unwrap();
        let argv = to_argv(&[
            "python3",
            "-m",
            MODULES[0],
            "--executor_input",
            "{}",
            "--function_to_execute",
            "f",
        ]);

        let rewritten = move_to_files(&argv, folder.path()).unwrap().unwrap();

        assert_eq!(
            rewritten.argv[..4],
            to_argv(&["python3", "-c", EXECUTOR, MODULES[0]])
        );
        assert_eq!(fs::read_to_string(&rewritten.argv[5]).unwrap(), "{}");
        assert_eq!(rewritten.argv[6..], argv[5..]);
    }

    #[test]
    fn other_commands_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        for argv in [
            to_argv(&[
                "sh",
                "-ec",
                "echo \"$0\"",
                "source",
                "--executor_input",
                "{}",
            ]),
            to_argv(&["sh", "-ec", RUN, "source"]),
            to_argv(&["python3", "-m", "my.module", "--executor_input", "{}"]),
            to_argv(&["python3", "-m", MODULES[0], "--executor_input"]),
            to_argv(&["sh", "-ec", RUN, "--executor_input", "{}"]),
        ] {
            assert_eq!(
                move_to_files(&argv, folder.path()).unwrap(),
                None,
                "{argv:?}"
            );
        }
    }
}
