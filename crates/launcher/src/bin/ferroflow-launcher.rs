//! The launcher as a program of its own.
//!
//! ```text
//! ferroflow-launcher <attempt dir>     one attempt on this machine
//! ferroflow-launcher --try-read-only <dir>    whether inputs can be mounted read-only here
//! ferroflow-launcher copy <file>       puts itself where another container finds it
//! ferroflow-launcher models <folder>   copies an image's `/models` where another container finds it
//! ferroflow-launcher pod               one attempt inside a pod
//! ferroflow-launcher container <attempt dir> [<shared dir>…]    one attempt inside a container
//! ```

use std::ffi::OsString;
#[cfg(feature = "pod")]
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        #[cfg(feature = "pod")]
        [first, to] if first == "copy" => {
            report_error(&ferroflow_launcher::pod::copy_self(Path::new(to)))
        }
        #[cfg(feature = "pod")]
        [first, to] if first == "models" => {
            report_error(&ferroflow_launcher::pod::copy_models(Path::new(to)))
        }
        #[cfg(feature = "pod")]
        [first] if first == "pod" => {
            run_single_threaded(ferroflow_launcher::pod::run(), report_pod_end)
        }
        #[cfg(feature = "pod")]
        [first, dir, shared @ ..] if first == "container" => {
            let shared: Vec<_> = shared.iter().map(PathBuf::from).collect();
            report_error(&ferroflow_launcher::container::run(Path::new(dir), &shared))
        }
        local => ferroflow_launcher::main(local),
    }
}

#[cfg(feature = "pod")]
fn run_single_threaded<E: std::error::Error + 'static>(
    work: impl Future<Output = Result<(), E>>,
    end: fn(&Result<(), E>) -> ExitCode,
) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => end(&runtime.block_on(work)),
        Err(error) => report_error(&Err::<(), _>(error)),
    }
}

/// The end of an attempt in a pod. Who asks Kubernetes why the container ended is told too; without
/// that the log still says it.
#[cfg(feature = "pod")]
fn report_pod_end(result: &Result<(), ferroflow_launcher::pod::PodError>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    let message = ferroflow_types::error::chain(error);
    // The file that Kubernetes reads a container's termination message from, by default.
    let _not_written = std::fs::write("/dev/termination-log", message).is_err();
    let code = report_error(result);
    if error.is_away() {
        ExitCode::from(ferroflow_launcher::NO_OUTCOME_EXIT_CODE)
    } else {
        code
    }
}

#[cfg(feature = "pod")]
#[expect(
    clippy::print_stderr,
    reason = "the pod's log is the only place for it"
)]
fn report_error<E: std::error::Error + 'static>(result: &Result<(), E>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    eprintln!(
        "ferroflow-launcher: {}",
        ferroflow_types::error::chain(error)
    );
    ExitCode::FAILURE
}
