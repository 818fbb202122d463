//! Reading a backup that may be anything: cut off, damaged, of someone else, or made to fill our memory.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use sha2::{Digest, Sha256};

use super::{Archive, LAYOUT, MAGIC, META, Meta, Own, STATE, SUMS, hex};
use crate::codec;
use crate::error::{Error, Result};
use crate::limits;
use crate::state::{self, Loader, STATE_FORMAT, State};

/// Of the number in the first line of `state.bin`.
const MAX_DIGITS: usize = 10;

/// Reads a backup, and loads its state to be sure of it.
///
/// # Errors
/// [`Error::Request`], with the cause and what to do about it, if it is anything but a whole backup that this program can read.
pub fn read(input: &mut dyn Read) -> Result<Archive> {
    let mut input = BufReader::new(input);
    match input.fill_buf().map_err(|error| damaged(&error))? {
        [] => return Err(refused("it is empty")),
        [0x1f, 0x8b, ..] => {}
        _ => return Err(refused("it does not begin as gzip does")),
    }
    let mut plain = bounded(GzDecoder::new(input), limits::MAX_ARCHIVE);
    let mut parts = Parts::default();
    // Raw: long names and the like are entries of their own then, which nobody reads into memory.
    let mut tar = tar::Archive::new(&mut plain);
    for entry in tar.entries().map_err(|error| damaged(&error))?.raw(true) {
        parts.take(entry.map_err(|error| damaged(&error))?)?;
    }
    at_end(&mut plain)?;
    if !plain.inner.into_inner().fill_buf().map_err(|error| damaged(&error))?.is_empty() {
        return Err(refused("something follows its end"));
    }
    parts.whole()
}

/// Reads on to the end, where gzip has a sum of its own.
fn at_end(plain: &mut impl Read) -> Result<()> {
    let mut block = [0; 4096];
    loop {
        match plain.read(&mut block).map_err(|error| damaged(&error))? {
            0 => return Ok(()),
            len if block[..len].iter().all(|byte| *byte == 0) => {}
            _ => return Err(refused("something follows the end of its tar")),
        }
    }
}

fn refused(why: &str) -> Error {
    Error::Request(format!(
        "this is not a whole backup of quorate: {why}. Give a file that `quorate snapshot save` wrote"
    ))
}

fn broken(why: impl std::fmt::Display) -> Error {
    Error::Request(format!("the backup is damaged: {why}. Fetch it again, or use another one"))
}

fn damaged(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => broken("it ends early"),
        _ => broken(error),
    }
}

/// What was found so far.
#[derive(Default)]
struct Parts {
    meta: Option<Meta>,
    /// The lines of `SHA256SUMS`.
    listed: Option<String>,
    state: Option<Content>,
    /// The sums as they are.
    sums: BTreeMap<&'static str, String>,
}

/// What `state.bin` is.
enum Content {
    /// What is wrong with a chunk is said once it is known that nothing else is: a newer format is no damage.
    Ours {
        chunks: Vec<Bytes>,
        loader: Box<Loader>,
        loaded: Result<()>,
        size: u64,
    },
    Foreign,
}

impl Parts {
    /// Takes one entry of the tar.
    fn take<R: Read>(&mut self, entry: tar::Entry<'_, R>) -> Result<()> {
        let name = entry.path_bytes().into_owned();
        let known = [META, STATE, SUMS].into_iter().find(|known| known.as_bytes() == name);
        let (Some(name), true) = (known, entry.header().entry_type().is_file()) else {
            let name = String::from_utf8_lossy(&name).chars().take(100).collect::<String>();
            return Err(refused(&format!("there is {name:?} in it")));
        };
        if self.sums.contains_key(name) {
            return Err(refused(&format!("{name} is there twice")));
        }
        let size = entry.header().size().map_err(|error| damaged(&error))?;
        let mut content = Summed { inner: entry, sum: Sha256::new(), count: 0 };
        match name {
            META => {
                let text = small(&mut content)?;
                let meta = serde_json::from_slice(&text);
                self.meta = Some(meta.map_err(|error| broken(format!("{META} is not what it should be: {error}")))?);
            }
            SUMS => self.listed = Some(String::from_utf8_lossy(&small(&mut content)?).into_owned()),
            _ => self.state = Some(take_state(&mut content)?),
        }
        let Summed { sum, count, .. } = content;
        if count != size {
            return Err(broken("it ends early"));
        }
        self.sums.insert(name, hex(&sum.finalize()));
        Ok(())
    }

