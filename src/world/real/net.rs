//! TCP sockets, the resolver, and this machine's addresses.

use std::io;
use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

use crate::world::{BoxListener, BoxStream, Interface, Listener, Network};

/// Connections that the kernel queues before we accept them: a burst of clients must not meet a refusal.
const BACKLOG: u32 = 4096;

/// The machine's network.
pub struct RealNetwork;

#[async_trait]
impl Network for RealNetwork {
    async fn listen(&self, addr: SocketAddr) -> io::Result<BoxListener> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restarted node takes its port back although old connections linger.
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        Ok(Box::new(RealListener(socket.listen(BACKLOG)?)))
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<BoxStream> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(lookup_host((host, 0)).await?.map(|addr| addr.ip()).collect())
    }

    fn interfaces(&self) -> io::Result<Vec<Interface>> {
        let mut found: Vec<Interface> =
            if_addrs::get_if_addrs()?.into_iter().map(|i| Interface { addr: i.ip(), name: i.name }).collect();
        found.sort_by(|a, b| (&a.name, a.addr).cmp(&(&b.name, b.addr)));
        Ok(found)
    }

    fn host_name(&self) -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }
}

struct RealListener(TcpListener);

#[async_trait]
impl Listener for RealListener {
    async fn accept(&self) -> io::Result<(BoxStream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
