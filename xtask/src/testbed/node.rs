//! This machine as a node.

use std::net::UdpSocket;

use anyhow::Context as _;

/// The address of the machine's own interface: the one it would send from.
pub(crate) fn address() -> anyhow::Result<String> {
    // Nothing is sent: connecting a datagram socket only picks the route.
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket
        .connect("192.0.2.1:9")
        .context("the machine has no route")?;
    Ok(socket.local_addr()?.ip().to_string())
}
