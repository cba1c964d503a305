//! The launcher as a program of its own: `ferroflow-launcher <attempt dir>`.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1) else {
        return ExitCode::from(2);
    };
    match ferroflow_launcher::launch(&PathBuf::from(dir)) {
        Ok(()) => ExitCode::SUCCESS,
        // The runtime finds no report and says that the launcher vanished.
        Err(_) => ExitCode::FAILURE,
    }
}
