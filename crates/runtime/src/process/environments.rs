//! The Python that a command runs on: which one, its environment, and what is said of both.

use ferroflow_launcher::{AttemptFiles, AttemptSpec, Failure, FailureReason};
use ferroflow_python_env::{EnvError, EnvSpec, Python as Interpreter, PythonEnv, PythonVersion};

use super::Processes;
use crate::folders::unless_stopped;
use crate::python::{self, PythonRequirement};

/// An environment that a command runs in.
pub(super) struct PreparedPython {
    pub(super) env: PythonEnv,
    /// Where the command proper starts.
    pub(super) start: usize,
    /// Variables of the launcher's own that it gets as well.
    pub(super) inherited: Vec<String>,
    /// Further variables.
    pub(super) variables: Vec<(String, String)>,
}

impl Processes {
    /// The environment that the command needs; none for one that needs no Python.
    pub(super) async fn python_for(
        &self,
        spec: &AttemptSpec,
        files: &AttemptFiles,
    ) -> Result<Option<PreparedPython>, Failure> {
        let python = PythonVersion::of_image(&spec.image);
        let (env, start) = match python::of_attempt(spec) {
            PythonRequirement::None => return Ok(None),
            PythonRequirement::Shared { spec, start } => (EnvSpec { python, ..spec }, start),
            PythonRequirement::Private => {
                let env = EnvSpec {
                    python,
                    ..EnvSpec::default()
                };
                let dir = files.dir().join("venv");
                let build = self.python.build_private(&dir, &env);
                let env = self.build_with_note(spec, files, &env, build).await?;
                // The command runs pip itself, with an empty HOME: it is told where this user's
                // configuration is.
                let (inherited, variables) = self.python.pip_variables();
                return Ok(Some(PreparedPython {
                    env,
                    start: 0,
                    inherited,
                    variables,
                }));
            }
        };
        let build = self.python.ensure(&env);
        let env = self.build_with_note(spec, files, &env, build).await?;
        Ok(Some(PreparedPython {
            env,
            start,
            inherited: Vec::new(),
            variables: Vec::new(),
        }))
    }

    /// Waits for an environment while the task says so.
    async fn build_with_note(
        &self,
        spec: &AttemptSpec,
        files: &AttemptFiles,
        env: &EnvSpec,
        build: impl Future<Output = Result<PythonEnv, EnvError>>,
    ) -> Result<PythonEnv, Failure> {
        let packages = match env.packages() {
            none if none.is_empty() => String::new(),
            some => format!(" with {some}"),
        };
        let note = format!("its Python environment{packages} is being built");
        self.notes.set(&spec.key, Some(&note));
        let built = unless_stopped(files, build).await;
        self.notes.set(&spec.key, None);
        built?.map_err(|error| Failure::new(FailureReason::Environment, error.to_string()))
    }

    /// What interprets a command; nothing where that is no Python, or there is none.
    pub(super) async fn interpreter_of(&self, image: &str, argv: &[String]) -> Option<Interpreter> {
        if !python::is_python(argv) {
            return None;
        }
        // Without an interpreter the command itself fails, and says so.
        self.python
            .python(PythonVersion::of_image(image))
            .await
            .ok()
    }
}
