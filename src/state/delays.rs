//! Lock-delays: keys that nobody gets as a lock for a while, because a session that held them was invalidated (consul.md
//! 2.4). They are rows, judged in log time as an acquisition is applied, so failover, restart and snapshot keep them (G1.6).
//!
//! There are as many as keys were let go of by sessions within the longest delay, a minute: writes bound them. After a restore
//! there is one for each lock that was held, for as long as its session's TTL.

use imbl::OrdSet;
use serde::{Deserialize, Serialize};

use super::digest::{Digest, RowHash};
use super::table::{self, Row, Table};
use super::{Key, LogTime, StoredRow};
use crate::codec::Stored;
use crate::limits::DUE_DELAYS;

/// The row of a key that is delayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Delay {
    /// First moment of log time at which it may be locked again.
    pub until: LogTime,
}

impl Stored for Delay {
    const NAME: &'static str = "lock-delay";
    const VERSION: u8 = 1;
}

impl Row for Delay {
    const TABLE: u8 = table::id::DELAYS;

    fn fields(&self, hash: &mut RowHash) {
        hash.number(self.until.0);
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Delays {
    rows: Table<Delay>,
    /// The same by their end. Follows from the rows: not stored.
    by_end: OrdSet<(LogTime, Key)>,
}

impl Delays {
    /// Whether nobody may lock the key at this moment.
    pub fn holds(&self, key: &Key, now: LogTime) -> bool {
        self.rows.get(key.as_bytes()).is_some_and(|delay| delay.until > now)
    }

    /// When the key's delay ends, if there is one: it may have ended.
    pub fn until(&self, key: &Key) -> Option<LogTime> {
        self.rows.get(key.as_bytes()).map(|delay| delay.until)
    }

    /// The keys with the ends of their delays, which may be over.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, LogTime)> {
        self.rows.prefix(b"", None).map(|(key, delay)| (key, delay.until))
    }

    /// Delays a key until then, or for longer if it is already.
    pub fn set(&mut self, key: Key, until: LogTime) {
        if !self.holds(&key, until) {
            self.load(key, Delay { until });
        }
    }

    /// Forgets what has ended, looking at no more than [`DUE_DELAYS`]; not where somebody waits for the lock.
    pub fn end_due(&mut self, now: LogTime, waited_for: impl Fn(&Key) -> bool) {
        let ended = self.by_end.iter().take(DUE_DELAYS).take_while(|(until, _)| *until <= now);
        let ended: Vec<_> = ended.filter(|(_, key)| !waited_for(key)).cloned().collect();
        for end in ended {
            self.rows.remove(end.1.as_bytes());
            self.by_end.remove(&end);
        }
    }

    pub fn digest(&self) -> Digest {
        self.rows.digest()
    }

    pub fn visit(&self, visit: &mut dyn FnMut(StoredRow)) {
        self.rows.visit(visit);
    }

    pub fn visit_changes(&self, older: &Self, visit: &mut dyn FnMut(StoredRow)) {
        self.rows.visit_changes(&older.rows, visit);
    }

    pub fn load(&mut self, key: Key, delay: Delay) {
        let until = delay.until;
        if let Some(old) = self.rows.insert(key.clone(), delay) {
            self.by_end.remove(&(old.until, key.clone()));
        }
        self.by_end.insert((until, key));
    }
}
