//! A listing under a prefix: entries or names, rolled up at a separator, in pages, written as it is sent.
//!
//! The table is a snapshot, so a listing may be sent slowly and is still of one moment.

use crate::api::json::{Style, Writer};
use crate::api::kv::KvEntryRef;
use crate::limits;
use crate::state::{Key, KvRow, KvTable};

/// What is listed of each key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// The whole entry (`recurse`).
    Entries,
    /// The name alone (`keys`), cut after the first separator beyond the prefix; an empty separator cuts nothing.
    Names {
        /// What to cut after.
        separator: Vec<u8>,
    },
}

/// What is to be listed.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Every key listed begins with this.
    pub prefix: Key,
    /// The shape of an element.
    pub shape: Shape,
    /// Names up to and including this one are left out.
    pub start_after: Option<Vec<u8>>,
}

impl Selection {
    /// The elements above a name, ascending and distinct.
    ///
    /// Cutting keeps ascending order: of two keys with different cuts, the smaller key has the smaller cut. So equal
    /// names stand together, and comparing with the last one is enough.
    fn elements<'a>(&'a self, table: &'a KvTable, above: Option<&'a [u8]>) -> impl Iterator<Item = Element<'a>> {
        let prefix = self.prefix.as_bytes();
        // No key is empty, so all of them are above the empty name.
        let rows = table.prefix_after(prefix, above.unwrap_or_default());
        let mut last = above;
        rows.filter_map(move |(key, row)| {
            let name = self.name(key.as_bytes());
            if last.is_some_and(|last| name <= last) {
                return None;
            }
            last = Some(name);
            Some(Element { name, row })
        })
    }

    fn name<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        let Shape::Names { separator } = &self.shape else { return key };
        if separator.is_empty() {
            return key;
        }
        let beyond = self.prefix.as_bytes().len();
        let found = key[beyond..].windows(separator.len()).position(|window| window == separator);
        found.map_or(key, |at| &key[..beyond + at + separator.len()])
    }

    /// Whether there is nothing to list.
    pub fn is_empty(&self, table: &KvTable) -> bool {
        self.elements(table, self.start_after.as_deref()).next().is_none()
    }

    /// The last name of a page, if there are more behind it.
    pub fn page_end(&self, table: &KvTable, limit: usize) -> Option<Vec<u8>> {
        let mut rest = self.elements(table, self.start_after.as_deref()).skip(limit - 1);
        let end = rest.next()?;
        rest.next().map(|_| end.name.to_vec())
    }
}

struct Element<'a> {
    name: &'a [u8],
    row: &'a KvRow,
}

/// A JSON array, in chunks of about [`limits::LIST_CHUNK`].
pub struct Listing {
    selection: Selection,
    table: KvTable,
    /// Names up to and including this one have been written, or are not wanted.
    above: Option<Vec<u8>>,
    /// The last name that is wanted, if not all are.
    end: Option<Vec<u8>>,
    writer: Writer,
    finished: bool,
}

impl Listing {
    /// Lists a table up to and including the name `end`.
    pub fn new(selection: Selection, table: KvTable, end: Option<Vec<u8>>, style: Style) -> Self {
        let mut writer = Writer::new(style);
        writer.begin(b'[');
        Listing { above: selection.start_after.clone(), selection, table, end, writer, finished: false }
    }

    /// Writes elements until a chunk is full; gives the last name written if it stopped for that.
    fn write(&mut self) -> Option<Vec<u8>> {
        let end = self.end.as_deref();
        let wanted = |element: &Element<'_>| end.is_none_or(|end| element.name <= end);
        for element in self.selection.elements(&self.table, self.above.as_deref()).take_while(wanted) {
            self.writer.element();
            match self.selection.shape {
                Shape::Entries => entry(element.name, element.row).write(&mut self.writer),
                Shape::Names { .. } => self.writer.string(element.name),
            }
            if self.writer.len() >= limits::LIST_CHUNK {
                return Some(element.name.to_vec());
            }
        }
        None
    }
}

impl Iterator for Listing {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.finished {
            return None;
        }
        self.above = self.write();
        if self.above.is_none() {
            self.writer.end(b']');
            self.finished = true;
        }
        Some(self.writer.take())
    }
}

/// A row as the API shows it.
pub fn entry<'a>(key: &'a [u8], row: &'a KvRow) -> KvEntryRef<'a> {
    KvEntryRef {
        lock_index: row.lock_index,
        key,
        flags: row.flags,
        value: &row.value,
        session: row.holder.map(|holder| holder.session),
        fence: None,
        create_index: row.create_index,
        modify_index: row.modify_index,
    }
}

