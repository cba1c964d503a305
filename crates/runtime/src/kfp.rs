//! Lightweight Python components of KFP, whose command installs packages and then runs.
//!
//! The kfp SDK compiles one to
//! `sh -c <pip script> sh -ec <run script> <source> …` (reference: `component_factory.py`). The
//! packages come from a cached environment instead, and the command starts at its fourth element.

use ferroflow_python_env::PipInstall;

use crate::python::{INSTALLER_ARGS, PythonRequirement, arg, env_spec, is_shell, program};

/// What a component needs; nothing for a command that is none.
pub(crate) fn recognise(argv: &[String]) -> Option<PythonRequirement> {
    if is_shell(argv)
        && arg(argv, 1) == "-c"
        && is_executor(argv.get(INSTALLER_ARGS..).unwrap_or_default())
    {
        return Some(match pip_installs(arg(argv, 2)) {
            Some(steps) => PythonRequirement::Shared {
                spec: env_spec(steps),
                start: INSTALLER_ARGS,
            },
            None => PythonRequirement::Private,
        });
    }
    if !is_executor(argv) && !is_module_executor(argv) {
        return None;
    }
    // The image would bring kfp; here it comes from PyPI, without dependencies: its executor needs
    // none.
    let kfp = PipInstall {
        packages: vec!["kfp".to_owned()],
        no_deps: true,
        ..PipInstall::default()
    };
    Some(PythonRequirement::Shared {
        spec: env_spec(vec![kfp]),
        start: 0,
    })
}

/// `sh -ec <script that runs the executor> …`
fn is_executor(argv: &[String]) -> bool {
    let [shell, flag, script, ..] = argv else {
        return false;
    };
    // The second is where betas of SDK 2.0 had it.
    let runs = ["kfp.dsl.executor_main", "kfp.components.executor_main"];
    matches!(program(shell), "sh" | "bash")
        && flag == "-ec"
        && runs.iter().any(|module| script.contains(module))
}

/// `python3 -m kfp.dsl.executor_main …`
fn is_module_executor(argv: &[String]) -> bool {
    matches!(argv, [python, flag, module, ..]
        if program(python).starts_with("python") && flag == "-m" && module.ends_with("executor_main"))
}

/// The installations of a pip script, `None` when one has an option that is not known.
fn pip_installs(script: &str) -> Option<Vec<PipInstall>> {
    let mut steps = Vec::new();
    for line in script.lines() {
        // The SDK joins one installation of the component's packages and one of kfp itself.
        for command in line.split("&&") {
            if let Some((_, arguments)) = command.split_once("-m pip install") {
                steps.push(pip_install(arguments)?);
            }
        }
    }
    Some(steps)
}

/// Options of pip that change nothing in an environment of its own.
const IGNORED: [&str; 12] = [
    "--quiet",
    "-q",
    "--no-warn-script-location",
    "--upgrade",
    "-U",
    "--user",
    "--no-cache-dir",
    "--no-input",
    "--disable-pip-version-check",
    "--prefer-binary",
    "--break-system-packages",
    "--progress-bar=off",
];

fn pip_install(arguments: &str) -> Option<PipInstall> {
    let mut step = PipInstall::default();
    let args = shlex::split(arguments)?;
    // The shell replaces these before pip sees them, so what is installed cannot be read here.
    if args.iter().any(|arg| arg.contains(['$', '`'])) {
        return None;
    }
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        // Only of options: a requirement has a `=` as well (`kfp==2.0`).
        let (option, value) = match arg.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(value.to_owned())),
            _ => (arg.as_str(), None),
        };
        let mut value = || value.clone().or_else(|| args.next());
        match option {
            _ if IGNORED.contains(&arg.as_str()) => {}
            "--no-deps" => step.no_deps = true,
            "--no-index" => step.no_index = true,
            "--pre" => step.pre = true,
            "--index-url" | "-i" => step.index_url = Some(value()?),
            "--extra-index-url" => step.extra_index_urls.push(value()?),
            "--find-links" | "-f" => step.find_links.push(value()?),
            "--trusted-host" => step.trusted_hosts.push(value()?),
            // It may change what is installed: the command runs pip itself, in an environment of
            // its own.
            option if option.starts_with('-') => return None,
            _ => step.packages.push(arg),
        }
    }
    Some(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(script: &str) -> Vec<String> {
        let run = "_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main \"$@\"";
        ["sh", "-c", script, "sh", "-ec", run, "source"]
            .map(str::to_owned)
            .to_vec()
    }

    #[test]
    fn a_lightweight_component_becomes_a_shared_environment() {
        let script = "\nif ! [ -x \"$(command -v pip)\" ]; then\n    python3 -m ensurepip\nfi\n\n\
            PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet \
            --no-warn-script-location --index-url https://a/simple 'numpy>=1' && \
            python3 -m pip install --quiet 'kfp==2.17.0' '--no-deps' \
            'typing-extensions>=3.7.4,<5; python_version<\"3.9\"' && \"$0\" \"$@\"\n";

        let Some(PythonRequirement::Shared { spec, start }) = recognise(&component(script)) else {
            panic!("not recognised")
        };

        assert_eq!(start, 3);
        assert_eq!(spec.steps[0].packages, ["numpy>=1"]);
        assert_eq!(spec.steps[0].index_url.as_deref(), Some("https://a/simple"));
        assert!(spec.steps[1].no_deps);
        assert_eq!(spec.steps[1].packages.len(), 2);
    }

    #[test]
    fn an_unknown_pip_option_gets_an_environment_of_its_own() {
        for options in [
            "--target /x six",
            "--index-url https://$TOKEN@host/simple six",
        ] {
            let script = format!("python3 -m pip install {options} && \"$0\" \"$@\"");
            let found = recognise(&component(&script));
            assert_eq!(found, Some(PythonRequirement::Private), "{options}");
        }
    }

    #[test]
    fn options_are_read_in_both_forms() {
        let script = "python3 -m pip install --no-cache-dir --pre --index-url=https://a/simple?x=1 \
            -f /wheels --trusted-host=host:81 'six==1.16' && \"$0\" \"$@\"";

        let Some(PythonRequirement::Shared { spec, .. }) = recognise(&component(script)) else {
            panic!("not recognised")
        };

        let step = &spec.steps[0];
        assert_eq!(step.index_url.as_deref(), Some("https://a/simple?x=1"));
        assert_eq!(step.find_links, ["/wheels"]);
        assert_eq!(step.trusted_hosts, ["host:81"]);
        assert_eq!(step.packages, ["six==1.16"]);
        assert!(step.pre);
    }

    #[test]
    fn other_commands_are_no_components() {
        for args in [
            &["python3", "train.py"][..],
            &["sh", "-c", "pip install x"],
            &[],
        ] {
            let argv: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
            assert_eq!(recognise(&argv), None, "{argv:?}");
        }
    }
}
