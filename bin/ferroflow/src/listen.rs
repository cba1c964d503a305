//! Where a service listens.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use ferroflow_service::grpc::{self, Listener};
use tokio::net::TcpListener;

/// Where a service is to listen.
#[derive(Debug)]
pub(crate) enum Address<'a> {
    /// Host and port.
    Network(&'a str),
    /// A UNIX socket.
    Socket(PathBuf),
}

/// Listens there; the address that came of it, when it is none of a socket.
pub(crate) async fn bind(
    address: &Address<'_>,
    service: &str,
    section: &str,
) -> anyhow::Result<(Listener, Option<SocketAddr>)> {
    match address {
        Address::Socket(path) => {
            let listener = grpc::listen(path);
            let listener = listener.with_context(|| format!("the socket of {service}"))?;
            Ok((listener.into(), None))
        }
        Address::Network(given) => {
            let failed = || format!("{section}.listen {given}");
            let listener = TcpListener::bind(given).await.with_context(failed)?;
            let address = listener.local_addr().with_context(failed)?;
            Ok((listener.into(), Some(address)))
        }
    }
}
