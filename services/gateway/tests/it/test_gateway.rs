//! A started gateway with the echo service behind it, and a client that sends what it is told to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use ferroflow_bus::Bus;
use ferroflow_gateway::{Config, Contracts, Deps, Upstream, UpstreamConnection};
use ferroflow_service::grpc;
use ferroflow_service::identity::Keys;
use ferroflow_service::runner::Runner;
use ferroflow_types::ValueLimit;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::echo::{self, Echo};

/// The largest JSON body of the gateway under test.
pub(crate) const BODY_MAX: usize = 64 * 1024;

/// A gateway and the service behind it.
pub(crate) struct TestGateway {
    pub(crate) address: SocketAddr,
    pub(crate) echo: Echo,
    pub(crate) socket: PathBuf,
    pub(crate) keys: Keys,
    pub(crate) runtime: tokio::runtime::Runtime,
    pool: DescriptorPool,
    pub(crate) stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl TestGateway {
    pub(crate) fn start() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let keys = Keys::generate().unwrap();
        let stop = CancellationToken::new();
        let echo = Echo::default();
        let socket = folder.path().join("sockets/echo.sock");
        let contracts = Contracts::default().with(&echo::descriptors()).unwrap();
        let config = Config {
            listen: "127.0.0.1:0".to_owned(),
            body_max: Some(BODY_MAX),
            ..config
        };
        let bus = format!("sqlite:{}", folder.path().join("events.db").display());
        let address = runtime.block_on(async {
            let listener = grpc::listen(&socket).unwrap();
            let routes = Routes::new(echo.clone());
            let verifier = keys.verifier("echo");
            tokio::spawn(grpc::serve(listener, routes, verifier, stop.clone()));
            let upstream = Upstream {
                name: "echo",
                services: vec!["echo.v1.Echo"],
                connection: UpstreamConnection::Single(grpc::connect(socket.clone())),
            };
            let deps = Deps {
                upstreams: vec![upstream],
                contracts,
                bus: Bus::embedded(&bus).await.unwrap(),
                signer: keys.signer(),
                metrics: None,
                values: ValueLimit::default(),
            };
            let mut runner = Runner::default();
            let handle = ferroflow_gateway::start(&config, deps, &mut runner);
            let address = handle.await.unwrap().address;
            let stopped = stop.clone().cancelled_owned();
            tokio::spawn(runner.run(stopped));
            address
        });
        Self {
            address,
            echo,
            socket,
            keys,
            runtime,
            pool: DescriptorPool::decode(echo::descriptors().as_slice()).unwrap(),
            stop,
            _folder: folder,
        }
    }

    pub(crate) fn message(&self, name: &str) -> MessageDescriptor {
        let name = format!("echo.v1.{name}");
        self.pool.get_message_by_name(&name).unwrap()
    }

    /// What the service was asked last: the RPC and its request.
    pub(crate) fn last_call(&self) -> Option<(String, DynamicMessage)> {
        let call = self.echo.calls().pop()?;
        let kind = match call.rpc.as_str() {
            "Upload" => "UploadRequest",
            _ => "Everything",
        };
        let message = DynamicMessage::decode(self.message(kind), call.message);
        Some((call.rpc, message.unwrap()))
    }

    pub(crate) fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        Connection(BufReader::new(stream))
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, method: &str, target: &str, headers: &[&str], body: &str) -> Answer {
        self.connect().ask(method, target, headers, body.as_bytes())
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, &[], "")
    }
}

/// A connection that stays open.
pub(crate) struct Connection(BufReader<TcpStream>);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

impl Connection {
    pub(crate) fn ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &[&str],
        body: &[u8],
    ) -> Answer {
        self.send(method, target, headers, body);
        let mut answer = self.head();
        if method == "HEAD" {
            return answer;
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            while let Some(piece) = self.piece() {
                answer.body.extend(piece);
            }
        } else if let Some(length) = answer.header("content-length") {
            answer.body = vec![0; length.parse().unwrap()];
            self.0.read_exact(&mut answer.body).unwrap();
        }
        answer
    }

    pub(crate) fn send(&mut self, method: &str, target: &str, headers: &[&str], body: &[u8]) {
        let mut text = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n");
        for header in headers {
            text.extend([header, "\r\n"]);
        }
        if !body.is_empty() {
            let length = body.len().to_string();
            text.extend(["content-length: ", &length, "\r\n"]);
        }
        let request = [text.as_bytes(), b"\r\n", body].concat();
        self.0.get_mut().write_all(&request).unwrap();
    }

    /// Status and headers.
    pub(crate) fn head(&mut self) -> Answer {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines[1..].iter().map(|line| {
            let (name, value) = line.split_once(": ").unwrap_or((line, ""));
            (name.to_ascii_lowercase(), value.to_owned())
        });
        Answer {
            status,
            headers: headers.collect(),
            body: Vec::new(),
        }
    }

    /// Whether nothing comes any more.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.0.fill_buf().map_or(true, <[u8]>::is_empty)
    }

    /// The next chunk of a body, unless it is the last; none where the connection was cut.
    pub(crate) fn piece(&mut self) -> Option<Vec<u8>> {
        let mut line = String::new();
        self.0.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
        let mut piece = vec![0; length + 2];
        self.0.read_exact(&mut piece).ok()?;
        piece.truncate(length);
        (length > 0).then_some(piece)
    }
}
