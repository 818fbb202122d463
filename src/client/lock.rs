//! A lock: one holder at a time, first come, first served, with a fence (G2, G6).
//!
//! The key is the lock, as in Consul, whose own clients may share it: it has their flags while it is held. At an agent without
//! queues, a real Consul, their recipe is followed. What this never does: claim the lock for longer than its session's lease.
//!
//! Start with [`Lock::acquire`].

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::contend::Contest;
use super::http::Http;
use super::keeper::{Keeper, KeeperOptions, Loss};
use super::kv::{Answer, Consistency, Delete, Pair, PutOptions, ReadOptions, Under, When};
use super::patience::persist;
use super::queue::Turn;
use crate::api::session::Behavior;
use crate::error::{Error, Result};
use crate::limits;
use crate::world::Instant;

/// The flags by which Consul's clients know the key of a lock.
pub const LOCK_FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;
/// The flags by which they know the keys of a semaphore.
pub const SEMAPHORE_FLAGS: u64 = 0xe0f6_9a2b_aa41_4de0;

/// Zero would be an agent's default, which is minutes.
pub(super) const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// A lock that can be acquired.
pub struct Lock {
    http: Http,
    key: String,
    /// What to write into the key; it keeps what it has if `None`.
    value: Option<Bytes>,
    session: KeeperOptions,
}

/// A lock that is held. Dropped, it is not renewed any more, and is free when its lease has run out; [`Guard::release`] frees
/// it at once.
pub struct Guard {
    http: Http,
    key: String,
    fence: Option<u64>,
    keeper: Keeper,
}

impl Lock {
    /// A lock at this agent.
    pub fn new(http: &Http, key: &str) -> Lock {
        let session = KeeperOptions { name: format!("lock {key}"), ttl: limits::LOCK_TTL, behavior: Behavior::Release };
        Lock { http: http.another(), key: key.into(), value: None, session }
    }

    /// The same, whose holder writes this into the key.
    pub fn value(self, value: impl Into<Bytes>) -> Lock {
        Lock { value: Some(value.into()), ..self }
    }

    /// The same, held by sessions like this one.
    pub fn session(self, name: &str, ttl: Duration) -> Lock {
        Lock { session: KeeperOptions { name: name.into(), ttl, ..self.session }, ..self }
    }

    /// Waits for the lock: for ever without a `patience`; zero asks once. `None` if somebody else still holds it then. Dropped,
    /// it waits no more; its session is left to run out.
    ///
    /// # Errors
    /// `Request` if the key is used for something else; those of [`Keeper::start`], at first. Later failures are waited out,
    /// and given back only if the patience ends in one.
    pub async fn acquire(&self, patience: Option<Duration>) -> Result<Option<Guard>> {
        self.acquire_unless(patience, std::future::pending()).await
    }

    /// The same; `None` too as soon as it is called off, with its session ended.
    ///
    /// # Errors
    /// As [`Lock::acquire`].
    pub async fn acquire_unless(
        &self,
        patience: Option<Duration>,
        called_off: impl Future<Output = ()>,
    ) -> Result<Option<Guard>> {
        let end = patience.map(|patience| self.http.now() + patience);
        let contest = Contest { http: &self.http, session: &self.session, end };
        let won = contest.win(called_off, |session| self.take(session, &contest)).await?;
        Ok(won.map(|(keeper, held)| {
            let (http, key) = (self.http.another(), self.key.clone());
            Guard { http, key, fence: held.fence, keeper }
        }))
    }

    /// Has a session take the lock. May be repeated.
    async fn take(&self, session: Uuid, contest: &Contest<'_>) -> Result<Option<Held>> {
        self.look(contest).await?;
        loop {
            let wait = contest.left().min(limits::LOCK_TURN);
            match self.http.lock_queue(&self.key, session, wait).await {
                Ok(Turn::Granted(fence)) => return self.mark(fence, contest).await.map(Some),
                Ok(Turn::NoQueues) => return self.take_by_recipe(session, contest).await,
                Ok(Turn::Held) if wait < limits::LOCK_TURN || contest.left().is_zero() => return Ok(None),
                Ok(Turn::Held) => {}
                Err(error) => contest.wait_out(error).await?,
            }
        }
    }

