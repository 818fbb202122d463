//! `quorate::world::Network` over turmoil's TCP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use quorate::world::{BoxListener, BoxStream, Interface, Listener, Network};
use quorate_sim::engine::Time;
use quorate_sim::wires::Wires;
use turmoil::net::{TcpListener, TcpStream};

/// The network as one host sees it.
#[derive(Clone)]
pub struct TurmoilNet {
    ip: IpAddr,
    name: String,
    wires: Arc<Wires>,
    time: Arc<dyn Time>,
}

impl TurmoilNet {
    /// The network of the host at this address.
    pub fn new(ip: IpAddr, name: &str, wires: Arc<Wires>, time: Arc<dyn Time>) -> Self {
        TurmoilNet { ip, name: name.into(), wires, time }
    }
}

#[async_trait]
impl Network for TurmoilNet {
    async fn listen(&self, addr: SocketAddr) -> io::Result<BoxListener> {
        // turmoil binds to every address or none.
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), addr.port());
        Ok(Box::new(TurmoilListener { listener: TcpListener::bind(any).await?, net: self.clone() }))
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<BoxStream> {
        Ok(self.wires.opened(self.ip, addr.ip(), &self.time, TcpStream::connect(addr).await?))
    }

    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        // turmoil would make up an address for a name that it does not know.
        let unknown = |_| io::Error::new(io::ErrorKind::NotFound, format!("no host {host}"));
        Ok(vec![host.parse().map_err(unknown)?])
    }

    fn interfaces(&self) -> io::Result<Vec<Interface>> {
        Ok(vec![Interface { name: "eth0".into(), addr: self.ip }])
    }

    fn host_name(&self) -> String {
        self.name.clone()
    }
}

struct TurmoilListener {
    listener: TcpListener,
    net: TurmoilNet,
}

#[async_trait]
impl Listener for TurmoilListener {
    async fn accept(&self) -> io::Result<(BoxStream, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        Ok((self.net.wires.accepted(self.net.ip, peer.ip(), &self.net.time, stream), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::new(self.net.ip, self.listener.local_addr()?.port()))
    }
}