    /// The archive, if these are all its parts and they fit together.
    fn whole(self) -> Result<Archive> {
        let missing = |name| move || refused(&format!("{name} is not in it"));
        let meta = self.meta.ok_or_else(missing(META))?;
        let state = self.state.ok_or_else(missing(STATE))?;
        let listed = self.listed.ok_or_else(missing(SUMS))?;
        let lines = listed.lines().map(|line| line.split_once("  ").unwrap_or_default());
        let mut lines: Vec<(&str, &str)> = lines.map(|(sum, name)| (name, sum)).collect();
        lines.sort_unstable();
        let actual = |name: &'static str| self.sums.get(name).map_or((name, ""), |sum| (name, sum.as_str()));
        if lines != [actual(META), actual(STATE)] {
            return Err(broken("its content does not have the sums that it lists"));
        }
        let Content::Ours { chunks, loader, loaded, size } = state else {
            return Err(Error::Request(
                "this is a snapshot of Consul, or of another program: its envelope is right, but what is in it cannot be read \
                 here. Move keys by `consul kv export | quorate kv import -`"
                    .into(),
            ));
        };
        check_format(meta.own.format)?;
        loaded.map_err(broken)?;
        let state =
            loader.finish().map_err(|_| broken("its rows do not add up to the digest that they should have"))?;
        check_meta(&meta, &state, size)?;
        Ok(Archive { meta, chunks, state })
    }
}

fn check_format(format: u8) -> Result<()> {
    if format <= STATE_FORMAT {
        return Ok(());
    }
    Err(Error::Request(format!(
        "the backup has state format {format}, and this quorate reads up to {STATE_FORMAT}: use the version that wrote it, or a \
         newer one"
    )))
}

/// What is said of the state must be true of it: a restore relies on it.
fn check_meta(meta: &Meta, state: &State, size: u64) -> Result<()> {
    let Own { format: _, cluster, revision, epoch } = meta.own;
    if cluster.is_nil() || (revision, epoch, meta.size) != (state.revision(), state.epoch(), size) {
        return Err(broken(format!("{META} does not describe the state")));
    }
    Ok(())
}

/// A file that fits in memory.
fn small(content: &mut impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    content.take(limits::MAX_ARCHIVE_META + 1).read_to_end(&mut bytes).map_err(|error| damaged(&error))?;
    if bytes.len() as u64 > limits::MAX_ARCHIVE_META {
        return Err(refused("its description is too long"));
    }
    Ok(bytes)
}

/// Reads `state.bin` to its end.
fn take_state<R: Read>(content: &mut Summed<R>) -> Result<Content> {
    let failed = |error: io::Error| damaged(&error);
    let Some(layout) = first_line(content).map_err(failed)? else {
        io::copy(content, &mut io::sink()).map_err(failed)?;
        return Ok(Content::Foreign);
    };
    if layout != LAYOUT {
        return Err(Error::Request(format!(
            "the backup has layout {layout}, and this quorate reads {LAYOUT}: use the version that wrote it, or a newer one"
        )));
    }
    let (mut chunks, mut loader, mut loaded) = (Vec::new(), Box::new(State::loader()), Ok(()));
    while let Some(len) = length(content).map_err(failed)? {
        if u64::from(len) > codec::MAX_SEALED as u64 {
            return Err(broken(format!("a part of it claims to have {len} bytes")));
        }
        let mut chunk = Vec::new();
        content.take(len.into()).read_to_end(&mut chunk).map_err(failed)?;
        if chunk.len() as u64 != u64::from(len) {
            return Err(broken("it ends early"));
        }
        let chunk = Bytes::from(chunk);
        loaded = loaded.and_then(|()| state::restore::unpack(&chunk, &mut loader));
        if loaded.is_ok() {
            chunks.push(chunk);
        }
    }
    Ok(Content::Ours { chunks, loader, loaded, size: content.count })
}

/// The layout that the first line names; `None` if it is not ours.
fn first_line(content: &mut impl Read) -> io::Result<Option<u32>> {
    let mut magic = Vec::new();
    content.take(MAGIC.len() as u64).read_to_end(&mut magic)?;
    if magic != MAGIC.as_bytes() {
        return Ok(None);
    }
    let mut number = String::new();
    loop {
        let mut byte = [0];
        content.read_exact(&mut byte)?;
        match char::from(byte[0]) {
            '\n' => return Ok(number.parse().ok()),
            digit if number.len() < MAX_DIGITS => number.push(digit),
            _ => return Ok(None),
        }
    }
}

/// The length of the next chunk; `None` at the end.
fn length(content: &mut impl Read) -> io::Result<Option<u32>> {
    let mut len = Vec::with_capacity(4);
    content.take(4).read_to_end(&mut len)?;
    match <[u8; 4]>::try_from(len) {
        Ok(len) => Ok(Some(u32::from_le_bytes(len))),
        Err(rest) if rest.is_empty() => Ok(None),
        Err(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A reader that gives no more than this.
pub(super) fn bounded<R>(inner: R, left: u64) -> Bounded<R> {
    Bounded { inner, left }
}

/// Ends with an error when more than is allowed was read: a small file may unpack to any size.
pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let Some(left) = self.left.checked_sub(count as u64) else {
            return Err(io::Error::other(format!("it unpacks to more than {} bytes", limits::MAX_ARCHIVE)));
        };
        self.left = left;
        Ok(count)
    }
}

/// Sums up what is read through it.
struct Summed<R> {
    inner: R,
    sum: Sha256,
    count: u64,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.sum.update(&buffer[..count]);
        self.count += count as u64;
        Ok(count)
    }
}
