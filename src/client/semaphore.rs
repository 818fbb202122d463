//! A semaphore: up to so many holders at a time, by the recipe of Consul's clients, who may share it.
//!
//! Every contender holds a key of its own, PREFIX/SESSION, for as long as its session lives. Who of them hold the semaphore is
//! in PREFIX/.lock, which is changed only if nobody else has changed it; whoever looks takes out those whose session is gone. A
//! holder's fence is that of its own key. What this never does: keep an order among those who wait; the recipe has none.
//!
//! Start with [`Semaphore::acquire`].

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::contend::Contest;
use super::http::Http;
use super::keeper::{Keeper, KeeperOptions, Loss};
use super::kv::{Delete, Pair, PutOptions, Under, When};
use super::lock::{LOCK_FLAGS, SEMAPHORE_FLAGS, beyond, next_index};
use super::patience::persist;
use crate::api::session::Behavior;
use crate::error::{Error, Result};
use crate::limits;
use crate::world::Instant;

/// A semaphore that can be acquired.
pub struct Semaphore {
    places: Places,
    session: KeeperOptions,
}

/// A place that is held. Dropped, it is not renewed any more, and is free when its lease has run out; [`Place::release`]
/// frees it at once.
pub struct Place {
    places: Places,
    fence: Option<u64>,
    keeper: Keeper,
}

/// Where a semaphore is, and for how many.
struct Places {
    http: Http,
    prefix: String,
    limit: usize,
}

/// The value of PREFIX/.lock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Holders {
    limit: usize,
    #[serde(deserialize_with = "map_or_null")]
    holders: BTreeMap<String, bool>,
}

fn map_or_null<'de, D: serde::Deserializer<'de>>(input: D) -> std::result::Result<BTreeMap<String, bool>, D::Error> {
    Option::<BTreeMap<String, bool>>::deserialize(input).map(Option::unwrap_or_default)
}

/// A semaphore as it was found.
struct Found {
    /// Without those whose session is gone.
    holders: Holders,
    /// ModifyIndex of PREFIX/.lock; 0 if there is none.
    modified: u64,
    /// Sessions that hold their key.
    contenders: Vec<String>,
}

impl Semaphore {
    /// A semaphore at this agent for so many holders.
    pub fn new(http: &Http, prefix: &str, limit: usize) -> Semaphore {
        let prefix = prefix.trim_end_matches('/').to_string();
        let name = format!("semaphore {prefix}");
        let session = KeeperOptions { name, ttl: limits::LOCK_TTL, behavior: Behavior::Delete };
        Semaphore { places: Places { http: http.another(), prefix, limit }, session }
    }

    /// The same, held by sessions like this one.
    pub fn session(self, name: &str, ttl: Duration) -> Semaphore {
        Semaphore { session: KeeperOptions { name: name.into(), ttl, ..self.session }, ..self }
    }

    /// Waits for a place: for ever without a `patience`; zero asks once. `None` if there is still none then. Dropped, it waits
    /// no more; its session is left to run out.
    ///
    /// # Errors
    /// `Request` if the others are as many as another number, or the prefix is used for something else; otherwise as
    /// [`super::lock::Lock::acquire`].
    pub async fn acquire(&self, patience: Option<Duration>) -> Result<Option<Place>> {
        self.acquire_unless(patience, std::future::pending()).await
    }

    /// The same; `None` too as soon as it is called off, with its session ended.
    ///
    /// # Errors
    /// As [`Semaphore::acquire`].
    pub async fn acquire_unless(
        &self,
        patience: Option<Duration>,
        called_off: impl Future<Output = ()>,
    ) -> Result<Option<Place>> {
        let http = &self.places.http;
        let contest = Contest { http, session: &self.session, end: patience.map(|patience| http.now() + patience) };
        let won = contest.win(called_off, |session| self.take(session, &contest)).await?;
        Ok(won.map(|(keeper, Taken { fence })| Place { places: self.places.another(), fence, keeper }))
    }