    /// Writes into a key that was granted what Consul's clients look for in it, and the value.
    async fn mark(&self, fence: u64, contest: &Contest<'_>) -> Result<Held> {
        let (flags, old) = self.look(contest).await?.map_or((0, Bytes::new()), |pair| (pair.flags, pair.value));
        let value = self.value.clone().unwrap_or_else(|| old.clone());
        if flags != LOCK_FLAGS || value != old {
            let under = Some(Under { lock: self.key.clone(), fence });
            let options = PutOptions { flags: LOCK_FLAGS, under, ..PutOptions::default() };
            let put = || self.http.kv_put(&self.key, value.clone(), &options);
            persist(self.http.world(), contest.last_try(), put).await?;
        }
        Ok(Held { fence: Some(fence) })
    }

    /// The key as it is, if it may be a lock's.
    async fn look(&self, contest: &Contest<'_>) -> Result<Option<Pair>> {
        let options = ReadOptions { consistency: Consistency::Consistent, ..ReadOptions::default() };
        let get = || self.http.kv_get(&self.key, &options);
        self.check(persist(self.http.world(), contest.last_try(), get).await?.data)
    }

    fn check(&self, pair: Option<Pair>) -> Result<Option<Pair>> {
        match pair.as_ref().map_or(0, |pair| pair.flags) {
            // Nobody has used it as a lock yet, or without a client.
            0 | LOCK_FLAGS => Ok(pair),
            SEMAPHORE_FLAGS => Err(Error::Request(format!(
                "{} is used by a semaphore: all who use it must agree on how many may hold it (lock -n)",
                self.key
            ))),
            other => Err(Error::Request(format!(
                "{} is no lock: its flags are {other}, which are somebody else's. Choose another key",
                self.key
            ))),
        }
    }

    /// As Consul's clients do it: waits until nobody holds the key, and tries.
    async fn take_by_recipe(&self, session: Uuid, contest: &Contest<'_>) -> Result<Option<Held>> {
        let mut index = 0;
        loop {
            let wait = contest.left().clamp(SHORTEST_WAIT, limits::LOCK_TURN);
            let answer = match self.http.kv_get(&self.key, &beyond(index, wait)).await {
                Ok(answer) => answer,
                Err(error) => {
                    contest.wait_out(error).await?;
                    continue;
                }
            };
            index = next_index(index, &answer);
            let pair = self.check(answer.data)?;
            let own = |holder: &str| holder == session.to_string();
            if pair.as_ref().and_then(|pair| pair.session.as_deref()).is_none_or(own) {
                let value = self.value.clone().or_else(|| pair.map(|pair| pair.value)).unwrap_or_default();
                let when = When::Acquire(session.to_string());
                let options = PutOptions { flags: LOCK_FLAGS, when, ..PutOptions::default() };
                index = 0;
                match self.http.kv_put_fenced(&self.key, value, &options).await {
                    Ok((true, fence)) => return Ok(Some(Held { fence })),
                    // Under a delay, or somebody was faster: nothing tells when a delay ends.
                    Ok((false, _)) => self.http.world().sleep(limits::LOCK_RETRY.min(contest.left())).await,
                    Err(error) => contest.wait_out(error).await?,
                }
            }
            if contest.left().is_zero() {
                return Ok(None);
            }
        }
    }

    /// Deletes the key, if nobody holds it or waits for it. `false` if somebody does.
    ///
    /// # Errors
    /// As [`Http::kv_delete`]; `Request` if the key is no lock's.
    pub async fn remove(&self) -> Result<bool> {
        let options = ReadOptions { consistency: Consistency::Consistent, ..ReadOptions::default() };
        match self.check(self.http.kv_get(&self.key, &options).await?.data)? {
            None => Ok(true),
            Some(pair) if pair.session.is_some() => Ok(false),
            // Whoever takes it meanwhile changes it.
            Some(pair) => self.http.kv_delete(&self.key, &Delete::Unchanged(pair.modify_index), None, None).await,
        }
    }
}

