//! What a command needs of Python.

use ferroflow_launcher::AttemptSpec;
use ferroflow_python_env::{EnvSpec, PipInstall};

use crate::kfp;

/// What a command needs of Python.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Python {
    /// Nothing.
    None,
    /// A shared environment; the command starts at this element.
    Shared { spec: EnvSpec, start: usize },
    /// An environment of its own, because it installs packages in a way that is not recognised.
    Private,
}

pub(crate) fn env(steps: Vec<PipInstall>) -> EnvSpec {
    EnvSpec {
        steps,
        python: None,
    }
}

/// Elements before the command proper in a component that installs packages; of any other command,
/// those that may say that it does.
pub(crate) const INSTALLER: usize = 3;

/// What an attempt's command needs.
pub(crate) fn of_attempt(spec: &AttemptSpec) -> Python {
    let component = spec.kfp.as_ref().and_then(|_| kfp::recognise(&spec.argv));
    component.unwrap_or_else(|| recognise(&spec.argv))
}

/// Whether it needs any, of a command that may be a component's.
pub(crate) fn is_python(argv: &[String]) -> bool {
    kfp::recognise(argv).is_some() || recognise(argv) != Python::None
}

/// What a command needs that is no component.
fn recognise(argv: &[String]) -> Python {
    let words = || argv.iter().take(INSTALLER);
    if words().any(|word| word.contains("pip install") || word.contains("pip3 install")) {
        return Python::Private;
    }
    let mentions = words().any(|word| word.contains("python"));
    let is_python = matches!(
        program(text(argv, 0)),
        "python" | "python3" | "pip" | "pip3"
    );
    if is_python || is_shell(argv) && mentions {
        Python::Shared {
            spec: EnvSpec::default(),
            start: 0,
        }
    } else {
        Python::None
    }
}

pub(crate) fn text(argv: &[String], at: usize) -> &str {
    argv.get(at).map_or("", String::as_str)
}

pub(crate) fn is_shell(argv: &[String]) -> bool {
    matches!(program(text(argv, 0)), "sh" | "bash")
}

pub(crate) fn program(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use ferroflow_launcher::kfp::{Kfp, OutputSpec};

    use super::*;
    use crate::tests::key;

    #[test]
    fn shell_commands_need_no_python_unless_they_name_it() {
        let argv = |words: [&str; 3]| words.map(str::to_owned).to_vec();

        assert_eq!(recognise(&argv(["sh", "-c", "echo hi"])), Python::None);
        assert!(matches!(
            recognise(&argv(["sh", "-c", "python3 x.py"])),
            Python::Shared { .. }
        ));
        assert!(matches!(
            recognise(&argv(["python", "-c", "1"])),
            Python::Shared { .. }
        ));
        assert_eq!(
            recognise(&argv(["sh", "-c", "pip install x"])),
            Python::Private
        );
    }

    #[test]
    fn only_the_attempts_of_components_skip_the_installer() {
        let script = "python3 -m pip install six && \"$0\" \"$@\"";
        let run = "python3 -m kfp.dsl.executor_main \"$@\"";
        let argv = ["sh", "-c", script, "sh", "-ec", run].map(str::to_owned);
        let mut spec = AttemptSpec {
            argv: argv.to_vec(),
            ..AttemptSpec::new(key("a", 1), "/work".into())
        };

        assert_eq!(of_attempt(&spec), Python::Private);
        assert!(is_python(&spec.argv));
        spec.kfp = Some(Kfp {
            outputs: OutputSpec::new("/outputs".as_ref()),
            platform: serde_json::Map::new(),
            arguments: serde_json::Map::new(),
        });
        assert!(matches!(
            of_attempt(&spec),
            Python::Shared {
                start: INSTALLER,
                ..
            }
        ));
    }
}
