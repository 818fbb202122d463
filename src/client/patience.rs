//! Tries again what may be done twice, until it succeeds or a moment has come.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::limits;
use crate::world::{Instant, World};

/// Repeats what failed in a way that may pass. What is repeated must come to the same however often it is done.
///
/// # Errors
/// The last error, if none of the attempts succeeded until `end`, or the first that does not pass by itself.
pub async fn persist<T, F>(world: &World, end: Instant, mut attempt: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut last = None;
    loop {
        let left = end.since(world.clock.now());
        match world.timeout(left, attempt()).await {
            Some(Err(error)) if error.may_pass() => last = Some(error),
            Some(outcome) => return outcome,
            None => {}
        }
        if world.clock.now() >= end {
            return Err(last.unwrap_or_else(|| Error::Unknown(format!("no answer within {left:?}"))));
        }
        world.sleep(limits::LOCK_RETRY.min(left / PAUSES)).await;
    }
}

/// Attempts that have their turn even if little time is left.
const PAUSES: u32 = 8;

/// The time left until `end`; for ever if there is none.
pub fn left(world: &World, end: Option<Instant>) -> Duration {
    end.map_or(Duration::MAX, |end| end.since(world.clock.now()))
}