/// The lock was taken.
struct Held {
    fence: Option<u64>,
}

/// A read that waits for a change beyond an index, and is as fresh as the answer to a write.
pub(super) fn beyond(index: u64, wait: Duration) -> ReadOptions {
    let wait = Some(wait.max(SHORTEST_WAIT));
    ReadOptions { consistency: Consistency::Consistent, index, wait, ..ReadOptions::default() }
}

/// What to wait beyond next: from the beginning if the index went back, as it does when a Consul is restored.
pub(super) fn next_index<T>(index: u64, answer: &Answer<T>) -> u64 {
    if answer.index < index { 0 } else { answer.index }
}

impl Guard {
    /// The fence, for writes under it ([`Under`]) and for whatever else can check that it never falls. A real Consul gives none.
    pub fn fence(&self) -> Option<u64> {
        self.fence
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What keeps the session that holds it.
    pub fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// Until when nobody else holds the lock, if no renewal moves it; `None` if it is lost.
    pub fn until(&self) -> Option<Instant> {
        self.keeper.until()
    }

    /// The lock as a condition of writes ([`PutOptions::under`]).
    pub fn under(&self) -> Option<Under> {
        self.fence.map(|fence| Under { lock: self.key.clone(), fence })
    }

    /// Waits until the lock is lost: when its lease ends at the latest, however silent the network is, and earlier if the
    /// session is ended or somebody else holds the key.
    pub async fn lost(&self) -> Loss {
        tokio::select! {
            biased;
            loss = self.keeper.lost() => loss,
            loss = self.monitor() => loss,
        }
    }

    /// Looks at the key until somebody else holds it.
    async fn monitor(&self) -> Loss {
        let world = self.http.world();
        let mut index = 0;
        loop {
            let left = self.until().map_or(Duration::ZERO, |until| until.since(world.clock.now()));
            // Whether nobody answers is the keeper's business.
            match world.timeout(left, self.http.kv_get(&self.key, &beyond(index, left / 2))).await {
                Some(Ok(answer)) => {
                    index = next_index(index, &answer);
                    let Some(pair) = answer.data else {
                        return Loss::Taken(format!("{} was deleted", self.key));
                    };
                    match pair.session {
                        Some(holder) if holder == self.keeper.session().to_string() => {}
                        Some(holder) => return Loss::Taken(format!("session {holder} holds {} now", self.key)),
                        None => return Loss::Taken(format!("{} was released by somebody else", self.key)),
                    }
                }
                Some(Err(_)) | None => world.sleep(limits::LOCK_RETRY).await,
            }
        }
    }

    /// Gives the lock up and ends its session. `false` if it was not held any more.
    ///
    /// # Errors
    /// As [`Http::send`]: then it is free when its lease has run out.
    pub async fn release(self) -> Result<bool> {
        let session = self.keeper.session();
        let world = self.http.world();
        let end = world.clock.now() + limits::LOCK_FAREWELL;
        let released = match self.fence {
            // Fenced, so that a repeated one ends no later hold.
            Some(fence) => persist(world, end, || self.http.lock_release(&self.key, session, fence)).await,
            None => persist(world, end, || self.release_by_recipe(session)).await,
        };
        self.keeper.end().await?;
        released
    }

    async fn release_by_recipe(&self, session: Uuid) -> Result<bool> {
        let pair = self.http.kv_get(&self.key, &ReadOptions::default()).await?.data;
        let Some(pair) = pair.filter(|pair| pair.session == Some(session.to_string())) else { return Ok(false) };
        let when = When::Release(session.to_string(), None);
        let options = PutOptions { flags: LOCK_FLAGS, when, ..PutOptions::default() };
        self.http.kv_put(&self.key, pair.value, &options).await
    }
}
