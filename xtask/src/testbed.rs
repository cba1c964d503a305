//! Real infrastructure on this machine: `cargo xtask testbed up kubernetes`.
//!
//! What is downloaded or built is kept in `~/.cache/ferroflow-testbed`, outside the checkout, and
//! so is the state of what runs. Every command may be repeated; `down` stops only what `up` started.
//! A part whose variable is set (`KUBECONFIG`, `FERROFLOW_TEST_KAFKA`, `DATABASE_URL`,
//! `FERROFLOW_TEST_S3`, `DOCKER_HOST`) is somebody else's and is used as it is.

mod daemon;
mod docker;
mod images;
mod kafka;
mod kubernetes;
mod minio;
mod node;
mod pki;
mod postgres;
mod tools;

pub(crate) use images::{FERROFLOW, PYTHON};
pub(crate) use node::address;
pub(crate) use tools::is_installed;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};

/// Starts and stops real parts.
#[derive(Debug, Args)]
pub(crate) struct Testbed {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start parts that are not up; all of them when none is named.
    Up { parts: Vec<Part> },
    /// Stop what `up` started.
    Down { parts: Vec<Part> },
    /// Say what is up, and how tests find it.
    Status { parts: Vec<Part> },
    /// Put this checkout's programs into the cluster as an image.
    Image,
    /// Start what is not up, build the programs, and print the variables by which tests find them,
    /// as `export` lines.
    Env,
    /// Kill one process of a part, for tests of faults.
    #[command(hide = true)]
    Kill { process: String },
    /// The same, and start it again.
    #[command(hide = true)]
    Restart { process: String },
    /// Start what has ended since `up`, and say what that was.
    #[command(hide = true)]
    Mend,
}

/// A part of the test bed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    Kubernetes,
    Kafka,
    Postgres,
    Minio,
    Docker,
}

impl Part {
    pub(crate) const ALL: [Self; 5] = [
        Self::Postgres,
        Self::Minio,
        Self::Kafka,
        Self::Docker,
        Self::Kubernetes,
    ];

    /// The variable that tests read, and that says that somebody else runs the part.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Kubernetes => "KUBECONFIG",
            Self::Kafka => "FERROFLOW_TEST_KAFKA",
            Self::Postgres => "DATABASE_URL",
            Self::Minio => "FERROFLOW_TEST_S3",
            Self::Docker => "DOCKER_HOST",
        }
    }

    /// What the variable says when the part is ours.
    pub(crate) fn address(self) -> anyhow::Result<String> {
        Ok(match self {
            Self::Kubernetes => kubernetes::kubeconfig()?.display().to_string(),
            Self::Kafka => format!("{}:{}", node::address()?, kafka::PORT),
            Self::Postgres => postgres::URL.to_owned(),
            Self::Minio => minio::url()?,
            Self::Docker => docker::host()?,
        })
    }

    fn up(self) -> anyhow::Result<()> {
        match self {
            Self::Kubernetes => kubernetes::up(),
            Self::Kafka => kafka::up(),
            Self::Postgres => postgres::up(),
            Self::Minio => minio::up(),
            Self::Docker => docker::up(),
        }
    }

    fn down(self) -> anyhow::Result<()> {
        match self {
            Self::Kubernetes => kubernetes::down(),
            Self::Kafka => kafka::down(),
            Self::Postgres => postgres::down(),
            Self::Minio => minio::down(),
            Self::Docker => docker::down(),
        }
    }

    fn is_up(self) -> bool {
        match self {
            Self::Kubernetes => kubernetes::is_up(),
            Self::Kafka => daemon::is_running("kafka"),
            Self::Postgres => postgres::is_up(),
            Self::Minio => daemon::is_running("minio"),
            Self::Docker => docker::is_up(),
        }
    }

    /// Whether tests can use it: it answers, and takes what it is given.
    fn is_healthy(self) -> bool {
        self.is_up()
            && match self {
                Self::Kubernetes => kubernetes::is_healthy(),
                Self::Kafka => kafka::answers(),
                Self::Postgres => true,
                Self::Minio => minio::answers(),
                Self::Docker => docker::answers(),
            }
    }

    /// Whether it is ours: no variable says otherwise, but for the one that we set.
    fn is_ours(self) -> bool {
        std::env::var(self.variable())
            .map_or(true, |given| self.address().is_ok_and(|ours| ours == given))
    }
}

impl Testbed {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let or_all = |parts: Vec<Part>| {
            if parts.is_empty() {
                Part::ALL.to_vec()
            } else {
                parts
            }
        };
        match self.action {
            Action::Up { parts } => up(&or_all(parts)),
            Action::Down { parts } => down(&or_all(parts)),
            Action::Status { parts } => or_all(parts).into_iter().try_for_each(status),
            Action::Image => image().map(drop),
            Action::Env => environment(),
            Action::Kill { process } => kill(&process),
            Action::Restart { process } => {
                kill(&process)?;
                start(&process).with_context(|| format!("restarting {process}"))
            }
            Action::Mend => mend(),
        }
    }
}

