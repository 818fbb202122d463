//! Body of `/v1/agent/connect/ca/roots`.

use serde::Serialize;

/// The roots: one, or none before the cluster's first leader has made it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "the names are the API's")]
pub struct Roots {
    #[serde(rename = "ActiveRootID")]
    pub active_root_id: String,
    pub trust_domain: String,
    pub roots: Vec<Root>,
}

/// One of [`Roots`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "the names are the API's")]
pub struct Root {
    #[serde(rename = "ID")]
    pub id: String,
    pub name: String,
    pub serial_number: u64,
    #[serde(rename = "SigningKeyID")]
    pub signing_key_id: String,
    pub external_trust_domain: String,
    pub not_before: String,
    pub not_after: String,
    pub root_cert: String,
    /// Always null: nothing stands between the root and what it would sign.
    pub intermediate_certs: Option<()>,
    pub active: bool,
    pub private_key_type: &'static str,
    pub private_key_bits: u16,
    pub create_index: u64,
    pub modify_index: u64,
}
