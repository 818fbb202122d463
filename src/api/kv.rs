//! One key as the API shows it: [`KvEntry`] is what a client reads, [`KvEntryRef`] is what the server writes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::json::Writer;

/// An element of the answer to `GET /v1/kv/:key`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KvEntry {
    /// How often the key was locked by a new holder.
    pub lock_index: u64,
    /// The key. Where it is not UTF-8 it holds U+FFFD: JSON cannot say more.
    pub key: String,
    /// The client's opaque number.
    pub flags: u64,
    /// The value: base64 in JSON, `null` if it is empty.
    #[serde(with = "value")]
    pub value: Vec<u8>,
    /// The session that holds the key, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Uuid>,
    /// The revision that created the key.
    pub create_index: u64,
    /// The revision that last changed it: what `cas` compares.
    pub modify_index: u64,
}

mod value {
    use super::*;

    pub fn serialize<S: Serializer>(value: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_empty() { serializer.serialize_none() } else { serializer.collect_str(&STANDARD.encode(value)) }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        STANDARD.decode(text.unwrap_or_default()).map_err(serde::de::Error::custom)
    }
}

/// A [`KvEntry`] that borrows: writing one allocates nothing but the output.
#[derive(Debug, Clone, Copy)]
pub struct KvEntryRef<'a> {
    /// See [`KvEntry::lock_index`].
    pub lock_index: u64,
    /// The key's bytes.
    pub key: &'a [u8],
    /// See [`KvEntry::flags`].
    pub flags: u64,
    /// The value's bytes.
    pub value: &'a [u8],
    /// See [`KvEntry::session`].
    pub session: Option<Uuid>,
    /// The fence that it is held under, where that is shown.
    pub fence: Option<u64>,
    /// See [`KvEntry::create_index`].
    pub create_index: u64,
    /// See [`KvEntry::modify_index`].
    pub modify_index: u64,
}

impl KvEntryRef<'_> {
    /// Writes the entry as one JSON object, its fields in Consul's order.
    pub fn write(&self, writer: &mut Writer) {
        writer.begin(b'{');
        writer.field("LockIndex");
        writer.number(self.lock_index);
        writer.field("Key");
        writer.string(self.key);
        writer.field("Flags");
        writer.number(self.flags);
        writer.field("Value");
        writer.base64(self.value);
        if let Some(session) = self.session {
            writer.field("Session");
            writer.string(session.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
        }
        if let Some(fence) = self.fence {
            writer.field("Fence");
            writer.number(fence);
        }
        writer.field("CreateIndex");
        writer.number(self.create_index);
        writer.field("ModifyIndex");
        writer.number(self.modify_index);
        writer.end(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::json::{self, Style};

    fn entry(value: &[u8], session: Option<Uuid>) -> KvEntry {
        let value = value.to_vec();
        KvEntry {
            lock_index: 1,
            key: "a/\"b\"/ü".into(),
            flags: u64::MAX,
            value,
            session,
            create_index: 7,
            modify_index: 9,
        }
    }

    fn write(entry: &KvEntry, style: Style) -> String {
        let KvEntry { lock_index, key, flags, value, session, create_index, modify_index } = entry;
        let mut writer = Writer::new(style);
        KvEntryRef {
            lock_index: *lock_index,
            key: key.as_bytes(),
            flags: *flags,
            value,
            session: *session,
            fence: None,
            create_index: *create_index,
            modify_index: *modify_index,
        }
        .write(&mut writer);
        String::from_utf8(writer.take()).unwrap()
    }

    #[test]
    fn fields_stand_in_consuls_order_and_no_holder_means_no_session() {
        let expected = concat!(
            r#"{"LockIndex":1,"Key":"a/\"b\"/ü","Flags":18446744073709551615,"Value":"aGk=","#,
            r#""CreateIndex":7,"ModifyIndex":9}"#
        );
        assert_eq!(write(&entry(b"hi", None), Style::Compact), expected);
    }

    #[test]
    fn what_the_server_writes_the_client_type_reads_and_writes_alike() {
        for value in [&b""[..], b"hi", b"\0\xff"] {
            for session in [None, Some(Uuid::from_u128(1 << 100))] {
                for style in [Style::Compact, Style::Indented, Style::Pretty] {
                    let entry = entry(value, session);
                    let text = write(&entry, style);
                    assert_eq!(serde_json::from_str::<KvEntry>(&text).unwrap(), entry);
                    assert_eq!(json::to_vec(&entry, style), text.as_bytes());
                }
            }
        }
    }
}
