//! Keeps a session alive and knows until when to rely on it (G1).
//!
//! A task with a connection of its own renews the session. That an agent does not answer, or knows no leader, is no loss: the
//! session lives on there, so the keeper goes on until the lease has run out, and then it is lost for good. What it never
//! does: believe in a lease for longer than was promised, counted from before the request was sent.
//!
//! Start with [`Keeper::start`].

use std::fmt;
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use super::http::Http;
use super::patience::persist;
use super::session::SessionOptions;
use crate::api::duration::GoDuration;
use crate::api::session::Behavior;
use crate::error::Result;
use crate::limits;
use crate::world::{Instant, Task};

/// What session to keep.
#[derive(Debug, Clone)]
pub struct KeeperOptions {
    /// A name for people.
    pub name: String,
    /// How long it lives without a renewal: for how long an outage of the agent is borne, and how late the death of the holder
    /// is noticed.
    pub ttl: Duration,
    /// What happens to its locks when it ends.
    pub behavior: Behavior,
}

/// A session that is renewed until this is dropped; then it runs out by itself. [`Keeper::end`] ends it at once.
pub struct Keeper {
    http: Http,
    session: Uuid,
    leased: bool,
    standing: watch::Receiver<Standing>,
    task: Task<()>,
}

/// How things stand with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nobody else holds what it holds before this moment of the client's clock.
    Held {
        /// The end of the lease, if no renewal moves it.
        until: Instant,
        /// Why the last renewal had no answer, if it had none.
        trouble: Option<String>,
    },
    /// It must not be relied on any more.
    Lost(Loss),
}

/// Why a session or a lock is not to be relied on any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// The agent says that the session does not exist any more.
    Ended,
    /// The lease ran out before a renewal was answered; why none was.
    RanOut(String),
    /// The session does not hold the lock any more; who does, or what became of it.
    Taken(String),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Ended => f.write_str("its session was ended"),
            Loss::RanOut(why) => write!(f, "its lease ran out before it was renewed: {why}"),
            Loss::Taken(what) => f.write_str(what),
        }
    }
}

impl Keeper {
    /// Makes a session and keeps it. At an agent that promises leases it is bound to no check and needs no lock-delay. Any
    /// other makes it as Consul does by default, and its TTL is taken for its lease.
    ///
    /// # Errors
    /// As [`Http::session_create`].
    pub async fn start(http: &Http, options: &KeeperOptions) -> Result<Keeper> {
        let http = http.another();
        let ttl = Some(GoDuration(i64::try_from(options.ttl.as_nanos()).unwrap_or(i64::MAX)).to_string());
        let (name, behavior) = (Some(options.name.clone()), Some(options.behavior));
        let plain = SessionOptions { name, ttl, behavior, ..SessionOptions::default() };
        let leased = SessionOptions { lock_delay: Some("0s".into()), node_checks: Some(Vec::new()), ..plain.clone() };
        let mut sent = http.now();
        let (mut session, lease) = http.session_create(&leased).await?;
        if lease.until.is_none() {
            http.session_destroy(&session.to_string()).await?;
            sent = http.now();
            (session, _) = http.session_create(&plain).await?;
        }
        let until = lease.until.unwrap_or(sent + options.ttl);
        let (tell, standing) = watch::channel(Standing::Held { until, trouble: None });
        let leased = lease.until.is_some();
        let renewer = Renewer { http: http.another(), session: session.to_string(), ttl: options.ttl, leased, tell };
        let task = http.world().spawn(renewer.run(sent, until));
        Ok(Keeper { http, session, leased, standing, task })
    }

    /// The session.
    pub fn session(&self) -> Uuid {
        self.session
    }

    /// Whether the agent promises leases. If not, the session may be ended before its time, by a check or an operator, and its
    /// holder learns of it when it looks.
    pub fn leased(&self) -> bool {
        self.leased
    }

