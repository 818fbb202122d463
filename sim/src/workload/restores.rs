//! Backups and restores, by the operator (R4, G1.8, L17): a backup is a read of every register, and a restore a write of all of
//! them, so the checkers of registers judge both.
//!
//! No value is written to a register twice, so that a value names its write. A restored value gets a name of its own
//! ([`Restores::rename`]), which the revision tells: all that a restore brings in has the revision of the restore.
//!
//! What a restore ends, sessions and locks, ends at some moment between its request and its answer. Whoever complains of such
//! an end asks [`Restores::since`] first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use quorate::archive::{self, Archive, Origin};
use quorate::state::Subject;
use uuid::Uuid;

use super::Phase;
use super::http::Reply;
use super::operator::{Operator, PATIENCE};
use super::registers::Kind;
use crate::event;
use crate::history::{Call, Found, OperationId, Outcome};
use crate::trace;
use crate::world::hold;

/// How long a restore whose answer was lost may come true in calm.
const LATE: Duration = Duration::from_secs(15);

/// Names of restored values stand above all others.
const STEP: u64 = 1_000_000_000_000;

/// What a backup holds of each register.
pub type Content = BTreeMap<String, Option<Found>>;

/// One request to restore a backup.
#[derive(Debug)]
pub struct Attempt {
    /// When it was sent.
    pub sent: Duration,
    /// When it was known what came of it; `None` while it may come true at any time.
    pub ended: Option<Duration>,
    /// Its revision, if it came true.
    pub revision: Option<u64>,
    /// What it makes of the registers.
    pub content: Content,
    /// The writes that stand for it in the history.
    pub writes: Vec<OperationId>,
}

/// All restores of a run.
#[derive(Debug, Default)]
pub struct Restores {
    attempts: Vec<Attempt>,
    /// Backups that were taken.
    pub backups: usize,
}

impl Restores {
    /// One is sent; its number.
    pub fn begin(&mut self, attempt: Attempt) -> usize {
        self.attempts.push(attempt);
        self.attempts.len() - 1
    }

    /// It is known what came of one.
    pub fn end(&mut self, number: usize, now: Duration, revision: Option<u64>) -> &Attempt {
        let attempt = &mut self.attempts[number];
        (attempt.ended, attempt.revision) = (Some(now), revision);
        attempt
    }

    /// How many came true.
    pub fn count(&self) -> usize {
        self.attempts.iter().filter(|attempt| attempt.revision.is_some()).count()
    }

    /// Whether anything that was so at a moment may have been replaced since.
    pub fn since(&self, moment: Duration) -> bool {
        self.attempts.iter().any(|attempt| attempt.ended.is_none_or(|ended| ended > moment))
    }

    /// How many restores have ended; `None` while one may come true at any time.
    pub fn generation(&self) -> Option<usize> {
        self.attempts.iter().all(|attempt| attempt.ended.is_some()).then_some(self.attempts.len())
    }

    /// Whether rows of this revision came out of a backup, for all that is known.
    pub fn may_be(&self, revision: u64) -> bool {
        self.attempts.iter().any(|attempt| match attempt.revision {
            Some(own) => own == revision,
            None => attempt.ended.is_none(),
        })
    }

    /// The name of what the attempt with this number writes.
    pub fn name(number: usize, value: u64) -> u64 {
        value + STEP * (number as u64 + 1)
    }

    /// The name of a value that was found in a register.
    pub fn rename(&self, register: &str, found: &Found) -> u64 {
        let restored = self.attempts.iter().position(|attempt| attempt.revision == Some(found.modify_index));
        let unknown = || {
            self.attempts.iter().position(|attempt| {
                let row = attempt.content.get(register).and_then(Option::as_ref);
                let comes = row.is_some_and(|row| row.value == found.value && row.modify_index < found.modify_index);
                attempt.ended.is_none() && comes
            })
        };
        restored.or_else(unknown).map_or(found.value, |number| Restores::name(number, found.value))
    }
}

/// A backup that the operator has.
struct Backup {
    bytes: Bytes,
    archive: Archive,
    content: Content,
}

