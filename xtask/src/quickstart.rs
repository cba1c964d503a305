//! From a checkout to a finished pipeline in one command.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::python;
use crate::shell::{build_with_progress, root, run};

/// How long the platform may take to start.
const READY: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(crate) struct Quickstart {
    /// End after the pipeline; without it the platform stays up until Ctrl-C.
    #[arg(long)]
    once: bool,
    /// Where everything is kept [default: ~/.ferroflow].
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Address and port of the platform.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

/// Stops the platform when the quickstart ends, however it ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been stopped by the same Ctrl-C.
        let _ended = self.0.kill().is_err();
        let _ended = self.0.wait().is_err();
    }
}

impl Quickstart {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        println!("1. building ferroflow (the first time takes some minutes)");
        let ferroflow = build_with_progress()?;
        let data_dir = match self.data_dir {
            Some(given) => std::path::absolute(given)?,
            None => std::env::home_dir()
                .context("there is no home folder")?
                .join(".ferroflow"),
        };
        std::fs::create_dir_all(&data_dir)?;
        println!("2. the kfp SDK");
        let requirements = root().join("tests/kfp_sdk/requirements.txt");
        let python = python::environment(&data_dir.join("client-env"), &requirements)?;
        println!("3. the platform");
        let mut server = start(&ferroflow, &data_dir, self.listen)?;
        let url = format!("http://{}", wait(&mut server, &data_dir)?);
        println!("   ready at {url}");
        println!("4. a pipeline; its packages are installed once");
        let mut example = Command::new(python);
        example.arg("run.py").args(["--host", &url]);
        example.env("PYTHONWARNINGS", "ignore::FutureWarning");
        run(example.current_dir(root().join("examples/digits")))?;
        println!("\n  data          {}", data_dir.display());
        println!("  in a browser  {url}");
        println!("  API           {url}/openapi.json   metrics {url}/metrics");
        println!("  command line  {} run list", ferroflow.display());
        if self.once {
            return Ok(());
        }
        println!("\nthe platform stays up, Ctrl-C stops it");
        let status = server.0.wait()?;
        if status.success() {
            Ok(())
        } else {
            bail!("the platform ended with {status}")
        }
    }
}

fn start(ferroflow: &Path, data_dir: &Path, listen: SocketAddr) -> anyhow::Result<Server> {
    let port_file = data_dir.join("port");
    if port_file.exists() {
        std::fs::remove_file(&port_file)?;
    }
    let log = std::fs::File::create(data_dir.join("server.log"))?;
    let child = Command::new(ferroflow)
        .args(["up", "--listen", &listen.to_string(), "--data-dir"])
        .arg(data_dir)
        .arg("--port-file")
        .arg(port_file)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("cannot start the platform")?;
    Ok(Server(child))
}

fn wait(server: &mut Server, data_dir: &Path) -> anyhow::Result<String> {
    let begun = Instant::now();
    loop {
        let address = std::fs::read_to_string(data_dir.join("port")).unwrap_or_default();
        if !address.is_empty() {
            return Ok(address);
        }
        if server.0.try_wait()?.is_some() || begun.elapsed() > READY {
            let log = std::fs::read_to_string(data_dir.join("server.log")).unwrap_or_default();
            bail!("the platform did not start:\n{log}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
