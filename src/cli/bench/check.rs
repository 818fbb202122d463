//! The check: writes rising numbers to keys of its own, goes on through failures, and reads every key back at the end.
//!
//! Each key has one writer, which sends the next number only after the last was answered, so that a key must hold the
//! last number acknowledged. A write without an answer may have been applied, or may be applied later: after one the
//! writer turns to a new key, and either number counts as right in the old one. A value is compared whole, so that a
//! damaged or foreign one is noticed too.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::bail;
use indicatif::ProgressBar;

use super::load::{Link, refusal};
use super::{Plan, Until, show};
use crate::limits;
use crate::world::Instant;

/// Twenty digits and a blank: the number by which a value is recognized.
pub const LEAST_VALUE: usize = 21;

/// What the check found.
pub struct Verdict {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes whose outcome is unknown.
    pub unknown: u64,
    /// Keys that were read back.
    pub keys: u64,
    /// One sentence for each key that holds what it may not.
    pub lost: Vec<String>,
}

/// What a key may hold: 0 is no key.
struct Expected {
    path: String,
    acknowledged: u64,
    unknown: Option<u64>,
}

struct Shared {
    plan: Plan,
    acknowledged: AtomicU64,
    begun: AtomicU64,
    deadline: Option<Instant>,
}

/// Writes until the plan says to stop, then reads back.
pub async fn run(plan: &Plan, bar: &ProgressBar) -> anyhow::Result<Verdict> {
    // An address where nothing listens is a mistake, not a failure to go on through.
    Link::new(plan).connect().await?;
    let deadline = match plan.until {
        Until::Time(time) => Some(plan.world.clock.now() + time),
        Until::Count(_) => None,
    };
    let shared =
        Arc::new(Shared { plan: plan.clone(), acknowledged: AtomicU64::new(0), begun: AtomicU64::new(0), deadline });
    let tasks: Vec<_> = (0..plan.clients).map(|n| plan.world.spawn(writer(shared.clone(), n))).collect();
    let written = tokio::select! {
        written = futures_util::future::try_join_all(tasks) => written?,
        never = show(plan, bar, || shared.acknowledged.load(Ordering::Relaxed)) => match never {},
    };
    bar.set_message("reading back");
    let expected: Vec<Expected> = written.into_iter().flatten().collect();
    let mut verdict = Verdict {
        acknowledged: shared.acknowledged.load(Ordering::Relaxed),
        unknown: expected.iter().filter(|e| e.unknown.is_some()).count() as u64,
        keys: expected.len() as u64,
        lost: Vec::new(),
    };
    let mut link = Link::new(plan);
    for key in &expected {
        let found = read_back(plan, &mut link, key).await?;
        verdict.lost.extend(judge(key, found.as_deref(), plan.value_size));
    }
    Ok(verdict)
}

impl Shared {
    fn goes_on(&self) -> bool {
        match (self.deadline, self.plan.until) {
            (Some(deadline), _) => self.plan.world.clock.now() < deadline,
            (None, Until::Count(count)) => self.begun.fetch_add(1, Ordering::Relaxed) < count,
            (None, Until::Time(_)) => false,
        }
    }
}