/// The same with the fence of a held key, which Consul's form has no place for.
pub fn fenced_entry<'a>(key: &'a [u8], row: &'a KvRow) -> KvEntryRef<'a> {
    KvEntryRef { fence: row.holder.map(|holder| holder.fence), ..entry(key, row) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::state::{Command, Entry, LogTime, State};

    fn table(keys: &[&[u8]], value: &[u8]) -> KvTable {
        let mut state = State::default();
        for key in keys {
            let (key, value) = (Key::from(*key), Bytes::copy_from_slice(value));
            let command = Command::KvSet { key, value, flags: 0, cas: None };
            state.apply(1, &Entry { time: LogTime(0), request: None, command }, &mut Vec::new());
        }
        state.kv().clone()
    }

    fn names(prefix: &str, separator: &str, start_after: Option<&[u8]>) -> Selection {
        let shape = Shape::Names { separator: separator.into() };
        Selection { prefix: prefix.into(), shape, start_after: start_after.map(<[u8]>::to_vec) }
    }

    fn listed(selection: Selection, table: &KvTable, end: Option<Vec<u8>>) -> Vec<String> {
        let chunks: Vec<u8> = Listing::new(selection, table.clone(), end, Style::Compact).flatten().collect();
        serde_json::from_slice(&chunks).unwrap()
    }

    #[test]
    fn names_are_cut_after_the_first_separator_beyond_the_prefix() {
        let table = table(&[b"a", b"a/b", b"a/c/d", b"a/c/e", b"a/f/", b"b"], b"v");
        assert_eq!(listed(names("", "", None), &table, None), ["a", "a/b", "a/c/d", "a/c/e", "a/f/", "b"]);
        assert_eq!(listed(names("", "/", None), &table, None), ["a", "a/", "b"]);
        assert_eq!(listed(names("a/", "/", None), &table, None), ["a/b", "a/c/", "a/f/"]);
        assert_eq!(listed(names("a/c", "/", None), &table, None), ["a/c/"]);
        assert_eq!(listed(names("a/", "c/", None), &table, None), ["a/b", "a/c/", "a/f/"]);
    }

    #[test]
    fn a_rolled_up_name_is_skipped_whole_when_starting_after_it() {
        let table = table(&[b"a/1", b"a/2", b"b", b"c/1"], b"v");
        assert_eq!(listed(names("", "/", Some(b"a/")), &table, None), ["b", "c/"]);
        assert_eq!(names("", "/", None).page_end(&table, 1), Some(b"a/".to_vec()));
        assert_eq!(names("", "/", None).page_end(&table, 3), None);
        assert!(names("", "/", Some(b"c/")).is_empty(&table));
    }

    #[test]
    fn a_long_listing_comes_in_bounded_chunks_that_make_one_document() {
        let keys: Vec<Vec<u8>> = (0..40u8).map(|n| vec![b'a', n]).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let value = vec![7; limits::LIST_CHUNK / 16];
        let table = table(&keys, &value);
        for style in [Style::Compact, Style::Indented, Style::Pretty] {
            let selection = Selection { prefix: "a".into(), shape: Shape::Entries, start_after: None };
            let chunks: Vec<Vec<u8>> = Listing::new(selection, table.clone(), None, style).collect();
            assert!(chunks.len() > 2);
            assert!(chunks.iter().all(|chunk| chunk.len() < 2 * limits::LIST_CHUNK));
            let entries: Vec<crate::api::kv::KvEntry> = serde_json::from_slice(&chunks.concat()).unwrap();
            assert_eq!(entries.iter().map(|entry| entry.key.as_bytes()).collect::<Vec<_>>(), keys);
            assert!(entries.iter().all(|entry| entry.value == value));
        }
    }

    #[test]
    fn nothing_is_an_empty_array() {
        let chunks =
            |style| Listing::new(names("", "", None), KvTable::default(), None, style).flatten().collect::<Vec<_>>();
        assert_eq!(chunks(Style::Compact), b"[]");
        assert_eq!(chunks(Style::Indented), b"[]");
    }

    proptest! {
        /// Pages, put together, are the whole; the whole is what a set of cut names gives.
        #[test]
        fn pages_cover_a_listing_without_gap_or_repeat(
            keys in proptest::collection::btree_set("[ab/]{1,5}", 0..30),
            prefix in "[ab/]{0,2}",
            separator in "[ab/]{0,2}",
            limit in 1..5_usize,
        ) {
            let table = table(&keys.iter().map(String::as_bytes).collect::<Vec<_>>(), b"v");
            let cut = |key: &String| {
                let at = key[prefix.len()..].find(&separator).filter(|_| !separator.is_empty());
                at.map_or(key.clone(), |at| key[..prefix.len() + at + separator.len()].to_string())
            };
            let expected: BTreeSet<String> = keys.iter().filter(|key| key.starts_with(&prefix)).map(cut).collect();
            let mut all = Vec::new();
            let mut after: Option<Vec<u8>> = None;
            loop {
                let selection = names(&prefix, &separator, after.as_deref());
                after = selection.page_end(&table, limit);
                let page = listed(selection, &table, after.clone());
                prop_assert!(page.len() <= limit);
                all.extend(page);
                if after.is_none() {
                    break;
                }
            }
            prop_assert_eq!(all, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
