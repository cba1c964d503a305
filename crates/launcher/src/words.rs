//! What a command is given on its way to the kernel: words and variables, and their limits.
//!
//! `execve(2)` takes words and variables of at most [`WORD_MAX`] bytes each, and of both together no
//! more than a quarter of the stack's limit. A command that keeps to that is executed as it is. The
//! SDK's bootstrap finds what is larger in files; any other command fails with an error that names
//! the value.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use serde_json::{Map, Value};

use crate::kfp::bootstrap;
use crate::{AttemptSpec, Failure, FailureReason};

/// The largest word or variable, its end included (`MAX_ARG_STRLEN`: 32 pages; of the smallest pages
/// that Linux has).
pub(crate) const WORD_MAX: usize = 131_072;

/// What the kernel takes of words and variables at least, and at most (three quarters of the default
/// stack of 8 MiB), whatever the stack's limit is.
const TOTAL: (u64, u64) = (131_072, 6 * 1024 * 1024);

/// Room for what shells add to the words and variables that they pass on.
const SPARE: u64 = 16 * 1024;

/// A command as it is executed.
pub(crate) struct Words {
    pub(crate) argv: Vec<String>,
    /// What is set beside the environment that it was prepared for.
    pub(crate) env: Option<(String, String)>,
}

/// The attempt's command for an environment; large words go to files in `folder` where that is
/// possible.
///
/// # Errors
/// Names the value that is too large, or the file that cannot be written.
pub(crate) fn prepare(
    spec: &AttemptSpec,
    env: &[(OsString, OsString)],
    folder: &Path,
) -> Result<Words, Failure> {
    let variables = || env.iter().map(|(name, value)| (&**name, &**value));
    check_variables(variables(), spec.arguments()).map_err(too_large)?;
    let Err(problem) = check(&spec.argv, variables(), spec.arguments()) else {
        return Ok(Words {
            argv: spec.argv.clone(),
            env: None,
        });
    };
    let handed = match &spec.kfp {
        Some(_) => bootstrap::hand_over(&spec.argv, folder)
            .map_err(|error| Failure::of_io("cannot write its large values", &error))?,
        None => None,
    };
    let Some(handed) = handed else {
        return Err(too_large(problem));
    };
    let added = (OsStr::new(&handed.env.0), OsStr::new(&handed.env.1));
    check(&handed.argv, variables().chain([added]), spec.arguments()).map_err(too_large)?;
    Ok(Words {
        argv: handed.argv,
        env: Some(handed.env),
    })
}

fn too_large(problem: String) -> Failure {
    Failure::new(FailureReason::StartFailed, problem)
}

/// Whether every variable can be given to a command.
///
/// # Errors
/// Names the variable, and the input parameter in it.
pub(crate) fn check_variables<'a>(
    env: impl Iterator<Item = (&'a OsStr, &'a OsStr)>,
    arguments: Option<&Map<String, Value>>,
) -> Result<(), String> {
    for (name, value) in env {
        // `NAME=value` and its end.
        let size = name.len() + value.len() + 2;
        if size > WORD_MAX {
            let name = name.display();
            let whose = whose(value, arguments);
            return Err(format!(
                "environment variable {name} is {size} bytes long{whose}, and Linux gives a command \
                 variables of at most {WORD_MAX}: pass the value as an artifact"
            ));
        }
    }
    Ok(())
}

