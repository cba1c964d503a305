//! The program `ferroflow`: the services of this project.

use std::process::ExitCode;

fn main() -> ExitCode {
    ferroflow::run(&ferroflow::services())
}
