//! What a command needs of Python.

use ferroflow_launcher::AttemptSpec;
use ferroflow_python_env::{EnvSpec, PipInstall};

use crate::kfp;

/// What a command needs of Python.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PythonRequirement {
    /// Nothing.
    None,
    /// A shared environment; the command starts at this element.
    Shared { spec: EnvSpec, start: usize },
    /// An environment of its own, because it installs packages in a way that is not recognised.
    Private,
}

pub(crate) fn env_spec(steps: Vec<PipInstall>) -> EnvSpec {
    EnvSpec {
        steps,
        python: None,
    }
}

/// Elements before the command proper in a component that installs packages; of any other command,
/// those that may say that it does.
pub(crate) const INSTALLER_ARGS: usize = 3;

/// What an attempt's command needs.
pub(crate) fn of_attempt(spec: &AttemptSpec) -> PythonRequirement {
    let component = spec.kfp.as_ref().and_then(|_| kfp::recognise(&spec.argv));
    component.unwrap_or_else(|| recognise(&spec.argv))
}

/// Whether it needs any, of a command that may be a component's.
pub(crate) fn is_python(argv: &[String]) -> bool {
    kfp::recognise(argv).is_some() || recognise(argv) != PythonRequirement::None
}

/// What a command needs that is no component.
fn recognise(argv: &[String]) -> PythonRequirement {
    let args = || argv.iter().take(INSTALLER_ARGS);
    if args().any(|arg| arg.contains("pip install") || arg.contains("pip3 install")) {
        return PythonRequirement::Private;
    }
    let mentions_python = args().any(|arg| arg.contains("python"));
    let is_python = matches!(program(arg(argv, 0)), "python" | "python3" | "pip" | "pip3");
    if is_python || is_shell(argv) && mentions_python {
        PythonRequirement::Shared {
            spec: EnvSpec::default(),
            start: 0,
        }
    } else {
        PythonRequirement::None
    }
}

pub(crate) fn arg(argv: &[String], index: usize) -> &str {
    argv.get(index).map_or("", String::as_str)
}

pub(crate) fn is_shell(argv: &[String]) -> bool {
    matches!(program(arg(argv, 0)), "sh" | "bash")
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
        let argv = |args: [&str; 3]| args.map(str::to_owned).to_vec();

        assert_eq!(
            recognise(&argv(["sh", "-c", "echo hi"])),
            PythonRequirement::None
        );
        assert!(matches!(
            recognise(&argv(["sh", "-c", "python3 x.py"])),
            PythonRequirement::Shared { .. }
        ));
        assert!(matches!(
            recognise(&argv(["python", "-c", "1"])),
            PythonRequirement::Shared { .. }
        ));
        assert_eq!(
            recognise(&argv(["sh", "-c", "pip install x"])),
            PythonRequirement::Private
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

        assert_eq!(of_attempt(&spec), PythonRequirement::Private);
        assert!(is_python(&spec.argv));
        spec.kfp = Some(Kfp {
            outputs: OutputSpec::new("/outputs".as_ref()),
            platform: serde_json::Map::new(),
            arguments: serde_json::Map::new(),
        });
        assert!(matches!(
            of_attempt(&spec),
            PythonRequirement::Shared {
                start: INSTALLER_ARGS,
                ..
            }
        ));
    }
}
