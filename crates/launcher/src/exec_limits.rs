//! What a command is given on its way to the kernel: arguments and variables, and their limits.
//!
//! `execve(2)` takes arguments and variables of at most [`ARGUMENT_MAX`] bytes each, and of both
//! together no more than a quarter of the stack's limit. A command that keeps to that is executed as
//! it is. The SDK's bootstrap finds what is larger in files; any other command fails with an error
//! that names the value.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use serde_json::{Map, Value};

use crate::kfp::bootstrap;
use crate::{AttemptSpec, Failure, FailureReason};

/// The largest argument or variable, its end included (`MAX_ARG_STRLEN`: 32 pages; of the smallest
/// pages that Linux has).
pub(crate) const ARGUMENT_MAX: usize = 131_072;

/// What the kernel takes of arguments and variables at least, and at most (three quarters of the
/// default stack of 8 MiB), whatever the stack's limit is.
const TOTAL_LIMITS: (u64, u64) = (131_072, 6 * 1024 * 1024);

/// Room for what shells add to the arguments and variables that they pass on.
const SHELL_RESERVE: u64 = 16 * 1024;

/// A command as it is executed.
pub(crate) struct PreparedCommand {
    pub(crate) argv: Vec<String>,
    /// What is set beside the environment that it was prepared for.
    pub(crate) env: Option<(String, String)>,
}

/// The attempt's command for an environment; large arguments go to files in `folder` where that is
/// possible.
///
/// # Errors
/// Names the value that is too large, or the file that cannot be written.
pub(crate) fn prepare(
    spec: &AttemptSpec,
    env: &[(OsString, OsString)],
    folder: &Path,
) -> Result<PreparedCommand, Failure> {
    let variables = || env.iter().map(|(name, value)| (&**name, &**value));
    check_variables(variables(), spec.arguments()).map_err(too_large)?;
    let Err(problem) = check(&spec.argv, variables(), spec.arguments()) else {
        return Ok(PreparedCommand {
            argv: spec.argv.clone(),
            env: None,
        });
    };
    let rewritten = match &spec.kfp {
        Some(_) => bootstrap::move_to_files(&spec.argv, folder)
            .map_err(|error| Failure::of_io("cannot write its large values", &error))?,
        None => None,
    };
    let Some(rewritten) = rewritten else {
        return Err(too_large(problem));
    };
    let added = (OsStr::new(&rewritten.env.0), OsStr::new(&rewritten.env.1));
    check(
        &rewritten.argv,
        variables().chain([added]),
        spec.arguments(),
    )
    .map_err(too_large)?;
    Ok(PreparedCommand {
        argv: rewritten.argv,
        env: Some(rewritten.env),
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
        if size > ARGUMENT_MAX {
            let name = name.display();
            let note = largest_parameter_in(value, arguments);
            return Err(format!(
                "environment variable {name} is {size} bytes long{note}, and Linux gives a command \
                 variables of at most {ARGUMENT_MAX}: pass the value as an artifact"
            ));
        }
    }
    Ok(())
}

/// Whether the kernel takes arguments and variables.
fn check<'a>(
    argv: &[String],
    env: impl Iterator<Item = (&'a OsStr, &'a OsStr)>,
    arguments: Option<&Map<String, Value>>,
) -> Result<(), String> {
    // Only components of KFP have input parameters.
    let advice = match arguments {
        Some(_) => {
            "pass the value as an artifact, or use a Python component, which is given large values \
             in files"
        }
        None => "pass the value in a file",
    };
    for (at, argument) in argv.iter().enumerate() {
        let size = argument.len() + 1;
        if size > ARGUMENT_MAX {
            let note = largest_parameter_in(OsStr::new(argument), arguments);
            return Err(format!(
                "word {at} of its command is {size} bytes long{note}, and Linux gives a command \
                 words of at most {ARGUMENT_MAX}: {advice}"
            ));
        }
    }
    // The kernel counts the pointer to each as well.
    let pointer = size_of::<usize>();
    let argv_size: usize = argv
        .iter()
        .map(|argument| argument.len() + 1 + pointer)
        .sum();
    let env_size: usize = env
        .map(|(name, value)| name.len() + value.len() + 2 + pointer)
        .sum();
    let (size, max) = ((argv_size + env_size) as u64, total_max());
    if size + SHELL_RESERVE > max {
        let largest = argv.iter().max_by_key(|argument| argument.len());
        let note = largest.map(|argument| largest_parameter_in(OsStr::new(argument), arguments));
        return Err(format!(
            "the words of its command and its environment are {size} bytes long{}, and this machine \
             gives a command at most {max}, a quarter of the limit of its stack: {advice}",
            note.unwrap_or_default()
        ));
    }
    Ok(())
}

fn total_max() -> u64 {
    let (least, most) = TOTAL_LIMITS;
    let quarter = getrlimit(Resource::Stack).current.map(|stack| stack / 4);
    quarter.unwrap_or(most).clamp(least, most)
}

/// The largest input parameter that is part of a text, as a note in an error.
fn largest_parameter_in(text: &OsStr, arguments: Option<&Map<String, Value>>) -> String {
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
    fn the_largest_argument_that_linux_takes_is_accepted() {
        let most = "x".repeat(ARGUMENT_MAX - 1);
        let run = |argument: &str| std::process::Command::new("true").arg(argument).status();

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
    fn many_arguments_together_are_too_large() {
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
    fn a_command_without_parameters_gets_no_advice_about_components() {
        let argv = ["x".repeat(ARGUMENT_MAX)];

        let problem = check(&argv, std::iter::empty(), None).unwrap_err();

        assert!(problem.ends_with("pass the value in a file"), "{problem}");
    }

    #[test]
    fn a_large_variable_is_named() {
        let value = "x".repeat(ARGUMENT_MAX);
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
