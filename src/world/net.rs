//! The network: TCP, names, and the machine's own addresses.

use std::io;
use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream between two processes.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A stream of any world.
pub type BoxStream = Box<dyn Stream>;
/// A listener of any world.
pub type BoxListener = Box<dyn Listener>;

/// A socket that accepts connections.
#[async_trait]
pub trait Listener: Send + Sync {
    /// Waits for the next connection. An error concerns that one connection or a passing shortage (open files): the
    /// caller goes on after a pause.
    async fn accept(&self) -> io::Result<(BoxStream, SocketAddr)>;
    /// The address that is listened on, with the port that was given for port 0.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// One address of one network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// `eth0`.
    pub name: String,
    /// One of its addresses.
    pub addr: IpAddr,
}

/// The network as one machine sees it.
#[async_trait]
pub trait Network: Send + Sync {
    /// Listens for TCP connections.
    async fn listen(&self, addr: SocketAddr) -> io::Result<BoxListener>;
    /// Opens a TCP connection. The caller bounds the time.
    async fn connect(&self, addr: SocketAddr) -> io::Result<BoxStream>;
    /// The addresses of a host name, in the resolver's order.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
    /// The addresses of this machine's network cards.
    fn interfaces(&self) -> io::Result<Vec<Interface>>;
    /// This machine's host name.
    fn host_name(&self) -> String;
}