    /// Has a session take a place. May be repeated.
    async fn take(&self, session: Uuid, contest: &Contest<'_>) -> Result<Option<Taken>> {
        let places = &self.places;
        let fence = self.contend(session, contest).await?;
        let own = session.to_string();
        let mut index = 0;
        loop {
            let wait = contest.left().min(limits::LOCK_TURN);
            let found = match places.find(index, wait).await {
                Ok((found, next)) => {
                    index = next;
                    found
                }
                Err(error) => {
                    contest.wait_out(error).await?;
                    continue;
                }
            };
            if found.holders.holders.contains_key(&own) {
                return Ok(Some(Taken { fence }));
            }
            if found.holders.holders.len() < places.limit {
                index = 0;
                let mut holders = found.holders;
                holders.holders.insert(own.clone(), true);
                match places.write(&holders, found.modified).await {
                    Ok(true) => return Ok(Some(Taken { fence })),
                    // Somebody else has changed it.
                    Ok(false) => {}
                    Err(error) => contest.wait_out(error).await?,
                }
            } else if contest.left().is_zero() {
                return Ok(None);
            }
        }
    }

    /// Has a session take its own key; its fence.
    async fn contend(&self, session: Uuid, contest: &Contest<'_>) -> Result<Option<u64>> {
        let (http, key) = (&self.places.http, self.places.key(&session.to_string()));
        let when = When::Acquire(session.to_string());
        let options = PutOptions { flags: SEMAPHORE_FLAGS, when, ..PutOptions::default() };
        let put = || http.kv_put_fenced(&key, Bytes::new(), &options);
        match persist(http.world(), contest.last_try(), put).await? {
            (true, fence) => Ok(fence),
            (false, _) => Err(Error::Request(format!("another session holds {key}, which bears the name of this one"))),
        }
    }

    /// Deletes PREFIX/.lock, if nobody holds the semaphore. `false` if somebody does.
    ///
    /// # Errors
    /// As [`Http::kv_delete`].
    pub async fn remove(&self) -> Result<bool> {
        let (found, _) = self.places.find(0, Duration::ZERO).await?;
        match found.modified {
            _ if !found.holders.holders.is_empty() => Ok(false),
            0 => Ok(true),
            modified => {
                let (http, key) = (&self.places.http, self.places.key(LOCK));
                http.kv_delete(&key, &Delete::Unchanged(modified), None, None).await
            }
        }
    }
}

/// A place was taken.
struct Taken {
    fence: Option<u64>,
}

/// The last part of the key that says who holds the semaphore.
const LOCK: &str = ".lock";