/// One client: goes round its keys, writing the next number to each.
async fn writer(shared: Arc<Shared>, number: usize) -> Vec<Expected> {
    let plan = &shared.plan;
    let slots = (plan.keys / plan.clients as u64).max(1);
    let mut link = Link::new(plan);
    let mut current: BTreeMap<u64, Expected> = BTreeMap::new();
    let mut retired = Vec::new();
    let mut value = Vec::new();
    for sequence in 1.. {
        if !shared.goes_on() {
            break;
        }
        let slot = sequence % slots;
        // Nothing has been sent if this fails: the number was never tried.
        if link.connect().await.is_err() {
            plan.world.sleep(limits::BENCH_RECONNECT).await;
            continue;
        }
        let key = current.entry(slot).or_insert_with(|| {
            // The number makes the name of a successor of a retired key another name.
            let path = format!("{}{number}/{slot}.{sequence}", plan.path);
            Expected { path, acknowledged: 0, unknown: None }
        });
        set_value(&mut value, sequence, plan.value_size);
        match link.exchange("PUT", &key.path, &value).await {
            Ok(reply) if reply.status == 200 && reply.body.trim_ascii() == b"true" => {
                key.acknowledged = sequence;
                shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Ok(_) | Err(_) => {
                key.unknown = Some(sequence);
                retired.extend(current.remove(&slot));
                plan.world.sleep(limits::BENCH_RECONNECT).await;
            }
        }
    }
    retired.extend(current.into_values());
    retired
}

fn set_value(value: &mut Vec<u8>, sequence: u64, size: usize) {
    value.clear();
    // Writing to a Vec cannot fail.
    let _ = write!(value, "{sequence:020} ");
    value.resize(size, b'x');
}

/// The value of a key, by a linearizable read; it is tried again while the cluster has no leader.
async fn read_back(plan: &Plan, link: &mut Link, key: &Expected) -> anyhow::Result<Option<Vec<u8>>> {
    let path = format!("{}?raw&consistent", key.path);
    let deadline = plan.world.clock.now() + limits::BENCH_VERIFY;
    loop {
        let why = match link.exchange("GET", &path, b"").await {
            Ok(reply) if reply.status == 200 => return Ok(Some(reply.body.to_vec())),
            Ok(reply) if reply.status == 404 => return Ok(None),
            Ok(reply) => refusal(&reply),
            Err(kind) => kind,
        };
        if plan.world.clock.now() > deadline {
            bail!("cannot read back what was written, so nothing is known: {} {why}", plan.address);
        }
        plan.world.sleep(limits::BENCH_RECONNECT).await;
    }
}

/// The sentence for a key that holds what it may not.
fn judge(key: &Expected, found: Option<&[u8]>, size: usize) -> Option<String> {
    let mut allowed = vec![key.acknowledged];
    allowed.extend(key.unknown);
    let fine = allowed.iter().any(|&sequence| match (sequence, found) {
        (0, None) => true,
        (0, Some(_)) | (_, None) => false,
        (sequence, Some(found)) => {
            let mut value = Vec::new();
            set_value(&mut value, sequence, size);
            value == found
        }
    });
    if fine {
        return None;
    }
    let found = found.map_or("nothing".into(), |bytes| {
        let number = String::from_utf8_lossy(&bytes[..bytes.len().min(20)]).into_owned();
        number.parse::<u64>().map_or_else(|_| "something else".into(), |number| number.to_string())
    });
    let unknown = key.unknown.map(|number| format!(" or {number}, whose outcome is unknown,")).unwrap_or_default();
    Some(format!("{}: acknowledged {}{unknown} but found {found}", key.path, key.acknowledged))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(sequence: u64) -> Vec<u8> {
        let mut value = Vec::new();
        set_value(&mut value, sequence, 32);
        value
    }

    #[test]
    fn only_the_acknowledged_and_the_unknown_number_are_right() {
        let key = |acknowledged, unknown| Expected { path: "k".into(), acknowledged, unknown };
        let fine = |key: &Expected, found: Option<Vec<u8>>| judge(key, found.as_deref(), 32).is_none();
        assert!(fine(&key(5, None), Some(value(5))));
        assert!(!fine(&key(5, None), Some(value(4))));
        assert!(!fine(&key(5, None), Some(value(6))));
        assert!(!fine(&key(5, None), None));
        assert!(fine(&key(5, Some(6)), Some(value(5))));
        assert!(fine(&key(5, Some(6)), Some(value(6))));
        assert!(!fine(&key(5, Some(6)), Some(value(4))));
        assert!(fine(&key(0, Some(1)), None));
        assert!(fine(&key(0, Some(1)), Some(value(1))));
        assert!(!fine(&key(5, None), Some(value(5)[..31].to_vec())));
    }

    #[test]
    fn a_loss_is_told_with_its_key() {
        let key = Expected { path: "/v1/kv/a".into(), acknowledged: 5, unknown: Some(6) };
        let sentence = judge(&key, Some(&value(4)), 32).unwrap();
        assert_eq!(sentence, "/v1/kv/a: acknowledged 5 or 6, whose outcome is unknown, but found 4");
    }
}