impl Operator {
    /// Takes a backup, lets some time go by, and restores it; whether it was restored.
    pub async fn restore(&mut self, age: Duration) -> bool {
        let Some(backup) = self.back_up().await else { return false };
        self.world.sleep(age).await;
        let Some((before, mut ended)) = self.sessions().await else { return false };
        ended.extend(backup.archive.state.sessions().iter().map(|(id, _)| id));
        let Some(revision) = self.bring_in(backup, before).await else { return false };
        if let Some((_, alive)) = self.sessions().await
            && let Some(id) = alive.intersection(&ended).next()
        {
            let sentence = format!("session {id} was there before the restore at {revision}, and is alive after it");
            self.shared.contradict("L17", sentence);
        }
        true
    }

    /// A backup is what all registers held at one moment.
    async fn back_up(&mut self) -> Option<Backup> {
        let begin = |name: &String| hold(&self.shared.history).begin(self.player, name, Call::Get);
        let reads: Vec<OperationId> = self.registers.iter().map(begin).collect();
        let reply = self.http.send(Method::GET, "/v1/snapshot", None, Bytes::new(), PATIENCE).await;
        let Reply::Answer { status: 200, body: bytes, .. } = reply else {
            reads.into_iter().for_each(|read| hold(&self.shared.history).end(read, Outcome::Failed));
            self.turn();
            return None;
        };
        let archive = match archive::read(&mut &bytes[..]) {
            Ok(archive) => archive,
            Err(why) => {
                self.shared.contradict("R4", format!("a backup cannot be read: {why}"));
                return None;
            }
        };
        let mut content = Content::new();
        for (name, read) in self.registers.iter().zip(reads) {
            let found = Kind::of(name).in_backup(name, &archive.state).unwrap_or_else(|sentence| {
                self.shared.contradict("R1", sentence);
                None
            });
            let index = match Kind::of(name) {
                Kind::Machine => Some(archive.state.index_of(Subject::NodeServices)),
                // Of a key that is missing a backup tells no index.
                Kind::Key | Kind::Pair => found.map(|row| row.modify_index),
            };
            let outcome = index.map_or(Outcome::Failed, |index| Outcome::Read { found, index });
            hold(&self.shared.history).end(read, outcome);
            content.insert(name.clone(), found);
        }
        event!("backup", "revision {}, {} bytes", archive.state.revision(), bytes.len());
        hold(&self.shared.restores).backups += 1;
        Some(Backup { bytes, archive, content })
    }

    /// Restores it; the revision, if it comes true. `before` is the epoch until then.
    async fn bring_in(&mut self, backup: Backup, before: u64) -> Option<u64> {
        let foreign = self.rng.chance(250);
        let bytes = if foreign { foreign_copy(&backup.archive)? } else { backup.bytes };
        let number = self.begin(backup.content);
        event!("restore", "of revision {}{}", backup.archive.state.revision(), if foreign { ", foreign" } else { "" });
        let reply = self.http.send(Method::PUT, "/v1/snapshot", None, bytes, PATIENCE).await;
        let revision = match reply {
            Reply::Answer { status: 200, index, .. } => Some(index),
            Reply::NotSent | Reply::Answer { status: 400 | 413 | 500 | 503, .. } => None,
            _ => {
                self.turn();
                self.look_for(before).await
            }
        };
        self.end(number, revision);
        revision
    }

    /// Each register is written, all in one moment.
    fn begin(&mut self, content: Content) -> usize {
        let mut restores = hold(&self.shared.restores);
        let attempt = Attempt { sent: trace::now(), ended: None, revision: None, content, writes: Vec::new() };
        let number = restores.begin(attempt);
        let attempt = &mut restores.attempts[number];
        for (name, found) in &attempt.content {
            let call = match found {
                Some(found) => Call::Put { value: Restores::name(number, found.value), cas: None },
                None => Call::Delete { cas: None },
            };
            attempt.writes.push(hold(&self.shared.history).begin(self.player, name, call));
        }
        number
    }

