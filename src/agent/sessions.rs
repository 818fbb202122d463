//! Sessions for the edges, on any server: the log makes and ends them, the leader renews them.

use std::time::Duration;

use uuid::Uuid;

use super::Agent;
use super::duties::Question;
use super::leases;
use super::lessor::Renewed;
use crate::api::session::{self as api, NewSession};
use crate::error::{Error, Result};
use crate::limits;
use crate::state::session::Behavior;
use crate::state::{Command, Reply, RequestId, Session, SessionRow};

/// A session that is alive.
#[derive(Debug, Clone)]
pub struct Alive {
    /// Its id.
    pub id: Uuid,
    /// What it is.
    pub row: SessionRow,
    /// How long its client may rely on it from when it sent the request; `None` without a TTL (G1).
    pub lease: Option<Duration>,
}

impl Agent {
    /// Makes a session and returns it with its first lease.
    ///
    /// # Errors
    /// [`Error::Request`] if it may not be as it is asked for; [`Error::Unknown`] if it may have been made (R3).
    pub async fn create_session(&self, request: Option<RequestId>, new: NewSession) -> Result<Alive> {
        let ttl = self.checked_ttl(&new)?;
        let session = Session {
            name: new.name,
            node: new.node.unwrap_or_else(|| self.inner.identity.name.clone()),
            lock_delay: new.lock_delay,
            behavior: match new.behavior {
                Ok(api::Behavior::Release) => Behavior::Release,
                Ok(api::Behavior::Delete) => Behavior::Delete,
                Err(other) => {
                    let why = format!("Invalid Behavior setting '{other}': there are release and delete");
                    return Err(Error::Request(why));
                }
            },
            ttl,
            node_checks: new.node_checks,
            service_checks: new.service_checks,
        };
        let id = self.inner.world.entropy.uuid();
        // The answer says which session it is: that of the first copy, if the request is a repeat.
        let id = match self.write(request, Command::SessionCreate { id, session }).await?.reply {
            Reply::Session(id) => id,
            Reply::Refused(why) => return Err(Error::Request(why)),
            other => return Err(Error::Unknown(format!("the session may or may not have been created: {other:?}"))),
        };
        // The first lease is a renewal like any other: whoever leads now answers for it.
        match self.renew_session(id).await {
            Ok(Some(alive)) => Ok(alive),
            Ok(None) => Err(Error::Retry(format!("session {id} was created and has ended since"))),
            Err(error) => {
                Err(Error::Unknown(format!("session {id} was created, but no leader answers for it: {error}")))
            }
        }
    }

    fn checked_ttl(&self, new: &NewSession) -> Result<Duration> {
        let Some(ttl) = new.parsed_ttl().map_err(Error::Request)? else { return Ok(Duration::ZERO) };
        let (least, most) = (self.inner.settings.session_ttl_min, limits::MAX_SESSION_TTL);
        if ttl < least || ttl > most {
            return Err(Error::Request(format!(
                "Invalid Session TTL '{}', must be between [{least:?}={most:?}]",
                new.ttl
            )));
        }
        Ok(ttl)
    }

    /// Renews a session; `None` if there is no such session, or it may not be renewed any more.
    ///
    /// # Errors
    /// [`Error::Retry`] if no leader answers for it in time.
    pub async fn renew_session(&self, id: Uuid) -> Result<Option<Alive>> {
        match self.ask(&Question::Renew(id)).await? {
            Renewed::Alive(row) => {
                let lease = (!row.session.ttl.is_zero()).then(|| leases::promised(row.session.ttl));
                Ok(Some(Alive { id, row, lease }))
            }
            Renewed::Gone | Renewed::Refused => Ok(None),
        }
    }
}
