//! Who are you, whom do you want, in which version: the first bytes of a connection, both ways.
//!
//! These two messages never change their layout, so that a version too old or too new can still be told so. Whatever a
//! later version adds comes in frames, behind them.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use bytes::{Buf, BufMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use super::error::{Lost, Refusal, RpcError};
use super::{Identity, strangers};
use crate::world::BoxStream;

/// Protocol versions that this build speaks.
pub(super) const VERSIONS: RangeInclusive<u16> = 1..=1;

const MAGIC: &[u8; 8] = b"quorate\0";
pub(super) const HELLO: usize = 66;
pub(super) const REPLY: usize = 51;
/// Both end with a checksum.
const SUM: usize = 4;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Many calls at once.
    Calls,
    /// One stream of this kind.
    Stream(u8),
}

/// What the client says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) versions: (u16, u16),
    /// Unchecked: what a lane may be depends on the version.
    pub(super) lane: (u8, u8),
    pub(super) cluster: Option<Uuid>,
    pub(super) node: Uuid,
    /// Whom it expects, or `None` for whoever is there.
    pub(super) target: Option<Uuid>,
}

/// What the server answers: who it is, and what it thinks of the hello.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reply {
    verdict: u8,
    version: u16,
    versions: (u16, u16),
    cluster: Option<Uuid>,
    node: Uuid,
}

fn id(uuid: Uuid) -> Option<Uuid> {
    (!uuid.is_nil()).then_some(uuid)
}

fn put_id(bytes: &mut impl BufMut, id: Option<Uuid>) {
    bytes.put_slice(id.unwrap_or_default().as_bytes());
}

fn get_id(bytes: &mut impl Buf) -> Uuid {
    let mut id = [0; 16];
    bytes.copy_to_slice(&mut id);
    Uuid::from_bytes(id)
}

fn versions() -> (u16, u16) {
    (*VERSIONS.start(), *VERSIONS.end())
}

/// Checks the magic and the checksum; returns what is between.
fn body(message: &[u8]) -> Result<&[u8], Lost> {
    let (body, sum) = message.split_at(message.len() - SUM);
    match body.strip_prefix(MAGIC) {
        Some(fields) if crc32c::crc32c(body).to_le_bytes() == sum => Ok(fields),
        Some(_) => Err(Lost::Protocol("its greeting is corrupt")),
        None => Err(Lost::Protocol("it does not speak quorate's protocol")),
    }
}

fn sealed(mut message: Vec<u8>) -> Vec<u8> {
    message.put_u32_le(crc32c::crc32c(&message));
    message
}

impl Hello {
    pub(super) fn new(identity: &Identity, target: Option<Uuid>, lane: Lane) -> Self {
        let lane = match lane {
            Lane::Calls => (0, 0),
            Lane::Stream(kind) => (1, kind),
        };
        Hello { versions: versions(), lane, cluster: identity.cluster(), node: identity.node, target }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HELLO);
        bytes.put_slice(MAGIC);
        bytes.put_u16_le(self.versions.0);
        bytes.put_u16_le(self.versions.1);
        bytes.put_u8(self.lane.0);
        bytes.put_u8(self.lane.1);
        put_id(&mut bytes, self.cluster);
        put_id(&mut bytes, Some(self.node));
        put_id(&mut bytes, self.target);
        sealed(bytes)
    }

    pub(super) fn decode(message: &[u8; HELLO]) -> Result<Self, Lost> {
        let mut rest = body(message)?;
        Ok(Hello {
            versions: (rest.get_u16_le(), rest.get_u16_le()),
            lane: (rest.get_u8(), rest.get_u8()),
            cluster: id(get_id(&mut rest)),
            node: get_id(&mut rest),
            target: id(get_id(&mut rest)),
        })
    }

    pub(super) fn lane(&self) -> Result<Lane, Lost> {
        match self.lane {
            (0, _) => Ok(Lane::Calls),
            (1, kind) => Ok(Lane::Stream(kind)),
            _ => Err(Lost::Protocol("it asked for a lane that this version does not have")),
        }
    }

    /// Whether a node may talk to who says this. Versions come first: the rest may mean something else in another.
    pub(super) fn judge(&self, identity: &Identity) -> Result<(), Refusal> {
        let (server, client) = (versions(), self.versions);
        if client.1 < server.0 || server.1 < client.0 {
            return Err(Refusal::Version { server, client });
        }
        if let (Some(server), Some(client)) = (identity.cluster(), self.cluster)
            && server != client
        {
            return Err(Refusal::WrongCluster { server, client });
        }
        match self.target {
            Some(wanted) if wanted != identity.node => Err(Refusal::WrongNode { wanted, is: identity.node }),
            _ => Ok(()),
        }
    }
}

