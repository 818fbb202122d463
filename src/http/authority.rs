//! `/v1/agent/connect/ca/roots`: the one root certificate (consul.md 0.1).

use time::OffsetDateTime;

use super::{Call, Outcome};
use crate::agent::Scope;
use crate::api::authority::{Root, Roots};
use crate::state::{RootRow, State, Subject};

/// `GET /v1/agent/connect/ca/roots`
pub async fn roots(call: Call) -> Outcome {
    let roots = |state: &State| Some(state.authority().root().map(shown).unwrap_or_default());
    call.answer_subject(Scope::Prefix(Subject::Root, "".into()), roots).await
}

fn shown(row: &RootRow) -> Roots {
    let root = &row.root;
    Roots {
        active_root_id: root.id.clone(),
        trust_domain: format!("{}.consul", root.trust_domain),
        roots: vec![Root {
            id: root.id.clone(),
            name: root.name.clone(),
            serial_number: root.serial,
            signing_key_id: root.signing_key_id.clone(),
            external_trust_domain: root.trust_domain.to_string(),
            not_before: date(root.not_before),
            not_after: date(root.not_after),
            root_cert: root.certificate.clone(),
            intermediate_certs: None,
            active: true,
            private_key_type: "ec",
            private_key_bits: 256,
            create_index: row.create_index,
            modify_index: row.create_index,
        }],
    }
}

/// RFC 3339. A time beyond the calendar is shown as its beginning.
fn date(seconds: u64) -> String {
    let date = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    let date = date.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = date.to_calendar_date();
    let (hour, minute, second) = date.to_hms();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", u8::from(month))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(date(u64::MAX), date(0));
    }
}
