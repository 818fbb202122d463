//! The writer: takes what is queued, writes it as one frame, syncs, and tells everyone who waited. Then the next.
//!
//! It never has two frames in flight. That is what recovery builds on: frame N on disk says that frame N-1 was synced.
//! It does not linger either: a batch is what was queued while the last sync ran, so batches grow with the load by
//! themselves.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::Position;
use super::frame::{self, ALIGN, FIRST_FRAME, FRAME_HEADER};
use super::ledger::{HEAD_BYTES, Ledger};
use super::record::Record;
use super::segment::{Order, Segment};
use super::shared::{Batch, Shared};
use crate::error::{Error, Result};
use crate::limits;

/// What a frame may take besides the records of its batch.
const FRAME_OVERHEAD: usize = FRAME_HEADER + HEAD_BYTES + 64 + ALIGN as usize;

/// The largest record that fits a segment of this size.
pub(super) fn max_record(capacity: u64) -> usize {
    let room = usize::try_from(capacity.saturating_sub(FIRST_FRAME)).unwrap_or(usize::MAX);
    room.saturating_sub(FRAME_OVERHEAD)
}

/// See the module's documentation.
pub(super) struct Writer {
    shared: Arc<Shared>,
    ledger: Ledger,
    segment: Segment,
    /// Where the next frame goes.
    end: u64,
    /// Its number.
    batch: u64,
    /// The frame; kept for its memory.
    buffer: Vec<u8>,
    orders: mpsc::UnboundedSender<Order>,
    /// Brings the next segment.
    next: oneshot::Receiver<Segment>,
}

impl Writer {
    /// A writer that goes on at `end` of a segment, which the ledger ends with, and at once has the next one prepared.
    ///
    /// # Errors
    /// If the first frame of an empty segment cannot be written. A segment is followed by another only when it has one:
    /// recovery tells a new segment from a damaged one by that.
    pub(super) async fn start(
        shared: Arc<Shared>,
        ledger: Ledger,
        segment: Segment,
        end: u64,
        batch: u64,
        orders: mpsc::UnboundedSender<Order>,
    ) -> Result<Writer> {
        let next = oneshot::channel().1;
        let mut writer = Writer { shared, ledger, segment, end, batch, buffer: Vec::new(), orders, next };
        if end == FIRST_FRAME {
            writer.write(&[], None).await?;
        } else {
            writer.order_next();
        }
        Ok(writer)
    }

    /// Writes until the log is closed and everything is written, or until it fails.
    pub(super) async fn run(mut self) {
        let limit = max_record(self.segment.header.capacity).min(limits::BATCH_BYTES);
        while let Some(Batch { records, committed, dones }) = self.shared.next_batch(limit).await {
            let written = self.write(&records, committed).await;
            if let Err(error) = &written {
                tracing::error!("{error}");
                // First of all nothing more may be accepted.
                self.shared.lock().failure.get_or_insert_with(|| error.clone());
            }
            for done in dones {
                done(written.clone());
            }
        }
        let failure = self.shared.lock().failure.clone();
        if let Some(error) = failure {
            self.shared.fail(&error);
        }
    }

    /// Writes one batch and syncs it.
    async fn write(&mut self, records: &[Record], committed: Option<Position>) -> Result<()> {
        let size: usize = records.iter().map(Record::size).sum();
        if self.end + (FRAME_OVERHEAD + size) as u64 > self.segment.header.capacity && self.end > FIRST_FRAME {
            self.roll().await?;
        }
        let first = self.end == FIRST_FRAME;
        self.encode(records, committed, first);
        let len = self.buffer.len() as u64;
        let buffer = std::mem::take(&mut self.buffer);
        let result = self.segment.file.write_and_sync(self.end, buffer).await;
        self.buffer = result.map_err(|error| {
            Error::Operator(format!(
                "{}: the disk failed: {error}. Nothing written since then is acknowledged, and this node takes no more \
                 writes: look at the disk, then restart the node, which finds out what was kept",
                self.segment.path.display()
            ))
        })?;
        self.end += len;
        self.batch += 1;
        if first {
            self.order_next();
        }
        // The batch that says they are not needed is durable now.
        for sequence in self.ledger.release() {
            self.order(Order::Retire(sequence));
        }
        Ok(())
    }

    /// Makes the frame, and notes in the ledger what it says.
    fn encode(&mut self, records: &[Record], committed: Option<Position>, first: bool) {
        frame::begin(&mut self.buffer);
        if first {
            for record in self.ledger.head() {
                self.put(&record);
            }
        }
        for record in records {
            match record {
                Record::Purge { .. } => {
                    self.ledger.note(record);
                    self.put(&self.ledger.purge());
                }
                _ => self.put(record),
            }
        }
        // It may run ahead of the entries that are written, and must never on disk: a restart would look for them in vain.
        let news = committed.filter(|at| Some(*at) != self.ledger.committed && self.ledger.holds(*at));
        if let Some(at) = news {
            self.put(&Record::Committed(at));
        }
        frame::finish(&mut self.buffer, self.segment.header.salt, self.end, self.batch);
    }

    fn put(&mut self, record: &Record) {
        record.encode(&mut self.buffer);
        self.ledger.note(record);
    }

    /// Goes on in the next segment, and waits for it while the disk is full: the batch is held, not lost.
    async fn roll(&mut self) -> Result<()> {
        let lost = || Error::Retry("the log was closed before there was room for this write".into());
        self.segment = tokio::select! {
            biased;
            next = &mut self.next => next.map_err(|_| lost())?,
            () = self.shared.hopeless() => return Err(lost()),
        };
        self.end = FIRST_FRAME;
        self.ledger.begin(self.segment.header.sequence);
        Ok(())
    }

    fn order_next(&mut self) {
        let (reply, next) = oneshot::channel();
        self.next = next;
        self.order(Order::Prepare(self.segment.header.sequence + 1, reply));
    }

    fn order(&self, order: Order) {
        // The keeper ends before us only with the whole world; then `roll` finds out.
        let _ = self.orders.send(order);
    }
}
