//! Gets something for a session that is kept meanwhile, and starts again with another one if it is lost on the way.

use uuid::Uuid;

use super::http::Http;
use super::keeper::{Keeper, KeeperOptions};
use super::patience::{left, persist};
use crate::error::{Error, Result};
use crate::limits;
use crate::world::Instant;

/// What somebody waits for, and for how long.
pub struct Contest<'a> {
    pub http: &'a Http,
    pub session: &'a KeeperOptions,
    /// When the patience ends; never if `None`.
    pub end: Option<Instant>,
}

impl Contest<'_> {
    /// Has `take` get it for a session. `None` if it could not in time, or was called off; the session is ended then.
    ///
    /// # Errors
    /// Those of the first session's start, and of `take`.
    pub async fn win<T, F>(
        &self,
        called_off: impl Future<Output = ()>,
        take: impl Fn(Uuid) -> F,
    ) -> Result<Option<(Keeper, T)>>
    where
        F: Future<Output = Result<Option<T>>>,
    {
        let mut called_off = std::pin::pin!(called_off);
        let mut keeper = Keeper::start(self.http, self.session).await?;
        loop {
            let taken = tokio::select! {
                biased;
                () = &mut called_off => Some(Ok(None)),
                _ = keeper.lost() => None,
                taken = take(keeper.session()) => Some(taken),
            };
            match taken {
                Some(Ok(Some(won))) => return Ok(Some((keeper, won))),
                Some(outcome) => {
                    // If it cannot be ended it runs out.
                    let _ = keeper.end().await;
                    return outcome.map(|_| None);
                }
                // Its place in a queue went with the session: another one gets in line.
                None => {
                    let again = persist(self.http.world(), self.deadline(), || Keeper::start(self.http, self.session));
                    keeper = tokio::select! {
                        biased;
                        () = &mut called_off => return Ok(None),
                        again = again => again?,
                    };
                }
            }
        }
    }

    /// Goes on after an error that may pass, unless the patience has ended.
    ///
    /// # Errors
    /// The same one otherwise.
    pub async fn wait_out(&self, error: Error) -> Result<()> {
        if !error.may_pass() || self.left().is_zero() {
            return Err(error);
        }
        self.http.world().sleep(limits::LOCK_RETRY).await;
        Ok(())
    }

    /// The patience that is left.
    pub fn left(&self) -> std::time::Duration {
        left(self.http.world(), self.end)
    }

    /// When the patience ends, at the end of all time if never.
    fn deadline(&self) -> Instant {
        self.end.unwrap_or(Instant(u64::MAX))
    }

    /// Until when something small is tried that a granted lock still needs: the session ends what takes longer.
    pub fn last_try(&self) -> Instant {
        self.deadline().max(self.http.now() + self.session.ttl)
    }
}
