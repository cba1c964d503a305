//! `ferroflow completions`.

use std::process::ExitCode;

use clap_complete::Shell;

use super::output::bytes;

pub(super) const EXAMPLES: &str = "\
Examples:
  ferroflow completions bash > ~/.local/share/bash-completion/completions/ferroflow
  ferroflow completions zsh > \"${fpath[1]}/_ferroflow\"
  ferroflow completions fish > ~/.config/fish/completions/ferroflow.fish";

#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(super) fn print(&self, mut command: clap::Command) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "ferroflow", &mut script);
        bytes(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}