impl Reply {
    fn new(hello: &Hello, identity: &Identity, verdict: &Result<(), Refusal>) -> Self {
        let verdict = match verdict {
            Ok(()) => 0,
            Err(Refusal::Version { .. }) => 1,
            Err(Refusal::WrongCluster { .. }) => 2,
            Err(Refusal::WrongNode { .. }) => 3,
            Err(Refusal::TooManyConnections) => 4,
        };
        // The newest that both speak; without one the verdict says so, and this means nothing.
        let version = versions().1.min(hello.versions.1);
        Reply { verdict, version, versions: versions(), cluster: identity.cluster(), node: identity.node }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(REPLY);
        bytes.put_slice(MAGIC);
        bytes.put_u8(self.verdict);
        bytes.put_u16_le(self.version);
        bytes.put_u16_le(self.versions.0);
        bytes.put_u16_le(self.versions.1);
        put_id(&mut bytes, self.cluster);
        put_id(&mut bytes, Some(self.node));
        sealed(bytes)
    }

    fn decode(message: &[u8; REPLY]) -> Result<Self, Lost> {
        let mut rest = body(message)?;
        Ok(Reply {
            verdict: rest.get_u8(),
            version: rest.get_u16_le(),
            versions: (rest.get_u16_le(), rest.get_u16_le()),
            cluster: id(get_id(&mut rest)),
            node: get_id(&mut rest),
        })
    }

    /// What the server said, checked: it is not believed to be whom we want only because it agreed.
    fn verdict(&self, hello: &Hello) -> Result<Result<(), Refusal>, Lost> {
        let wrong_cluster = || Refusal::WrongCluster {
            server: self.cluster.unwrap_or_default(),
            client: hello.cluster.unwrap_or_default(),
        };
        let wrong_node = || Refusal::WrongNode { wanted: hello.target.unwrap_or_default(), is: self.node };
        Ok(Err(match self.verdict {
            1 => Refusal::Version { server: self.versions, client: hello.versions },
            2 => wrong_cluster(),
            3 => wrong_node(),
            4 => Refusal::TooManyConnections,
            0 if strangers(self.cluster, hello.cluster) => wrong_cluster(),
            0 if hello.target.is_some_and(|target| target != self.node) => wrong_node(),
            0 if !(hello.versions.0..=hello.versions.1).contains(&self.version) => {
                return Err(Lost::Protocol("it chose a version that was not offered"));
            }
            0 => return Ok(Ok(())),
            _ => return Err(Lost::Protocol("it refused for a reason that this version does not know")),
        }))
    }
}

/// The client's side. The caller bounds the time. An error that is not a refusal is a [`RpcError::NotSent`].
pub(super) async fn greet(stream: &mut BoxStream, hello: &Hello, peer: SocketAddr) -> Result<(), RpcError> {
    let said = async {
        stream.write_all(&hello.encode()).await?;
        stream.flush().await?;
        let mut reply = [0; REPLY];
        stream.read_exact(&mut reply).await?;
        Reply::decode(&reply)?.verdict(hello)
    };
    match said.await {
        Ok(verdict) => verdict.map_err(|reason| RpcError::Refused { peer, reason }),
        Err(lost) => Err(RpcError::NotSent { peer, reason: lost.to_string() }),
    }
}

