//! Backups that are whole, and everything that can be wrong with one.

use std::io::Read;

use flate2::read::GzDecoder;

use super::*;
use crate::state::{Command, Entry, Key, LogTime};

fn state(keys: usize, len: usize) -> State {
    let mut state = State::default();
    for number in 0..keys {
        let command = Command::KvSet {
            key: Key::from(format!("web/{}/key{number}", number % 3).as_bytes()),
            value: Bytes::from(vec![b'a' + (number % 26) as u8; len]),
            flags: number as u64,
            cas: None,
        };
        let entry = Entry { time: LogTime(number as u64), request: None, command };
        state.apply(1, &entry, &mut Vec::new());
    }
    state.backup()
}

fn origin() -> Origin {
    let servers = vec![(Uuid::from_u128(1), "10.0.0.1:8300".into()), (Uuid::from_u128(2), "10.0.0.2:8300".into())];
    Origin { cluster: Uuid::from_u128(7), index: 42, term: 3, servers }
}

fn packed(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(state, &origin(), &mut bytes).unwrap();
    bytes
}

fn refusal(bytes: &[u8]) -> String {
    match read(&mut &bytes[..]) {
        Err(Error::Request(text)) => text,
        other => panic!("not refused: {other:?}"),
    }
}

/// The files of an archive, and an archive of files.
fn unzip(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut tar = tar::Archive::new(GzDecoder::new(bytes));
    let file = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry: tar::Entry<'_, GzDecoder<&[u8]>> = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().to_string_lossy().into_owned(), content)
    };
    tar.entries().unwrap().map(file).collect()
}

fn zip(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    for (name, content) in files {
        write_file(&mut gz, name, content.len() as u64, |out| out.write_all(content)).unwrap();
    }
    gz.write_all(&[0; 1024]).unwrap();
    gz.finish().unwrap()
}

/// An archive whose sums are right, whatever else is not.
fn summed(meta: &[u8], state: &[u8]) -> Vec<u8> {
    let sums = format!("{}  state.bin\n{}  meta.json\n", hex(&Sha256::digest(state)), hex(&Sha256::digest(meta)));
    zip(&[(META.into(), meta.into()), (STATE.into(), state.into()), (SUMS.into(), sums.into())])
}

fn files(state: &State) -> (Vec<u8>, Vec<u8>) {
    let mut files = unzip(&packed(state)).into_iter().map(|(_, content)| content);
    (files.next().unwrap(), files.next().unwrap())
}

#[test]
fn what_is_written_is_read_back() {
    for (keys, len) in [(0, 0), (5, 10), (40, 100_000)] {
        let state = state(keys, len);
        let archive = read(&mut &packed(&state)[..]).unwrap();
        assert_eq!(archive.state.digest(), state.digest());
        let mut chunks = Vec::new();
        state.pack(&mut |chunk| chunks.push(chunk));
        assert_eq!(archive.chunks, chunks);
        assert_eq!(archive.meta.own.revision, state.revision());
        assert_eq!((archive.meta.index, archive.meta.term, archive.meta.own.cluster), (42, 3, origin().cluster));
    }
}

#[test]
fn the_same_state_gives_the_same_bytes() {
    assert_eq!(packed(&state(9, 100)), packed(&state(9, 100)));
}

#[test]
fn the_envelope_is_consuls() {
    let files = unzip(&packed(&state(5, 10)));
    assert_eq!(files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), [META, STATE, SUMS]);
    let meta: serde_json::Value = serde_json::from_slice(&files[0].1).unwrap();
    assert_eq!(meta["Version"], 1);
    assert_eq!(meta["ID"], "3-42-6");
    assert_eq!((&meta["Index"], &meta["Term"]), (&42.into(), &3.into()));
    assert_eq!(meta["Peers"], serde_json::Value::Null);
    assert_eq!(meta["Configuration"]["Servers"][1]["Address"], "10.0.0.2:8300");
    assert_eq!(meta["Configuration"]["Servers"][1]["Suffrage"], 0);
    assert_eq!(meta["Size"], files[1].1.len());
    let listed = String::from_utf8(files[2].1.clone()).unwrap();
    for (line, (name, content)) in listed.lines().zip(&files) {
        assert_eq!(line, format!("{}  {name}", hex(&Sha256::digest(content))));
    }
    assert_eq!(listed.lines().count(), 2);
}

#[test]
fn an_archive_that_is_cut_anywhere_is_refused() {
    let whole = packed(&state(5, 10));
    for len in 0..whole.len() {
        let text = refusal(&whole[..len]);
        assert!(text.contains("damaged") || text.contains("not a whole backup"), "cut at {len}: {text}");
    }
    let text = refusal(&[&whole[..], b"more"].concat());
    assert!(text.contains("something follows its end"), "{text}");
}

#[test]
fn a_flipped_bit_is_refused_or_means_nothing() {
    let state = state(5, 10);
    let whole = packed(&state);
    let mut harmless = 0;
    for bit in 0..whole.len() * 8 {
        let mut bad = whole.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        match read(&mut &bad[..]) {
            Err(Error::Request(_)) => {}
            Ok(archive) => {
                assert_eq!(archive.state.digest(), state.digest(), "bit {bit}");
                harmless += 1;
            }
            Err(other) => panic!("bit {bit}: {other:?}"),
        }
    }
    // Flags, time and system in the head of gzip, and codes that its content never uses.
    assert!(harmless < whole.len() * 8 / 20, "{harmless} of {}", whole.len() * 8);
}

/// The sums are right here: what finds it is the row's own seal, the digest, and the description.
#[test]
fn a_flipped_bit_under_right_sums_is_refused() {
    let (meta, content) = files(&state(5, 10));
    for bit in 0..content.len() * 8 {
        let mut bad = content.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        refusal(&summed(&meta, &bad));
    }
    for len in 0..content.len() {
        refusal(&summed(&meta, &content[..len]));
    }
}