    /// How things stand, and every change of it.
    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Until when the session may be relied on; `None` if it is lost.
    pub fn until(&self) -> Option<Instant> {
        match *self.standing.borrow() {
            Standing::Held { until, .. } => Some(until).filter(|until| *until > self.http.now()),
            Standing::Lost(_) => None,
        }
    }

    /// Waits until the session is not to be relied on any more: never for longer than the lease.
    pub async fn lost(&self) -> Loss {
        let mut standing = self.standing.clone();
        let world = self.http.world();
        loop {
            // By value: nothing is borrowed while it waits.
            let now = standing.borrow_and_update().clone();
            let (until, trouble) = match now {
                Standing::Lost(loss) => return loss,
                Standing::Held { until, trouble } => (until, trouble),
            };
            // The renewing task says the same; this does not depend on it.
            if world.clock.now() >= until {
                return Loss::RanOut(trouble.unwrap_or_else(|| HELD_UP.into()));
            }
            tokio::select! {
                changed = standing.changed() => if changed.is_err() {
                    world.clock.sleep_until(until).await;
                },
                () = world.clock.sleep_until(until) => {}
            }
        }
    }

    /// Ends the session, which frees what it still holds. If that fails it runs out by itself.
    ///
    /// # Errors
    /// As [`Http::session_destroy`].
    pub async fn end(self) -> Result<()> {
        self.task.abort();
        let id = self.session.to_string();
        let end = self.http.now() + limits::LOCK_FAREWELL;
        persist(self.http.world(), end, || self.http.session_destroy(&id)).await
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why there was no renewal, if not by the agent's fault.
const HELD_UP: &str = "this process was held up";

/// The task that renews.
struct Renewer {
    http: Http,
    session: String,
    ttl: Duration,
    leased: bool,
    tell: watch::Sender<Standing>,
}

impl Renewer {
    async fn run(self, sent: Instant, until: Instant) {
        let loss = self.renew(sent, until).await;
        self.tell.send_replace(Standing::Lost(loss));
    }

    /// Renews until the session is lost. `sent` and `until` are those of the last success.
    async fn renew(&self, sent: Instant, mut until: Instant) -> Loss {
        let world = self.http.world();
        let part = self.ttl / limits::LEASE_PARTS;
        let mut next = sent + 2 * part;
        loop {
            world.clock.sleep_until(next.min(until)).await;
            let sent = world.clock.now();
            if sent >= until {
                return Loss::RanOut(self.trouble().unwrap_or_else(|| HELD_UP.into()));
            }
            let patience = part.min(until.since(sent));
            let answer = world.timeout(patience, self.http.session_renew(&self.session)).await;
            let now = world.clock.now();
            match answer {
                Some(Ok(None)) => return Loss::Ended,
                // What has run out once stays lost, although the agent gives it more time: others were told.
                Some(Ok(Some((_, lease)))) if now < until => {
                    let promised = if self.leased { lease.until } else { Some(sent + self.ttl) };
                    until = promised.map_or(until, |promised| promised.max(until));
                    self.tell.send_replace(Standing::Held { until, trouble: None });
                    next = sent + 2 * part;
                }
                Some(Ok(Some(_))) => return Loss::RanOut("its renewal was answered too late".into()),
                Some(Err(error)) => {
                    self.fret(until, error.to_string());
                    next = now + limits::LOCK_RETRY.min(part / 2);
                }
                None => {
                    self.fret(until, format!("{} did not answer within {patience:?}", self.http.address()));
                    next = now;
                }
            }
        }
    }

    fn fret(&self, until: Instant, trouble: String) {
        self.tell.send_replace(Standing::Held { until, trouble: Some(trouble) });
    }

    fn trouble(&self) -> Option<String> {
        match &*self.tell.borrow() {
            Standing::Held { trouble, .. } => trouble.clone(),
            Standing::Lost(_) => None,
        }
    }
}
