//! Where an agent is: `127.0.0.1:8500`, `http://consul.local:8500`, `[::1]:8500`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Consul's HTTP port.
const HTTP_PORT: u16 = 8500;

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A name or an IP address, the latter without brackets.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::Request(format!("the address \"{text}\" {why}"));
        let rest = match text.split_once("://") {
            None | Some(("http" | "tcp", _)) => text.split_once("://").map_or(text, |(_, rest)| rest),
            Some(("unix", _)) => return Err(wrong("is a Unix socket, which is not supported yet: use HOST:PORT")),
            Some(("https", _)) => {
                return Err(wrong("asks for HTTPS, which is not supported yet: use http://HOST:PORT"));
            }
            Some((other, _)) => return Err(wrong(&format!("has the unknown scheme {other}: use http://HOST:PORT"))),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('/') {
            return Err(wrong("has a path, which is not supported: use http://HOST:PORT"));
        }
        let (host, port) = match rest.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
            Some((host, after)) => (host, after.strip_prefix(':')),
            // More than one colon without brackets is an IPv6 address alone.
            None if rest.matches(':').count() == 1 => rest.split_once(':').map_or((rest, None), |(h, p)| (h, Some(p))),
            None => (rest, None),
        };
        if host.is_empty() || host.contains([' ', '@', '?', '#']) {
            return Err(wrong("is not of the form HOST:PORT"));
        }
        let port = match port {
            None => HTTP_PORT,
            Some(port) => port.parse().map_err(|_| wrong("has no port number after its colon"))?,
        };
        Ok(Address { host: host.into(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        for (text, expected) in [
            ("127.0.0.1:8500", "127.0.0.1:8500"),
            ("http://10.0.0.1:9000", "10.0.0.1:9000"),
            ("http://consul.local:80/", "consul.local:80"),
            ("tcp://a:1", "a:1"),
            ("localhost", "localhost:8500"),
            ("[::1]:8501", "[::1]:8501"),
            ("::1", "[::1]:8500"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), expected);
        }
    }

    #[test]
    fn what_is_not_supported_is_said() {
        for (text, why) in [
            ("unix:///run/consul.sock", "Unix socket, which is not supported yet"),
            ("https://a:8501", "asks for HTTPS, which is not supported yet"),
            ("ftp://a", "unknown scheme ftp"),
            ("http://a:8500/prefix", "has a path"),
            ("a:port", "no port number"),
            ("a:99999", "no port number"),
            ("", "not of the form HOST:PORT"),
            (":8500", "not of the form HOST:PORT"),
        ] {
            let error = text.parse::<Address>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
