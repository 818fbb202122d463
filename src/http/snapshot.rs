//! `/v1/snapshot`: a backup of everything, given and taken back (consul.md 1, guarantees.md R4).
//!
//! A backup is compressed in memory, so that one that cannot be made is an error and not half a file. Therefore a node makes one at
//! a time, and takes one at a time; the next waits. Saving is never held up by a client that is slow to send one.

use std::io::{self, Write};
use std::sync::Arc;

use axum_core::body::Body;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::body::{self, Limit};
use super::reply;
use super::{Call, Outcome};
use crate::agent::Backup;
use crate::archive;
use crate::error::{Error, Result};
use crate::limits;
use crate::world::World;

/// Whose turn it is.
#[derive(Default)]
pub(super) struct Turns {
    save: Arc<Mutex<()>>,
    restore: Arc<Mutex<()>>,
}

/// Waits for a turn; it lasts until what is given is dropped.
async fn turn(world: &World, turns: &Arc<Mutex<()>>) -> Result<OwnedMutexGuard<()>> {
    world.timeout(limits::SNAPSHOT_TURN, turns.clone().lock_owned()).await.ok_or_else(|| {
        Error::Busy("This server is busy with another backup; repeat the request later, or at another server".into())
    })
}

/// `GET /v1/snapshot`
pub async fn save(call: Call) -> Outcome {
    let query = call.query()?;
    let options = query.read_options()?;
    let (agent, backups) = (&call.edge.agent, &call.edge.backups);
    // First the turn, then the state: what waits for its turn is no older for it.
    let turn = turn(agent.world(), &backups.save).await?;
    let answer = agent.backup(&options).await?;
    let mut headers = reply::indexed(&answer);
    let Backup { state, origin } = answer.value.ok_or_else(|| Error::Bug("a backup without a state".into()))?;
    // The work goes on if the client leaves, and so does its turn.
    let packing = move || {
        let _turn = turn;
        let mut packed = Packed { bytes: Vec::new(), most: limits::MAX_SNAPSHOT_UPLOAD, full: false };
        match archive::write(&state, &origin, &mut packed) {
            Err(_) if packed.full => Err(too_large()),
            outcome => outcome.map(|()| Bytes::from(packed.bytes)),
        }
    };
    let packed = agent.world().blocking(packing).await.map_err(|error| Error::Retry(error.to_string()))??;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-gzip"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(reply::streamed(headers, Body::from(packed)))
}

/// `PUT /v1/snapshot`
pub async fn restore(call: Call, body: Body) -> Outcome {
    call.query()?;
    let agent = &call.edge.agent;
    let limit = Limit {
        name: "Backup",
        bytes: limits::MAX_SNAPSHOT_UPLOAD,
        key: "it is the same everywhere",
        time: limits::SNAPSHOT_TIME,
    };
    let turn = turn(agent.world(), &call.edge.backups.restore).await?;
    let packed = body::read(agent.world(), &call.head.headers, body, &limit).await?;
    let unpacking = move || archive::read(&mut &packed[..]).map(|archive| (archive, turn));
    let (archive, _turn) =
        agent.world().blocking(unpacking).await.map_err(|error| Error::Retry(error.to_string()))??;
    let revision = agent.restore(archive).await?;
    let headers = HeaderMap::from_iter([(reply::INDEX, revision.into())]);
    Ok(reply::empty(StatusCode::OK, headers))
}

/// A backup in memory, no larger than one that can be given back.
struct Packed {
    bytes: Vec<u8>,
    most: usize,
    full: bool,
}

impl Write for Packed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.most {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn too_large() -> Error {
    let most = limits::MAX_SNAPSHOT_UPLOAD / limits::MIB;
    Error::Operator(format!(
        "The backup is larger than {most} MiB, and could not be restored: delete what is not needed"
    ))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::http::testing::test_world;

    #[test]
    fn a_backup_waits_its_turn_and_not_for_ever() {
        let (world, clock) = test_world();
        let turns = Turns::default();
        let first = turn(&world, &turns.save).now_or_never().unwrap().unwrap();
        let mut second = Box::pin(turn(&world, &turns.save));
        let mut third = Box::pin(turn(&world, &turns.save));
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        assert!(turn(&world, &turns.restore).now_or_never().is_some(), "saving does not wait for a slow upload");
        drop(first);
        let _second = second.now_or_never().expect("it is its turn").unwrap();
        clock.advance(limits::SNAPSHOT_TURN);
        let refused = third.now_or_never().expect("it has waited long enough").unwrap_err();
        assert!(matches!(refused, Error::Busy(_)), "{refused}");
    }

    #[test]
    fn what_could_not_be_given_back_is_not_given() {
        let mut packed = Packed { bytes: Vec::new(), full: false, most: 10 };
        assert!(packed.write_all(&[0; 10]).is_ok() && !packed.full);
        assert!(packed.write_all(&[0]).is_err() && packed.full);
    }
}
