//! Writing JSON as Consul writes it: compact, or indented by four spaces.
//!
//! [`to_vec`] serves small bodies through serde. A listing may be millions of rows, so it goes through [`Writer`],
//! which puts bytes straight into a buffer that can be taken away and sent while the document goes on.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

/// Consul's step of indentation.
const INDENT: &[u8] = b"    ";

/// How a document is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// No white space.
    #[default]
    Compact,
    /// One element per line, four spaces per level: what `-dev` mode gives.
    Indented,
    /// The same with a newline at the end: what `?pretty` gives.
    Pretty,
}

/// Serializes a small value.
pub fn to_vec(value: &impl Serialize, style: Style) -> Vec<u8> {
    let mut out = Vec::new();
    let written = match style {
        Style::Compact => value.serialize(&mut serde_json::Serializer::new(&mut out)),
        Style::Indented | Style::Pretty => {
            let formatter = serde_json::ser::PrettyFormatter::with_indent(INDENT);
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))
        }
    };
    written.expect("a struct with string keys serializes, and a Vec takes every byte");
    if style == Style::Pretty {
        out.push(b'\n');
    }
    out
}

/// Writes one JSON document, piece by piece. The caller keeps `begin` and `end` in pairs.
pub struct Writer {
    out: Vec<u8>,
    style: Style,
    depth: usize,
    /// Whether the innermost object or array has no element yet.
    empty: bool,
}

impl Writer {
    /// An empty document.
    pub fn new(style: Style) -> Self {
        Writer { out: Vec::new(), style, depth: 0, empty: true }
    }

    /// Bytes written since the last [`Writer::take`].
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing was written since the last [`Writer::take`].
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Takes what has been written; the document goes on in a new buffer.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Opens an object (`{`) or an array (`[`).
    pub fn begin(&mut self, bracket: u8) {
        self.out.push(bracket);
        self.depth += 1;
        self.empty = true;
    }

    /// Closes it with `}` or `]`.
    pub fn end(&mut self, bracket: u8) {
        self.depth -= 1;
        if !self.empty {
            self.new_line();
        }
        self.out.push(bracket);
        self.empty = false;
        if self.depth == 0 && self.style == Style::Pretty {
            self.out.push(b'\n');
        }
    }

    /// Begins the next element of an array.
    pub fn element(&mut self) {
        if !self.empty {
            self.out.push(b',');
        }
        self.new_line();
        self.empty = false;
    }

    /// Begins the next field of an object. The name is plain ASCII without quotes.
    pub fn field(&mut self, name: &str) {
        self.element();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(if self.style == Style::Compact { b"\":" } else { b"\": " });
    }

    /// A number.
    pub fn number(&mut self, number: u64) {
        // 20 digits hold every u64. Cheaper than `fmt` by half, and a listing has four numbers to a row.
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut left = number;
        loop {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[at..]);
    }

    /// Nothing.
    pub fn null(&mut self) {
        self.out.extend_from_slice(b"null");
    }

    /// Bytes between two documents, as they are.
    pub fn between(&mut self, bytes: &[u8]) {
        debug_assert_eq!(self.depth, 0, "a document is open");
        self.out.extend_from_slice(bytes);
        self.empty = true;
    }

