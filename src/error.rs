//! Errors, typed by who must act on them.
//!
//! A variant answers one question: who can make this go away? Edges turn a variant into a status code or an exit code;
//! the sentence inside names the cause and the cure. It never holds a secret.

use std::fmt;

/// Everything that can go wrong, by who must act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The caller must change the request: it can never succeed as it is. Nothing was done.
    #[error("{0}")]
    Request(String),
    /// The caller must send less. Nothing was done.
    #[error("{0}")]
    TooLarge(String),
    /// The caller may repeat the request as it is, later or elsewhere. Nothing was done.
    #[error("{0}")]
    Retry(String),
    /// The caller must slow down: this node is at one of its limits. Nothing was done.
    #[error("{0}")]
    Busy(String),
    /// The caller must find out: the write may or may not have been applied (R3).
    #[error("{0}")]
    Unknown(String),
    /// The operator must act: a full disk, a wrong file, a port in use.
    #[error("{0}")]
    Operator(String),
    /// We must act: the node found itself in a state that it should never reach.
    #[error("bug: {0}")]
    Bug(String),
}

impl Error {
    /// Whether every replica that applies the same entry to the same state gets this same error. Only such errors may
    /// come out of `state::apply`; any other must stop the node instead.
    pub fn is_deterministic(&self) -> bool {
        matches!(self, Error::Request(_) | Error::TooLarge(_))
    }

    /// Whether it may pass by itself: who can do the same thing twice may go on trying.
    pub fn may_pass(&self) -> bool {
        matches!(self, Error::Retry(_) | Error::Busy(_) | Error::Unknown(_))
    }

    /// An I/O error that the operator must look at, with what was being done when it happened.
    pub fn io(doing: impl fmt::Display, error: &std::io::Error) -> Self {
        Error::Operator(format!("{doing}: {error}"))
    }
}

/// The result of anything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;
