//! Services as processes of their own, several of each, as a cluster runs them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Platform, READY_TIMEOUT, binary};

/// A key pair of tests: what signs, and a certificate of it.
const PRIVATE_KEY: &str = include_str!("../../service/src/identity/testdata/private.pem");
const CERTIFICATE: &str = include_str!("../../service/src/identity/testdata/certificate.pem");

/// The setting `identity`, with its files in `folder`.
pub fn identity(folder: &Path) -> Value {
    let (private, public) = (folder.join("identity.key"), folder.join("identity.crt"));
    std::fs::write(&private, PRIVATE_KEY).unwrap();
    std::fs::write(&public, CERTIFICATE).unwrap();
    json!({"private_key_file": private, "public_key_file": public})
}

/// Writes a settings file in `folder`.
pub fn settings(folder: &Path, settings: &Value) -> String {
    let file = folder.join("ferroflow.toml");
    std::fs::write(&file, toml::to_string(settings).unwrap()).unwrap();
    file.display().to_string()
}

/// Puts the members of `more` in the place of those in `settings`.
pub(crate) fn merge(settings: &mut Value, more: &Value) {
    for (name, value) in more.as_object().into_iter().flatten() {
        settings[name] = value.clone();
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// One process of `ferroflow serve`, killed when it is dropped.
pub struct Process {
    child: Child,
    program: PathBuf,
    folder: PathBuf,
    arguments: Vec<String>,
    address: String,
}

impl Process {
    /// Starts `ferroflow serve <arguments>` with its data in `folder`, and waits until it is ready.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_program(&binary(), folder, arguments)
    }

    /// The same of another program.
    pub fn start_program(program: &Path, folder: &Path, arguments: &[&str]) -> Self {
        let arguments: Vec<_> = arguments.iter().map(|&one| one.to_owned()).collect();
        let (child, address) = spawn(program, folder, &arguments);
        Self {
            child,
            program: program.to_path_buf(),
            folder: folder.to_path_buf(),
            arguments,
            address,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What a pipeline-svc is called among others.
    pub fn replica(&self) -> String {
        let name = std::fs::read_to_string(self.folder.join("replica")).unwrap();
        name.trim().to_owned()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("server.log")).unwrap_or_default()
    }

    /// Kills it as a power cut would.
    pub fn kill(&mut self) {
        let _ended = self.child.kill().is_err();
        self.child.wait().unwrap();
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(&mut self, limit: Duration) -> ExitStatus {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success(), "process {pid} cannot be told to stop");
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < limit, "it does not stop: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it again as it was.
    pub fn start_again(&mut self) {
        (self.child, self.address) = spawn(&self.program, &self.folder, &self.arguments);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(program: &Path, folder: &Path, arguments: &[String]) -> (Child, String) {
    std::fs::create_dir_all(folder).unwrap();
    let port_file = folder.join("port");
    match std::fs::remove_file(&port_file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
        _ => {}
    }
    let log_file = folder.join("server.log");
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&log_file)
        .unwrap();
    let mut child = Command::new(program)
        .arg("serve")
        .args(arguments)
        .arg("--data-dir")
        .arg(folder)
        .arg("--port-file")
        .arg(&port_file)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the service starts");
    let begun = Instant::now();
    loop {
        let address = std::fs::read_to_string(&port_file).unwrap_or_default();
        if !address.is_empty() {
            return (child, address);
        }
        let ended = child.try_wait().unwrap();
        assert!(
            ended.is_none() && begun.elapsed() < READY_TIMEOUT,
            "not ready: {}",
            std::fs::read_to_string(&log_file).unwrap_or_default()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Passes requests on in turn to those gateways that say that they are ready, as a load balancer does.
pub struct LoadBalancer {
    gateways: Vec<(Platform, AtomicBool)>,
    next_gateway: AtomicUsize,
    stop: AtomicBool,
}

impl LoadBalancer {
    /// A balancer before gateways at these addresses.
    pub fn start(addresses: &[&str]) -> Arc<Self> {
        let gateways = addresses
            .iter()
            .map(|address| (Platform::at(address), AtomicBool::new(true)));
        let balancer = Arc::new(Self {
            gateways: gateways.collect(),
            next_gateway: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let probing = Arc::clone(&balancer);
        std::thread::spawn(move || {
            while !probing.stop.load(Ordering::Acquire) {
                for (gateway, ready) in &probing.gateways {
                    let answer = gateway.ask("GET", "/readyz", "");
                    ready.store(answer == Ok(200), Ordering::Release);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        balancer
    }

    /// Asks the next gateway that is ready; the status, or why there is none.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Result<u16, String> {
        for _ in 0..100 {
            let index = self.next_gateway.fetch_add(1, Ordering::Relaxed) % self.gateways.len();
            let (gateway, ready) = &self.gateways[index];
            if ready.load(Ordering::Acquire) {
                return gateway.ask(method, path, body);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err("no gateway is ready".to_owned())
    }

    /// Ends the probes.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }
}
