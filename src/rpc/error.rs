//! Why a call, a stream or a connection failed; above all, whether anything may have been done (R3).

use std::net::SocketAddr;
use std::time::Duration;

use uuid::Uuid;

use super::frame::BadFrame;
use crate::error::Error;
use crate::limits;

/// Why a call or a stream failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// It never left this node: nothing was done.
    #[error("{peer} was not asked: {reason}")]
    NotSent {
        /// Whom it was meant for.
        peer: SocketAddr,
        /// Why not.
        reason: String,
    },
    /// The node there does not want to talk to us: nothing was done.
    #[error("{peer} refused the connection: {reason}")]
    Refused {
        /// Who refused.
        peer: SocketAddr,
        /// Its reason.
        reason: Refusal,
    },
    /// The body is over [`limits::RPC_BODY`]: nothing was done.
    #[error("a body of {0} bytes is too large for one frame, the limit is {max}", max = limits::RPC_BODY)]
    TooLarge(usize),
    /// The deadline passed. If it was sent, it may have been done, or may still be.
    #[error("{peer} did not answer within {after:?}{hint}", hint = if *sent { "; it may have done what it was asked" } else { ", and was not asked" })]
    TimedOut {
        /// Who did not answer.
        peer: SocketAddr,
        /// The deadline.
        after: Duration,
        /// Whether the request had left.
        sent: bool,
    },
    /// The connection was lost before the answer: it may have been done, or not.
    #[error("{peer} was lost before it answered: {reason}; it may have done what it was asked")]
    Unknown {
        /// Who was lost.
        peer: SocketAddr,
        /// How.
        reason: String,
    },
    /// The peer's service answered with this error.
    #[error("{0}")]
    Answered(Error),
}

impl RpcError {
    /// Whether it is certain that nothing was done, so that the same may be asked again or elsewhere (R3).
    pub fn nothing_was_done(&self) -> bool {
        match self {
            RpcError::NotSent { .. } | RpcError::Refused { .. } | RpcError::TooLarge(_) => true,
            RpcError::TimedOut { sent, .. } => !sent,
            RpcError::Unknown { .. } => false,
            RpcError::Answered(error) => {
                matches!(error, Error::Request(_) | Error::TooLarge(_) | Error::Retry(_) | Error::Busy(_))
            }
        }
    }
}

impl From<RpcError> for Error {
    fn from(error: RpcError) -> Error {
        let text = error.to_string();
        match error {
            RpcError::Answered(error) => error,
            RpcError::TooLarge(_) => Error::TooLarge(text),
            RpcError::Refused { reason: Refusal::WrongCluster { .. } | Refusal::Version { .. }, .. } => {
                Error::Operator(text)
            }
            error if error.nothing_was_done() => Error::Retry(text),
            _ => Error::Unknown(text),
        }
    }
}

/// Why a node does not accept a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The two builds have no protocol version in common.
    #[error("it speaks protocol versions {server:?}, the caller {client:?}: upgrade the older one")]
    Version {
        /// First and last version of the side that refused.
        server: (u16, u16),
        /// First and last version of the side that connected.
        client: (u16, u16),
    },
    /// The two nodes belong to different clusters.
    #[error("it belongs to cluster {server}, not {client}")]
    WrongCluster {
        /// The cluster of the side that refused.
        server: Uuid,
        /// The cluster of the side that connected.
        client: Uuid,
    },
    /// Another node has this address now.
    #[error("the address belongs to node {is}, not {wanted}")]
    WrongNode {
        /// Whom the caller expected.
        wanted: Uuid,
        /// Who is there.
        is: Uuid,
    },
    /// [`limits::RPC_CONNECTIONS`] or [`limits::RPC_CONNECTIONS_PER_PEER`] is reached.
    #[error("it has too many connections")]
    TooManyConnections,
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lost {
    #[error("the peer closed the connection")]
    Closed,
    #[error("this side closed the connection")]
    Left,
    #[error("the peer sent nothing for {:?}", limits::RPC_SILENCE)]
    Silent,
    #[error("the peer took nothing for {:?}", limits::RPC_STALL)]
    Stalled,
    #[error("the peer has joined another cluster than this node")]
    Stranger,
    #[error("the connection failed: {0}")]
    Io(String),
    #[error("the connection is corrupt: {0}")]
    Corrupt(#[from] BadFrame),
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
}

impl From<std::io::Error> for Lost {
    fn from(error: std::io::Error) -> Self {
        Lost::Io(error.to_string())
    }
}

/// An error as the body of a frame: whose turn it is, then the sentence.
pub(super) fn encode(error: &Error) -> Vec<u8> {
    let (code, text) = match error {
        Error::Request(text) => (1, text),
        Error::TooLarge(text) => (2, text),
        Error::Retry(text) => (3, text),
        Error::Unknown(text) => (4, text),
        Error::Operator(text) => (5, text),
        Error::Bug(text) => (6, text),
        Error::Busy(text) => (7, text),
    };
    let text = &text[..text.floor_char_boundary(limits::RPC_ERROR_TEXT)];
    [&[code], text.as_bytes()].concat()
}

/// What [`encode`] wrote. An error of an unknown kind promises nothing.
pub(super) fn decode(body: &[u8]) -> Error {
    let (code, text) = body.split_first().unwrap_or((&0, &[]));
    let text = String::from_utf8_lossy(&text[..text.len().min(limits::RPC_ERROR_TEXT)]).into_owned();
    match code {
        1 => Error::Request(text),
        2 => Error::TooLarge(text),
        3 => Error::Retry(text),
        5 => Error::Operator(text),
        6 => Error::Bug(text),
        7 => Error::Busy(text),
        _ => Error::Unknown(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_whose_turn_it_is_on_its_way() {
        let kinds =
            [Error::Request, Error::TooLarge, Error::Retry, Error::Unknown, Error::Operator, Error::Bug, Error::Busy];
        for error in kinds.map(|kind| kind("why".into())) {
            assert_eq!(decode(&encode(&error)), error);
        }
        assert_eq!(decode(b""), Error::Unknown(String::new()));
        assert_eq!(decode(b"\xC8new"), Error::Unknown("new".into()));
        let long = Error::Retry("é".repeat(limits::RPC_ERROR_TEXT));
        assert!(encode(&long).len() <= limits::RPC_ERROR_TEXT + 1);
    }
}