    fn end(&mut self, number: usize, revision: Option<u64>) {
        event!("restore", "{revision:?}");
        let outcome = revision.map_or(Outcome::Failed, |_| Outcome::Written { applied: true });
        let mut restores = hold(&self.shared.restores);
        let attempt = restores.end(number, trace::now(), revision);
        attempt.writes.iter().for_each(|write| hold(&self.shared.history).end(*write, outcome));
    }

    /// Its answer was lost: the epoch tells whether it came true. What has not in calm does not any more.
    async fn look_for(&mut self, before: u64) -> Option<u64> {
        let mut calm_since = None;
        loop {
            if let Some((epoch, _)) = self.sessions().await
                && epoch > before
            {
                return Some(epoch);
            }
            let now = self.world.clock.now();
            if self.shared.phase() != Phase::Storm && now.since(*calm_since.get_or_insert(now)) > LATE {
                return None;
            }
            self.pause().await;
        }
    }

    /// The epoch, and the sessions that are alive.
    async fn sessions(&mut self) -> Option<(u64, BTreeSet<Uuid>)> {
        let reply = self.http.send(Method::GET, "/v1/session/list", None, Bytes::new(), PATIENCE).await;
        let Reply::Answer { status: 200, epoch, body, .. } = reply else {
            self.turn();
            return None;
        };
        let sessions: Vec<serde_json::Value> = serde_json::from_slice(&body).ok()?;
        Some((epoch, sessions.iter().filter_map(|session| session["ID"].as_str()?.parse().ok()).collect()))
    }
}

/// The same backup, as if another cluster had made it.
fn foreign_copy(archive: &Archive) -> Option<Bytes> {
    let origin = Origin {
        cluster: Uuid::from_u128(!archive.meta.own.cluster.as_u128()),
        index: archive.meta.index,
        term: archive.meta.term,
        servers: Vec::new(),
    };
    let mut bytes = Vec::new();
    archive::write(&archive.state, &origin, &mut bytes).ok()?;
    Some(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(value: u64, modify_index: u64) -> Found {
        Found { value, modify_index, create_index: modify_index }
    }

    fn attempt(ended: Option<u64>, revision: Option<u64>) -> Attempt {
        let content = BTreeMap::from([("k0".to_owned(), Some(found(7, 5)))]);
        let (sent, ended) = (Duration::from_secs(1), ended.map(Duration::from_secs));
        Attempt { sent, ended, revision, content, writes: Vec::new() }
    }

    #[test]
    fn a_value_is_named_by_the_restore_that_brought_it_back() {
        let mut restores = Restores::default();
        restores.begin(attempt(Some(2), None));
        restores.begin(attempt(Some(4), Some(9)));
        assert_eq!(restores.rename("k0", &found(7, 5)), 7, "as it was first written");
        assert_eq!(restores.rename("k0", &found(7, 9)), Restores::name(1, 7));
        assert_eq!(restores.rename("k0", &found(7, 11)), 7, "by nobody: a contradiction, for the checkers");
        restores.begin(attempt(None, None));
        assert_eq!(restores.rename("k0", &found(7, 11)), Restores::name(2, 7));
        assert_eq!(restores.rename("k0", &found(8, 11)), 8);
        assert_eq!(restores.rename("k1", &found(7, 11)), 7);
    }

    #[test]
    fn what_may_have_been_replaced_is_excused_and_nothing_else() {
        let mut restores = Restores::default();
        assert!(!restores.since(Duration::ZERO) && restores.generation() == Some(0));
        restores.begin(attempt(Some(2), Some(9)));
        assert!(restores.since(Duration::from_millis(1_500)) && !restores.since(Duration::from_secs(2)));
        assert_eq!((restores.generation(), restores.may_be(9), restores.may_be(10)), (Some(1), true, false));
        restores.begin(attempt(None, None));
        assert!(restores.since(Duration::from_secs(100)) && restores.may_be(10));
        assert_eq!((restores.generation(), restores.count()), (None, 1));
    }
}