/// Whether the kernel takes words and variables.
fn check<'a>(
    argv: &[String],
    env: impl Iterator<Item = (&'a OsStr, &'a OsStr)>,
    arguments: Option<&Map<String, Value>>,
) -> Result<(), String> {
    // Only components of KFP have input parameters.
    let way_out = match arguments {
        Some(_) => {
            "pass the value as an artifact, or use a Python component, which is given large values \
             in files"
        }
        None => "pass the value in a file",
    };
    for (at, word) in argv.iter().enumerate() {
        let size = word.len() + 1;
        if size > WORD_MAX {
            let whose = whose(OsStr::new(word), arguments);
            return Err(format!(
                "word {at} of its command is {size} bytes long{whose}, and Linux gives a command \
                 words of at most {WORD_MAX}: {way_out}"
            ));
        }
    }
    // The kernel counts the pointer to each as well.
    let pointer = size_of::<usize>();
    let words: usize = argv.iter().map(|word| word.len() + 1 + pointer).sum();
    let variables: usize = env
        .map(|(name, value)| name.len() + value.len() + 2 + pointer)
        .sum();
    let (size, max) = ((words + variables) as u64, total_max());
    if size + SPARE > max {
        let largest = argv.iter().max_by_key(|word| word.len());
        let whose = largest.map(|word| whose(OsStr::new(word), arguments));
        return Err(format!(
            "the words of its command and its environment are {size} bytes long{}, and this machine \
             gives a command at most {max}, a quarter of the limit of its stack: {way_out}",
            whose.unwrap_or_default()
        ));
    }
    Ok(())
}

fn total_max() -> u64 {
    let (least, most) = TOTAL;
    let quarter = getrlimit(Resource::Stack).current.map(|stack| stack / 4);
    quarter.unwrap_or(most).clamp(least, most)
}

/// The largest input parameter that is part of a text, in words.
fn whose(text: &OsStr, arguments: Option<&Map<String, Value>>) -> String {
    let text = text.to_string_lossy();
    let sizes = arguments.into_iter().flatten().filter_map(|(name, value)| {
        let value = match value {
            Value::String(value) => value.clone(),
            other => other.to_string(),
        };
        // As part of a JSON text, the value is written with escapes.
        let escaped = || serde_json::to_string(&value).unwrap_or_default();
        let is_part = text.contains(&*value) || text.contains(escaped().trim_matches('"'));
        is_part.then_some((value.len(), name))
    });
    sizes.max().map_or_else(String::new, |(size, name)| {
        format!(" with input parameter {name} of {size} bytes")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(name: &str, value: &str) -> Map<String, Value> {
        Map::from_iter([
            ("other".to_owned(), "x".into()),
            (name.to_owned(), value.into()),
        ])
    }

    #[test]
    fn the_largest_word_that_linux_takes_is_taken() {
        let most = "x".repeat(WORD_MAX - 1);
        let run = |word: &str| std::process::Command::new("true").arg(word).status();

        assert!(run(&most).is_ok());
        assert!(check(&["true".to_owned(), most.clone()], std::iter::empty(), None).is_ok());
        let more = format!("{most}x");
        assert!(run(&more).is_err());
        let problem = check(
            &["echo".to_owned(), more.clone()],
            std::iter::empty(),
            Some(&arguments("text", &more)),
        );
        let problem = problem.unwrap_err();
        for named in [
            "input parameter text of 131072 bytes",
            "at most 131072",
            "word 1",
        ] {
            assert!(problem.contains(named), "{problem}");
        }
    }

    #[test]
    fn many_words_are_too_much_as_well() {
        let argv: Vec<_> = (0..80).map(|_| "x".repeat(100_000)).collect();

        let problem = check(
            &argv,
            std::iter::empty(),
            Some(&arguments("text", &argv[0])),
        )
        .unwrap_err();

        assert!(
            problem.contains("input parameter text of 100000 bytes"),
            "{problem}"
        );
        assert!(
            problem.contains("quarter of the limit of its stack"),
            "{problem}"
        );
    }

    #[test]
    fn a_command_without_parameters_is_not_told_of_components() {
        let argv = ["x".repeat(WORD_MAX)];

        let problem = check(&argv, std::iter::empty(), None).unwrap_err();

        assert!(problem.ends_with("pass the value in a file"), "{problem}");
    }

    #[test]
    fn a_large_variable_is_named() {
        let value = "x".repeat(WORD_MAX);
        let env = [(OsStr::new("TEXT"), OsStr::new(&value))];

        let problem =
            check_variables(env.into_iter(), Some(&arguments("text", &value))).unwrap_err();

        assert!(problem.contains("environment variable TEXT"), "{problem}");
        assert!(
            problem.contains("input parameter text of 131072 bytes"),
            "{problem}"
        );
    }
}
