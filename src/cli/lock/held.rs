//! What is held: a lock, or one of several places of a semaphore.

use std::time::Duration;

use crate::client::http::Http;
use crate::client::keeper::{Keeper, Loss};
use crate::client::lock::{Guard, Lock};
use crate::client::semaphore::{Place, Semaphore};
use crate::error::Result;
use crate::world::Instant;

/// What is wanted: the lock of a prefix, which one or several may hold.
pub enum Wanted {
    One(Lock),
    Several(Semaphore),
}

/// The same, held.
pub enum Held {
    One(Guard),
    Several(Place),
}

impl Wanted {
    /// The key of one is that of several: who does not agree on the number is told so.
    pub fn new(http: &Http, prefix: &str, n: usize, name: &str, ttl: Duration) -> Wanted {
        match n {
            1 => Wanted::One(Lock::new(http, &format!("{prefix}/.lock")).session(name, ttl)),
            n => Wanted::Several(Semaphore::new(http, prefix, n).session(name, ttl)),
        }
    }

    pub async fn acquire(
        &self,
        patience: Option<Duration>,
        called_off: impl Future<Output = ()>,
    ) -> Result<Option<Held>> {
        Ok(match self {
            Wanted::One(lock) => lock.acquire_unless(patience, called_off).await?.map(Held::One),
            Wanted::Several(semaphore) => semaphore.acquire_unless(patience, called_off).await?.map(Held::Several),
        })
    }

    pub async fn remove(&self) -> Result<bool> {
        match self {
            Wanted::One(lock) => lock.remove().await,
            Wanted::Several(semaphore) => semaphore.remove().await,
        }
    }
}

impl Held {
    pub fn key(&self) -> String {
        match self {
            Held::One(guard) => guard.key().to_string(),
            Held::Several(place) => place.key(),
        }
    }

    pub fn fence(&self) -> Option<u64> {
        match self {
            Held::One(guard) => guard.fence(),
            Held::Several(place) => place.fence(),
        }
    }

    pub fn keeper(&self) -> &Keeper {
        match self {
            Held::One(guard) => guard.keeper(),
            Held::Several(place) => place.keeper(),
        }
    }

    pub fn until(&self) -> Option<Instant> {
        self.keeper().until()
    }

    pub async fn lost(&self) -> Loss {
        match self {
            Held::One(guard) => guard.lost().await,
            Held::Several(place) => place.lost().await,
        }
    }

    pub async fn release(self) -> Result<bool> {
        match self {
            Held::One(guard) => guard.release().await,
            Held::Several(place) => place.release().await,
        }
    }
}