/// The server's side, first half: what the client says. The caller bounds the time, here and in [`answer`].
pub(super) async fn hear(stream: &mut BoxStream) -> Result<Hello, Lost> {
    let mut hello = [0; HELLO];
    stream.read_exact(&mut hello).await?;
    Hello::decode(&hello)
}

/// The server's side, second half.
pub(super) async fn answer(
    stream: &mut BoxStream,
    hello: &Hello,
    identity: &Identity,
    verdict: &Result<(), Refusal>,
) -> Result<(), Lost> {
    stream.write_all(&Reply::new(hello, identity, verdict).encode()).await?;
    Ok(stream.flush().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_cluster(cluster: u128) -> Identity {
        let identity = Identity::new(Uuid::from_u128(1));
        identity.cluster.set(Uuid::from_u128(cluster)).unwrap();
        identity
    }

    /// What both sides make of a greeting: the server's verdict, and what the client reads out of the reply.
    fn meet(hello: &Hello, server: &Identity) -> (Result<(), Refusal>, Result<Result<(), Refusal>, Lost>) {
        let heard = Hello::decode(hello.encode().as_array().unwrap()).unwrap();
        assert_eq!(&heard, hello);
        let verdict = heard.judge(server);
        let reply = Reply::new(&heard, server, &verdict).encode();
        (verdict, Reply::decode(reply.as_array().unwrap()).unwrap().verdict(hello))
    }

    #[test]
    fn both_sides_come_to_the_same_verdict() {
        let none = Identity::new(Uuid::from_u128(2));
        let (mine, other) = (Some(Uuid::from_u128(1)), Uuid::from_u128(9));
        let hello = |identity: &Identity, target| Hello::new(identity, target, Lane::Stream(4));
        let wrong_node = Refusal::WrongNode { wanted: other, is: Uuid::from_u128(1) };
        let wrong_cluster = Refusal::WrongCluster { server: Uuid::from_u128(7), client: Uuid::from_u128(8) };
        let newer = Hello { versions: (5, 6), ..hello(&in_cluster(8), None) };
        let cases = [
            (hello(&none, mine), Ok(())),
            (hello(&in_cluster(7), None), Ok(())),
            (hello(&in_cluster(0), None), Ok(())),
            (hello(&none, Some(other)), Err(wrong_node)),
            (hello(&in_cluster(8), mine), Err(wrong_cluster)),
            (newer, Err(Refusal::Version { server: versions(), client: (5, 6) })),
        ];
        for (hello, verdict) in cases {
            assert_eq!(meet(&hello, &in_cluster(7)), (verdict.clone(), Ok(verdict)));
        }
        assert_eq!(meet(&hello(&in_cluster(8), mine), &Identity::new(Uuid::from_u128(1))).0, Ok(()));
    }

    #[test]
    fn a_server_that_accepts_what_it_should_refuse_is_refused_by_the_client() {
        let server = in_cluster(7);
        for hello in [
            Hello::new(&in_cluster(8), None, Lane::Calls),
            Hello::new(&in_cluster(7), Some(Uuid::from_u128(9)), Lane::Calls),
        ] {
            assert!(matches!(Reply::new(&hello, &server, &Ok(())).verdict(&hello), Ok(Err(_))));
        }
        let hello = Hello::new(&server, None, Lane::Calls);
        let reply = Reply { version: 3, ..Reply::new(&hello, &server, &Ok(())) };
        assert!(matches!(reply.verdict(&hello), Err(Lost::Protocol(_))));
    }

    #[test]
    fn every_flipped_bit_of_a_greeting_is_noticed() {
        let bytes = Hello::new(&in_cluster(7), None, Lane::Calls).encode();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Hello::decode(bad.as_array().unwrap()).is_err(), "bit {bit}");
        }
    }
}
