//! openraft's log storage on our write-ahead log.
//!
//! Nothing is decided here. `append` returns at once and openraft hears through its callback when the batch is synced;
//! a vote is synced before `save_vote` returns, because the answer that depends on it goes out right after.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use tokio::sync::oneshot;

use super::types::{
    LogId, RaftEntry, TypeConfig, Vote, to_log_entry, to_log_id, to_position, to_raft_entry, to_stored_vote, to_vote,
};
use crate::error::Error;
use crate::limits;
use crate::storage::Wal;
use crate::storage::wal::{Done, LogEntry};

/// The log as openraft sees it.
#[derive(Clone)]
pub(super) struct LogStore {
    wal: Wal,
}

impl LogStore {
    pub(super) fn new(wal: Wal) -> Self {
        LogStore { wal }
    }

    /// The entries of a range that openraft was promised. A log that has failed takes no more, and openraft may ask for what
    /// was refused before it hears of it: that must not look like a log without these entries.
    fn read(&self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        let entries = self.wal.entries(start, end);
        let whole = entries.len() as u64 == end.saturating_sub(start);
        match self.wal.failure() {
            Some(error) if !whole => Err(io::Error::other(error)),
            _ => Ok(entries),
        }
    }

    /// Starts an operation and waits until it is durable.
    async fn synced(&self, start: impl FnOnce(&Wal, Done)) -> io::Result<()> {
        let (send, durable) = oneshot::channel();
        start(&self.wal, Box::new(move |result| drop(send.send(result))));
        match durable.await {
            Ok(result) => result.map_err(io::Error::other),
            Err(_) => Err(io::Error::other(Error::Bug("the log dropped an operation".into()))),
        }
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<RaftEntry>> {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end)?.into_iter().map(to_raft_entry).collect()
    }

    /// As much as one message carries, and at least one entry.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<RaftEntry>> {
        let mut entries = self.read(start, end)?;
        let mut bytes = 0;
        let fits = |entry: &LogEntry| {
            bytes += entry.bytes.len();
            bytes <= limits::APPEND_BYTES
        };
        let count = entries.iter().take(limits::APPEND_ENTRIES).map(fits).take_while(|fits| *fits).count();
        entries.truncate(count.max(1));
        entries.into_iter().map(to_raft_entry).collect()
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.wal.vote().map(to_vote))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        Ok(LogState {
            last_purged_log_id: self.wal.purged().map(to_log_id),
            last_log_id: self.wal.last().map(to_log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = to_stored_vote(vote);
        self.synced(|wal, done| wal.save_vote(vote, done)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.wal.save_committed(committed.as_ref().map(to_position));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.wal.committed().map(to_log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(to_log_entry).collect::<io::Result<Vec<_>>>()?;
        self.wal.append(entries, Box::new(move |result| callback.io_completed(result.map_err(io::Error::other))));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.synced(|wal, done| wal.truncate_after(last.map(|log_id| log_id.index), done)).await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        // A purge that a crash undoes is made again; nobody needs to wait for it.
        self.wal.purge(to_position(&log_id), Box::new(|_| ()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::storage::wal::{EntryKind, Position};
    use crate::world::{MemoryDisk, real};

    /// Found by the simulator: openraft applied entries that a log which had just failed had refused, and found none.
    #[test]
    fn a_log_that_has_failed_does_not_pass_for_one_without_the_entries() {
        real::block_on(|mut world| async move {
            world.disk = Arc::new(MemoryDisk::default());
            let wal = Wal::open(&world, Path::new("wal"), crate::limits::SEGMENT_BYTES).await.unwrap();
            let mut log = LogStore::new(wal.clone());
            let entry =
                |index| LogEntry { at: Position { term: 1, index }, kind: EntryKind::Blank, bytes: Vec::new().into() };
            log.synced(|wal, done| wal.append(vec![entry(1)], done)).await.unwrap();
            log.synced(|wal, done| wal.append(vec![entry(7)], done)).await.expect_err("a gap ends the log");
            log.synced(|wal, done| wal.append(vec![entry(2)], done)).await.expect_err("it takes no more");
            assert_eq!(log.try_get_log_entries(1..2).await.unwrap().len(), 1, "what it has can be read");
            let error = log.try_get_log_entries(1..3).await.unwrap_err();
            assert!(error.to_string().contains("out of order"), "{error}");
            log.limited_get_log_entries(2, 3).await.unwrap_err();
        })
        .unwrap();
    }
}
