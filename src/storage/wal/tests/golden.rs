//! Runs the scripts in `testscripts/wal`: what the log does, as text. `UPDATE_GOLDENFILES=1` writes what it does now.

use std::error::Error as StdError;
use std::fmt::Write as _;

use goldenscript::{Command, Runner};
use tokio::runtime::Runtime;

use super::super::Vote;
use super::super::frame::{FIRST_FRAME, FrameHeader, SegmentHeader, records};
use super::super::record::Record;
use super::super::segment::Name;
use super::damage::frames;
use super::*;

struct Script {
    runtime: Runtime,
    disk: FaultyDisk,
    wal: Option<Wal>,
}

type Outcome = Result<String, Box<dyn StdError>>;

impl Runner for Script {
    fn run(&mut self, command: &Command) -> Outcome {
        let mut args = command.consume_args();
        let output = match command.name.as_str() {
            "open" => {
                args.reject_rest()?;
                let disk = self.disk.clone();
                self.wal = Some(self.runtime.block_on(open(&disk))?);
                self.rest();
                self.status()
            }
            "append" => {
                let term = args.lookup_parse("term")?.unwrap_or(1);
                let size: usize = args.lookup_parse("size")?.unwrap_or(3);
                let indexes: Vec<u64> = args.rest_pos().iter().map(|arg| arg.parse()).collect::<Result<_, _>>()?;
                let entries = indexes.iter().map(|index| entry(term, *index, vec![b'x'; size])).collect();
                self.runtime.block_on(append(self.wal(), entries))?;
                String::new()
            }
            "truncate" => {
                let after = args.next_pos().map(|arg| arg.parse()).transpose()?;
                self.runtime.block_on(truncate(self.wal(), after))?;
                String::new()
            }
            "purge" => {
                let term = args.lookup_parse("term")?.unwrap_or(1);
                let upto = args.next_pos().ok_or("purge what?")?.parse()?;
                self.runtime.block_on(purge(self.wal(), position(term, upto)))?;
                String::new()
            }
            "vote" => {
                let term = args.next_pos().ok_or("which term?")?.parse()?;
                let (done, result) = waiter();
                self.wal().save_vote(Vote { term, candidate: 5, committed: false }, done);
                self.runtime.block_on(result)?;
                String::new()
            }
            "committed" => {
                let index = args.next_pos().ok_or("which index?")?.parse()?;
                self.wal().save_committed(Some(position(1, index)));
                String::new()
            }
            "status" => self.status(),
            "layout" => self.layout()?,
            "kill" => self.down(FaultyDisk::kill),
            "power-loss" => self.down(FaultyDisk::power_loss),
            "flip" => self.tamper(args.next_pos().ok_or("which frame?")?.parse()?, |frame| frame[45] ^= 1)?,
            "wipe" => self.tamper(args.next_pos().ok_or("which frame?")?.parse()?, |frame| frame.fill(0))?,
            "remove" => self.change_file(&args.next_pos().ok_or("which file?")?.value, None),
            "leave" => self.change_file(&args.next_pos().ok_or("which file?")?.value, Some(b"left by a crash")),
            "newer" => {
                let path = dir().join(&args.next_pos().ok_or("which file?")?.value);
                self.disk.tamper(&path, |bytes| {
                    bytes[12] = 9;
                    let sum = crc32c::crc32c(&bytes[12..40]);
                    bytes[8..12].copy_from_slice(&sum.to_le_bytes());
                });
                String::new()
            }
            name => return Err(format!("no command {name}").into()),
        };
        args.reject_rest()?;
        self.rest();
        Ok(output)
    }
}

impl Script {
    fn wal(&self) -> &Wal {
        self.wal.as_ref().expect("open first")
    }

    fn rest(&self) {
        self.runtime.block_on(settle());
    }

    fn down(&mut self, how: impl Fn(&FaultyDisk)) -> String {
        self.wal = None;
        how(&self.disk);
        String::new()
    }

    fn status(&self) -> String {
        let wal = self.wal();
        let index = |at: Option<Position>| at.map_or("-".into(), |at| at.index.to_string());
        let entries: Vec<_> =
            wal.entries(0, u64::MAX).iter().map(|e| format!("{}@{}", e.at.index, e.at.term)).collect();
        let vote = wal.vote().map_or("-".into(), |vote| vote.term.to_string());
        let (last, purged, committed) = (index(wal.last()), index(wal.purged()), index(wal.committed()));
        format!("last={last} purged={purged} committed={committed} vote={vote}\nentries: {}\n", entries.join(" "))
    }

    /// The files, and the frames in the segments.
    fn layout(&self) -> Outcome {
        let mut out = String::new();
        for name in self.disk.names() {
            writeln!(out, "{name}")?;
            let Some(Name::Segment(_)) = Name::parse(&name) else { continue };
            let bytes = self.disk.bytes(&dir().join(name));
            let salt = SegmentHeader::decode(&bytes).map_err(|fault| format!("{fault:?}"))?.salt;
            let mut at = FIRST_FRAME;
            while let Some(header) = FrameHeader::read(&bytes, at, salt) {
                let Some(body) = header.body(&bytes, at) else { break };
                let said: Vec<_> = records(&bytes[body.clone()]).ok_or("no records")?.iter().map(brief).collect();
                writeln!(out, "  {at} batch {}: {}", header.batch, said.join(", "))?;
                at = body.end.next_multiple_of(64) as u64;
            }
        }
        Ok(out)
    }

    /// Changes a frame, counted from the first that is there, or from the last if negative.
    fn tamper(&mut self, number: i64, change: impl FnOnce(&mut [u8])) -> Outcome {
        let frames = frames(&self.disk);
        let number = if number < 0 { frames.len() as i64 + number } else { number };
        let (path, range) = frames.get(usize::try_from(number)?).ok_or("no such frame")?;
        self.disk.tamper(path, |bytes| change(&mut bytes[range.clone()]));
        Ok(String::new())
    }

    fn change_file(&mut self, name: &str, contents: Option<&[u8]>) -> String {
        use crate::world::OpenMode;
        let (path, disk) = (dir().join(name), self.disk.world().disk);
        self.runtime.block_on(async {
            match contents {
                None => disk.remove(&path).await.unwrap(),
                Some(bytes) => {
                    let file = disk.open(&path, OpenMode::Create).await.unwrap();
                    file.write_and_sync(0, bytes.to_vec()).await.unwrap();
                }
            }
            disk.sync_dir(dir()).await.unwrap();
        });
        String::new()
    }
}

fn brief(record: &Record) -> String {
    match record {
        Record::Entry(entry) => format!("entry {}@{}", entry.at.index, entry.at.term),
        Record::Vote(vote) => format!("vote {}", vote.term),
        Record::Truncate(after) => format!("truncate {after:?}"),
        Record::Purge { upto, oldest } => format!("purge {:?} needs {oldest}", upto.map(|upto| upto.index)),
        Record::Committed(at) => format!("committed {}", at.index),
    }
}

#[test]
fn scripts() {
    let mut count = 0;
    for file in std::fs::read_dir("src/storage/testscripts/wal").unwrap() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut script = Script { runtime, disk: FaultyDisk::new(1), wal: None };
        goldenscript::run(&mut script, file.unwrap().path()).unwrap();
        count += 1;
    }
    assert!(count >= 10, "{count} scripts");
}