impl Places {
    fn another(&self) -> Places {
        Places { http: self.http.another(), prefix: self.prefix.clone(), limit: self.limit }
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// The semaphore, once it has changed beyond an index; and what to wait beyond next.
    async fn find(&self, index: u64, wait: Duration) -> Result<(Found, u64)> {
        let answer = self.http.kv_list(&self.key(""), &beyond(index, wait)).await?;
        let index = next_index(index, &answer);
        self.read(&answer.data).map(|found| (found, index))
    }

    fn read(&self, pairs: &[Pair]) -> Result<Found> {
        let lock = self.key(LOCK);
        let pair = pairs.iter().find(|pair| pair.key == lock);
        let mut holders = pair.map_or_else(|| Ok(Holders::default()), |pair| self.decode(pair))?;
        holders.limit = self.limit;
        let holds = |pair: &&Pair| pair.session.as_ref().is_some_and(|session| pair.key == self.key(session));
        let contenders: Vec<String> = pairs.iter().filter(holds).filter_map(|pair| pair.session.clone()).collect();
        holders.holders.retain(|session, _| contenders.contains(session));
        Ok(Found { holders, modified: pair.map_or(0, |pair| pair.modify_index), contenders })
    }

    fn decode(&self, pair: &Pair) -> Result<Holders> {
        let wrong = |what: String| Error::Request(format!("{} {what}", pair.key));
        match pair.flags {
            SEMAPHORE_FLAGS => {}
            LOCK_FLAGS => {
                return Err(wrong(format!("is used by a lock, which one may hold (lock -n=1), not {}", self.limit)));
            }
            other => return Err(wrong(format!("is no semaphore's: its flags are {other}. Choose another prefix"))),
        }
        if pair.value.is_empty() {
            return Ok(Holders::default());
        }
        let holders: Holders =
            serde_json::from_slice(&pair.value).map_err(|e| wrong(format!("does not say who holds it: {e}")))?;
        if holders.limit != self.limit {
            let (theirs, ours) = (holders.limit, self.limit);
            return Err(wrong(format!(
                "is held by up to {theirs}, not {ours}: all who use it must agree on the number"
            )));
        }
        Ok(holders)
    }

    async fn write(&self, holders: &Holders, modified: u64) -> Result<bool> {
        let value = serde_json::to_vec(holders).map_err(|e| Error::Bug(format!("a map has no JSON: {e}")))?;
        let options = PutOptions { flags: SEMAPHORE_FLAGS, when: When::Unchanged(modified), ..PutOptions::default() };
        self.http.kv_put(&self.key(LOCK), value.into(), &options).await
    }

    /// Takes a session out of the holders. `false` if it was none of them.
    async fn take_out(&self, session: &str) -> Result<bool> {
        loop {
            let (mut found, _) = self.find(0, Duration::ZERO).await?;
            if found.holders.holders.remove(session).is_none() {
                return Ok(false);
            }
            if self.write(&found.holders, found.modified).await? {
                return Ok(true);
            }
        }
    }
}

impl Place {
    /// The fence of the holder's own key. A real Consul gives none.
    pub fn fence(&self) -> Option<u64> {
        self.fence
    }

    /// The holder's own key.
    pub fn key(&self) -> String {
        self.places.key(&self.keeper.session().to_string())
    }

    /// What keeps the session that holds it.
    pub fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// Until when the place is this holder's, if no renewal moves it; `None` if it is lost.
    pub fn until(&self) -> Option<Instant> {
        self.keeper.until()
    }

    /// The place as a condition of writes ([`PutOptions::under`]).
    pub fn under(&self) -> Option<Under> {
        self.fence.map(|fence| Under { lock: self.key(), fence })
    }

    /// Waits until the place is lost, as [`super::lock::Guard::lost`] does.
    pub async fn lost(&self) -> Loss {
        tokio::select! {
            biased;
            loss = self.keeper.lost() => loss,
            loss = self.monitor() => loss,
        }
    }

    async fn monitor(&self) -> Loss {
        let world = self.places.http.world();
        let own = self.keeper.session().to_string();
        let mut index = 0;
        loop {
            let left = self.until().map_or(Duration::ZERO, |until| until.since(world.clock.now()));
            // Whether nobody answers is the keeper's business.
            match world.timeout(left, self.places.find(index, left / 2)).await {
                Some(Ok((found, _))) if !found.contenders.contains(&own) => {
                    return Loss::Taken(format!("{} was released by somebody else", self.key()));
                }
                Some(Ok((found, _))) if !found.holders.holders.contains_key(&own) => {
                    return Loss::Taken(format!(
                        "{} does not count it among the holders any more",
                        self.places.key(LOCK)
                    ));
                }
                Some(Ok((_, next))) => index = next,
                Some(Err(error)) if !error.may_pass() => return Loss::Taken(error.to_string()),
                Some(Err(_)) | None => world.sleep(limits::LOCK_RETRY).await,
            }
        }
    }

    /// Gives the place up and ends its session, with which the holder's key goes. `false` if it was not held any more.
    ///
    /// # Errors
    /// As [`Http::send`]: then it is free when its lease has run out.
    pub async fn release(self) -> Result<bool> {
        let session = self.keeper.session().to_string();
        let world = self.places.http.world();
        let end = world.clock.now() + limits::LOCK_FAREWELL;
        let released = persist(world, end, || self.places.take_out(&session)).await;
        self.keeper.end().await?;
        released
    }
}
