//! What a node says of itself once it runs.

use std::fmt::{self, Write};
use std::net::SocketAddr;

use crate::cli::version::VERSION;
use crate::config::Config;
use crate::node::Node;
use crate::world::World;

/// The banner, in Consul's form: names right-aligned to the colon.
pub fn banner(config: &Config, node: &Node, world: &World) -> String {
    let mut text = String::from("==> quorate agent running!\n");
    let mut row = |name: &str, value: fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:>20}: {value}");
    };
    row("Version", format_args!("'v{VERSION}'"));
    row("Node ID", format_args!("'{}'", node.node_id()));
    row("Node name", format_args!("'{}'", config.node_name));
    row("Datacenter", format_args!("'{}'", config.datacenter));
    row("Server", format_args!("{} (Bootstrap: {})", config.server, config.bootstrap));
    let http: Vec<String> = node.http_addrs().iter().map(SocketAddr::to_string).collect();
    let http = if http.is_empty() { "off".to_owned() } else { http.join(" ") };
    row("Client Addr", format_args!("{http} (HTTP)"));
    let interfaces = world.net.interfaces().unwrap_or_default();
    // A machine with several addresses must choose only once it talks to others.
    let cluster = config.advertise_addr(&interfaces).map_or_else(|_| "not chosen".to_owned(), |addr| addr.to_string());
    let port = |port: Option<u16>| port.map_or(-1, i32::from);
    let (server, lan, wan) = (config.ports.server, config.ports.serf_lan, config.ports.serf_wan);
    row("Cluster Addr", format_args!("{cluster} (Server: {}, LAN: {}, WAN: {})", port(server), port(lan), port(wan)));
    match &config.data_dir {
        Some(dir) => row("Data", format_args!("{}", dir.display())),
        None => row("Data", format_args!("in memory, nothing is kept")),
    }
    text.push_str("\n==> Log data will now stream in as it occurs:\n\n");
    text
}