    /// A string. Bytes that are not UTF-8 become U+FFFD, as in Consul: JSON has no other way to say them.
    pub fn string(&mut self, bytes: &[u8]) {
        self.out.push(b'"');
        for chunk in bytes.utf8_chunks() {
            self.escape(chunk.valid());
            if !chunk.invalid().is_empty() {
                self.out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
        self.out.push(b'"');
    }

    /// Bytes in standard base64; no bytes at all are `null`, as in Consul.
    pub fn base64(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.null();
            return;
        }
        self.out.push(b'"');
        let start = self.out.len();
        self.out.resize(start + bytes.len().div_ceil(3) * 4, 0);
        STANDARD.encode_slice(bytes, &mut self.out[start..]).expect("four bytes for every three begun");
        self.out.push(b'"');
    }

    fn new_line(&mut self) {
        if self.style != Style::Compact {
            self.out.push(b'\n');
            for _ in 0..self.depth {
                self.out.extend_from_slice(INDENT);
            }
        }
    }

    fn escape(&mut self, text: &str) {
        let mut plain = 0;
        for (at, byte) in text.bytes().enumerate() {
            if byte >= 0x20 && byte != b'"' && byte != b'\\' {
                continue;
            }
            self.out.extend_from_slice(&text.as_bytes()[plain..at]);
            plain = at + 1;
            match byte {
                b'"' | b'\\' => self.out.extend_from_slice(&[b'\\', byte]),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                b'\r' => self.out.extend_from_slice(b"\\r"),
                b'\t' => self.out.extend_from_slice(b"\\t"),
                _ => {
                    const HEX: &[u8; 16] = b"0123456789abcdef";
                    self.out.extend_from_slice(b"\\u00");
                    self.out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                }
            }
        }
        self.out.extend_from_slice(&text.as_bytes()[plain..]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::new(Style::Compact);
        write(&mut writer);
        writer.take()
    }

    proptest! {
        #[test]
        fn any_bytes_read_back_as_their_lossy_text(bytes: Vec<u8>) {
            let read: String = serde_json::from_slice(&written(|w| w.string(&bytes))).unwrap();
            prop_assert_eq!(read, String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn any_text_reads_back_as_itself(text: String) {
            let read: String = serde_json::from_slice(&written(|w| w.string(text.as_bytes()))).unwrap();
            prop_assert_eq!(read, text);
        }

        #[test]
        fn any_number_is_written_as_display_writes_it(number: u64) {
            prop_assert_eq!(written(|w| w.number(number)), number.to_string().into_bytes());
        }

        #[test]
        fn any_value_reads_back_from_base64(bytes in proptest::collection::vec(any::<u8>(), 1..100)) {
            let read: String = serde_json::from_slice(&written(|w| w.base64(&bytes))).unwrap();
            prop_assert_eq!(STANDARD.decode(read).unwrap(), bytes);
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        let all: Vec<u8> = (0..=0x7f).collect();
        let read: String = serde_json::from_slice(&written(|w| w.string(&all))).unwrap();
        assert_eq!(read.into_bytes(), all);
    }

    #[test]
    fn extreme_numbers_are_exact() {
        assert_eq!(written(|w| w.number(0)), b"0");
        assert_eq!(written(|w| w.number(u64::MAX)), b"18446744073709551615");
    }

    #[test]
    fn nothing_is_null_in_base64() {
        assert_eq!(written(|w| w.base64(b"")), b"null");
    }

    fn document(style: Style) -> Vec<u8> {
        let mut writer = Writer::new(style);
        writer.begin(b'[');
        for number in [1, 2] {
            writer.element();
            writer.begin(b'{');
            writer.field("A");
            writer.number(number);
            writer.field("B");
            writer.begin(b'[');
            writer.end(b']');
            writer.end(b'}');
        }
        writer.end(b']');
        writer.take()
    }

    #[test]
    fn every_style_agrees_with_serde_json_byte_for_byte() {
        let value = serde_json::json!([{"A": 1, "B": []}, {"A": 2, "B": []}]);
        for style in [Style::Compact, Style::Indented, Style::Pretty] {
            assert_eq!(document(style).escape_ascii().to_string(), to_vec(&value, style).escape_ascii().to_string());
        }
        let pretty = [document(Style::Indented), b"\n".to_vec()].concat();
        assert_eq!(document(Style::Pretty), pretty, "one newline, at the very end");
    }

    #[test]
    fn a_document_taken_in_pieces_is_the_same_document() {
        let mut writer = Writer::new(Style::Compact);
        writer.begin(b'[');
        writer.element();
        writer.number(1);
        let mut pieces = writer.take();
        assert!(writer.is_empty());
        writer.element();
        writer.number(2);
        assert_eq!(writer.len(), 2);
        writer.end(b']');
        pieces.extend(writer.take());
        assert_eq!(pieces, b"[1,2]");
    }
}
