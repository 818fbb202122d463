//! Addresses: as text, as go-sockaddr templates, and the one that other nodes are told.
//!
//! A template asks this machine: `{{ GetPrivateIP }}`, `{{ GetInterfaceIP "eth0" }}`. Consul knows dozens of functions;
//! these two are what configurations in use carry, and any other is an error that says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::world::{Interface, Network};

/// One address, written plainly or as a template.
pub fn one(text: &str, net: &dyn Network) -> Result<IpAddr, String> {
    match several(text, net)?.as_slice() {
        [addr] => Ok(*addr),
        [] => Err("is empty: write an IP address".into()),
        _ => Err(format!("\"{text}\" is more than one address")),
    }
}

/// Addresses between spaces, each written plainly or as a template.
pub fn several(text: &str, net: &dyn Network) -> Result<Vec<IpAddr>, String> {
    let mut addrs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (addr, after) = match rest.strip_prefix("{{") {
            Some(inside) => {
                let (call, after) = inside.split_once("}}").ok_or(format!("\"{text}\" lacks the closing }}}}"))?;
                (template(call.trim(), net)?, after)
            }
            None => {
                let (word, after) = rest.split_at(rest.find([' ', '\t', '\n']).unwrap_or(rest.len()));
                (plain(word)?, after)
            }
        };
        addrs.push(addr);
        rest = after.trim_start();
    }
    Ok(addrs)
}

fn plain(word: &str) -> Result<IpAddr, String> {
    if word.starts_with("unix://") {
        return Err(format!("{word}: Unix sockets are not served yet, write an IP address"));
    }
    let bare = word.strip_prefix('[').and_then(|w| w.strip_suffix(']')).unwrap_or(word);
    bare.parse().map_err(|_| format!("\"{word}\" is not an IP address"))
}

fn template(call: &str, net: &dyn Network) -> Result<IpAddr, String> {
    let interfaces = net.interfaces().map_err(|e| format!("cannot list the network cards: {e}"))?;
    let mut words = call.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some("GetPrivateIP"), None, _) => {
            let found = private(&interfaces).first().map(|i| i.addr);
            found.ok_or_else(|| "GetPrivateIP: no network card has a private IPv4 address".into())
        }
        (Some("GetInterfaceIP"), Some(name), None) => {
            let name = name.trim_matches('"');
            let mut on_card = interfaces.iter().filter(|i| i.name == name).map(|i| i.addr);
            let found = on_card.clone().find(IpAddr::is_ipv4).or_else(|| on_card.next());
            found.ok_or_else(|| {
                format!("GetInterfaceIP: no network card \"{name}\" with an address; {}", cards(&interfaces))
            })
        }
        _ => Err(format!(
            "{{{{ {call} }}}} is not a template that is known here: use {{{{ GetPrivateIP }}}}, \
             {{{{ GetInterfaceIP \"eth0\" }}}} or an IP address"
        )),
    }
}

fn cards(interfaces: &[Interface]) -> String {
    let mut names: Vec<&str> = interfaces.iter().map(|i| i.name.as_str()).collect();
    names.dedup();
    format!("there are {}", names.join(", "))
}

/// Interfaces with an address from RFC 1918.
fn private(interfaces: &[Interface]) -> Vec<&Interface> {
    interfaces.iter().filter(|i| matches!(i.addr, IpAddr::V4(addr) if addr.is_private())).collect()
}

/// The address to tell other nodes when none is configured: the machine's one private IPv4 address, or its one public
/// one, or loopback if it has nothing else. Where `bind` is `::`, as in Consul, its one global IPv6 address before these.
pub fn choose(interfaces: &[Interface], bind: Option<IpAddr>) -> Result<IpAddr, String> {
    let public = |i: &&Interface| match i.addr {
        IpAddr::V4(addr) => {
            !addr.is_loopback() && !addr.is_link_local() && !addr.is_unspecified() && !addr.is_private()
        }
        IpAddr::V6(_) => false,
    };
    // Global addresses are given out of 2000::/3.
    let global = |i: &&Interface| match i.addr {
        IpAddr::V6(addr) => bind == Some(Ipv6Addr::UNSPECIFIED.into()) && addr.segments()[0] & 0xe000 == 0x2000,
        IpAddr::V4(_) => false,
    };
    let [global, public] =
        [interfaces.iter().filter(global).collect::<Vec<_>>(), interfaces.iter().filter(public).collect()];
    for candidates in [global, private(interfaces), public] {
        match candidates.as_slice() {
            [] => {}
            [only] => return Ok(only.addr),
            many => {
                let names: Vec<String> = many.iter().map(|i| format!("{} ({})", i.addr, i.name)).collect();
                let names = names.join(", ");
                return Err(format!(
                    "this machine has several addresses: {names}; set bind_addr or advertise_addr to one"
                ));
            }
        }
    }
    Ok(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Whether this is `0.0.0.0` or `::`.
pub fn is_any(addr: IpAddr) -> bool {
    addr == IpAddr::V4(Ipv4Addr::UNSPECIFIED) || addr == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}