fn environment() -> anyhow::Result<()> {
    for (name, value) in crate::real_parts::up()? {
        println!("export {name}='{value}'");
    }
    Ok(())
}

/// Ends a process as a power cut would.
fn kill(process: &str) -> anyhow::Result<()> {
    match process {
        "postgres" => postgres::crash(),
        "docker" => docker::crash(),
        other => daemon::kill(other),
    }
}

/// Starts a process that was killed.
fn start(process: &str) -> anyhow::Result<()> {
    match process {
        "minio" => minio::up(),
        "postgres" => postgres::up(),
        "kafka" => kafka::up(),
        "docker" => docker::up(),
        other => kubernetes::start(other),
    }
}

/// Starts what a test left broken, so that the next one fails at its own matter only.
fn mend() -> anyhow::Result<()> {
    for part in Part::ALL {
        if part.is_ours() && !part.is_healthy() {
            part.up().with_context(|| format!("mending {part:?}"))?;
            eprintln!("{part:?}: was broken, mended");
        }
    }
    Ok(())
}

/// Puts this checkout's programs into our cluster as an image; the folder with the programs.
pub(crate) fn image() -> anyhow::Result<PathBuf> {
    let programs = crate::shell::build_static("quick")?;
    if std::env::var_os(Part::Kubernetes.variable()).is_none() {
        images::ferroflow(&programs)?;
    }
    Ok(programs)
}

/// Helm: the one on the path, or one that is built once.
pub(crate) fn helm() -> anyhow::Result<PathBuf> {
    if tools::is_installed("helm") {
        return Ok(PathBuf::from("helm"));
    }
    tools::helm()?;
    tools::bin("helm")
}

/// Our PostgreSQL as pods reach it.
pub(crate) fn database_for_pods() -> anyhow::Result<String> {
    postgres::url_for_pods()
}

/// How tests find the secure listeners of our Kafka.
pub(crate) fn secure_kafka() -> anyhow::Result<[(&'static str, String); 3]> {
    kafka::secure()
}

/// A program of our Kafka's jars.
pub(crate) fn kafka_tool(class: &str) -> anyhow::Result<std::process::Command> {
    Ok(kafka::java(&kafka::jars()?, "512m", class))
}

/// Starts parts that are neither up nor somebody else's.
pub(crate) fn up(parts: &[Part]) -> anyhow::Result<()> {
    for &part in parts {
        if std::env::var_os(part.variable()).is_some() {
            eprintln!("{part:?}: {} is set and used as it is", part.variable());
            continue;
        }
        let begun = Instant::now();
        part.up().with_context(|| format!("starting {part:?}"))?;
        let seconds = begun.elapsed().as_secs_f64();
        eprintln!(
            "{part:?}: up after {seconds:.1} s, {}={}",
            part.variable(),
            part.address()?
        );
    }
    Ok(())
}

/// Parts that `up` would start.
pub(crate) fn missing() -> Vec<Part> {
    let ours = |part: &Part| std::env::var_os(part.variable()).is_none() && !part.is_up();
    Part::ALL.into_iter().filter(ours).collect()
}

/// Stops parts that `up` started.
pub(crate) fn down(parts: &[Part]) -> anyhow::Result<()> {
    parts.iter().try_for_each(|part| part.down())
}

fn status(part: Part) -> anyhow::Result<()> {
    let variable = part.variable();
    match (std::env::var(variable), part.is_up()) {
        (Ok(value), _) => println!("{part:?}: given, {variable}={value}"),
        (Err(_), true) => println!("{part:?}: up, {variable}={}", part.address()?),
        (Err(_), false) => println!("{part:?}: down"),
    }
    Ok(())
}

/// Where everything is kept between runs.
fn cache() -> anyhow::Result<PathBuf> {
    let home = std::env::home_dir().context("there is no home folder")?;
    let folder = home.join(".cache/ferroflow-testbed");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The state of a part that runs.
fn state(part: &str) -> anyhow::Result<PathBuf> {
    let folder = cache()?.join("run").join(part);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// How often it is looked whether something has come.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Waits until `ready`, telling what is waited for when it takes too long.
fn wait(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !ready() {
        if begun.elapsed() > limit {
            bail!("{what} after {} s", limit.as_secs());
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

fn answers(host: &str, port: u16) -> bool {
    TcpStream::connect((host, port)).is_ok()
}

/// Whether a path of a server on this machine answers that all is well.
fn is_healthy(port: u16, path: &str) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    };
    ask().is_ok_and(|line| line.split_whitespace().nth(1) == Some("200"))
}