#[test]
fn whole_chunks_that_are_missing_twice_there_or_of_another_state_are_refused() {
    let (meta, content) = files(&state(40, 100_000));
    let line = content.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let first = 4 + u32::from_le_bytes(content[line..line + 4].try_into().unwrap()) as usize;
    assert!(line + first < content.len(), "there are several chunks");
    let without = [&content[..line], &content[line + first..]].concat();
    assert!(refusal(&summed(&meta, &without)).contains("damaged"));
    let only = &content[..line + first];
    assert!(refusal(&summed(&meta, only)).contains("damaged"));
    let (_, other) = files(&state(41, 100_000));
    assert!(refusal(&summed(&meta, &other)).contains("meta.json does not describe the state"));
}

#[test]
fn what_is_not_ours_is_called_by_its_name() {
    let (meta, content) = files(&state(5, 10));
    let text = |name: &str, content: &[u8]| (name.to_string(), content.to_vec());
    let mut consul: serde_json::Value = serde_json::from_slice(&meta).unwrap();
    consul.as_object_mut().unwrap().remove("Quorate");
    let consul = serde_json::to_vec(&consul).unwrap();
    let mut newer: serde_json::Value = serde_json::from_slice(&meta).unwrap();
    newer["Quorate"]["Format"] = (STATE_FORMAT + 1).into();
    let newer = serde_json::to_vec(&newer).unwrap();
    let layout = [b"quorate state 2\n", &content[16..]].concat();
    let sums = unzip(&packed(&state(5, 10))).remove(2).1;
    let wrong = String::from_utf8(sums.clone()).unwrap().replace(['0', '1', '2'], "3").into_bytes();
    for (bytes, says) in [
        (Vec::new(), "it is empty"),
        (b"PK\x03\x04".to_vec(), "it does not begin as gzip does"),
        (b"{}".to_vec(), "it does not begin as gzip does"),
        (zip(&[]), "meta.json is not in it"),
        (zip(&[text(META, &meta), text(SUMS, &sums)]), "state.bin is not in it"),
        (zip(&[text(META, &meta), text(STATE, &content)]), "SHA256SUMS is not in it"),
        (zip(&[text(META, &meta), text(META, &meta)]), "meta.json is there twice"),
        (zip(&[text("etc/passwd", b"x")]), "there is \"etc/passwd\" in it"),
        (zip(&[text(META, &meta), text(STATE, &content), text(SUMS, &wrong)]), "the sums that it lists"),
        (zip(&[text(META, &meta), text(STATE, &content), text(SUMS, b"x")]), "the sums that it lists"),
        (summed(b"{}", &content), "meta.json is not what it should be"),
        (summed(&consul, b"\x00\x83msgpack"), "a snapshot of Consul"),
        (summed(&consul, b""), "a snapshot of Consul"),
        (summed(&newer, &content), "the version that wrote it, or a newer one"),
        (summed(&meta, &layout), "the backup has layout 2"),
        (summed(&consul, &content), "meta.json does not describe the state"),
    ] {
        let said = refusal(&bytes);
        assert!(said.contains(says), "{said}");
    }
}

/// A megabyte of gzip can hold a gigabyte of zeros. Nothing here is taken into memory before it is known to be bounded.
#[test]
fn what_unpacks_to_too_much_is_refused() {
    let (meta, _) = files(&state(0, 0));
    let zeros = |name: &str, size: u64, begin: &[u8]| {
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        write_file(&mut gz, META, meta.len() as u64, |out| out.write_all(&meta)).unwrap();
        write_file(&mut gz, name, size, |out| {
            out.write_all(begin)?;
            std::io::copy(&mut std::io::repeat(0).take((8 << 20) - begin.len() as u64), out).map(drop)
        })
        .unwrap();
        gz.finish().unwrap()
    };
    let claims = [b"quorate state 1\n", &u32::MAX.to_le_bytes()[..]].concat();
    assert!(refusal(&zeros(STATE, 8 << 20, &claims)).contains("a part of it claims to have 4294967295 bytes"));
    assert!(refusal(&zeros(SUMS, 8 << 20, b"")).contains("its description is too long"));
    assert!(refusal(&zeros("././@LongLink", 8 << 20, b"")).contains("@LongLink"));
    assert!(refusal(&zeros(STATE, 1 << 40, b"")).contains("it ends early"));

    let mut bounded = unpacking::bounded(std::io::repeat(0), 10_000);
    let mut taken = Vec::new();
    let error = bounded.read_to_end(&mut taken).unwrap_err();
    assert!(error.to_string().contains("it unpacks to more than"), "{error}");
    assert!(taken.len() <= 10_000);
}

#[test]
fn it_is_told_what_the_state_is_made_of() {
    let archive = read(&mut &packed(&state(9, 100))[..]).unwrap();
    let kinds = archive.kinds();
    let keys = kinds.iter().find(|kind| kind.name == "KVS").unwrap();
    assert_eq!(keys.count, 9);
    assert!(kinds.is_sorted_by(|a, b| a.size >= b.size));
    let names = |shares: Vec<Share>| shares.into_iter().map(|share| (share.name, share.count)).collect::<Vec<_>>();
    assert_eq!(names(archive.keys("", 1)), [("web".to_string(), 9)]);
    assert_eq!(names(archive.keys("", 2)), [("web/0".to_string(), 3), ("web/1".into(), 3), ("web/2".into(), 3)]);
    assert_eq!(names(archive.keys("web/1", 2)), [("web/1".to_string(), 3)]);
    assert_eq!(names(archive.keys("none", 2)), []);
}
