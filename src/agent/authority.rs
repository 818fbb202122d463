//! Making the root certificate, which the cluster's first leader does once (consul.md 0.1).
//!
//! Randomness and time come from the [`World`], so a simulated cluster has the same root for the same seed. The key is
//! thrown away with the value that holds it.

use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyIdMethod, KeyUsagePurpose, SanType, SerialNumber};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::error::{Error, Result};
use crate::limits;
use crate::raft::Raft;
use crate::state::{Command, Root};
use crate::world::World;

/// A key that signs one certificate: its own.
struct Key {
    signing: SigningKey,
    public: Vec<u8>,
}

impl Key {
    fn new(world: &World) -> Self {
        loop {
            let mut secret = [0; 32];
            world.entropy.fill(&mut secret);
            // All but one number in 2^32 is a key.
            if let Ok(signing) = SigningKey::from_slice(&secret) {
                let public = signing.verifying_key().to_encoded_point(false).as_bytes().to_vec();
                return Key { signing, public };
            }
        }
    }
}

impl rcgen::PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature: Signature = self.signing.sign(message);
        Ok(signature.to_der().as_bytes().to_vec())
    }
}

/// Has the cluster keep a root if it has none. Proposed in the leader's own term; what was not done is left to the next try.
///
/// # Errors
/// As [`make_root`] and `Raft::propose_in`.
pub(super) async fn keep_root(world: &World, raft: &Raft, term: u64) -> Result<()> {
    if raft.view().state.authority().root().is_none() {
        raft.propose_in(term, Command::KeepRoot(make_root(world)?.into())).await?;
    }
    Ok(())
}

/// A new root.
///
/// # Errors
/// [`Error::Bug`], if it cannot be encoded.
fn make_root(world: &World) -> Result<Root> {
    let failed = |error: &dyn std::fmt::Display| Error::Bug(format!("cannot make a root certificate: {error}"));
    let key = Key::new(world);
    let key_id = &Sha256::digest(&key.public)[..20];
    let trust_domain = world.entropy.uuid();
    // Positive, as X.509 wants it, and exact for every reader of JSON.
    let serial = (world.entropy.u64() >> 12) + 1;
    // A clock that is a little ahead of a reader's makes no certificate of tomorrow.
    let not_before = (world.clock.wall().0 / 1000).saturating_sub(limits::ROOT_LEEWAY.as_secs());
    let not_after = not_before + limits::ROOT_LIFE.as_secs();
    let date = |seconds: u64| {
        OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap_or(i64::MAX)).map_err(|error| failed(&error))
    };

    let mut params = CertificateParams::default();
    params.not_before = date(not_before)?;
    params.not_after = date(not_after)?;
    params.serial_number = Some(SerialNumber::from(serial));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("pri-{}.consul.ca", &trust_domain.simple().to_string()[..8]));
    let uri = format!("spiffe://{trust_domain}.consul").try_into().map_err(|error| failed(&error))?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.key_identifier_method = KeyIdMethod::PreSpecified(key_id.to_vec());
    let certificate = params.self_signed(&key).map_err(|error| failed(&error))?;
    Ok(Root {
        id: colons(&Sha256::digest(certificate.der())[..20]),
        name: "Consul CA Primary Cert".into(),
        serial,
        signing_key_id: colons(key_id),
        trust_domain,
        not_before,
        not_after,
        certificate: certificate.pem(),
    })
}

fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::world::{Entropy, MemoryDisk, real};

    /// Says the same again and again.
    struct Seed(u8);

    impl Entropy for Seed {
        fn fill(&self, buffer: &mut [u8]) {
            buffer.fill(self.0);
        }
    }

    fn world(seed: u8) -> World {
        World {
            clock: Arc::new(real::RealClock),
            net: Arc::new(real::RealNetwork),
            disk: Arc::new(MemoryDisk::default()),
            entropy: Arc::new(Seed(seed)),
            spawn: Arc::new(real::RealSpawn),
        }
    }

    #[test]
    fn a_root_follows_from_randomness_and_time_alone_and_holds_for_ten_years() {
        let [root, again, other] = [7, 7, 8].map(|seed| make_root(&world(seed)).unwrap());
        assert_eq!(
            (&root.signing_key_id, root.trust_domain, root.serial),
            (&again.signing_key_id, again.trust_domain, again.serial)
        );
        assert_ne!((&root.signing_key_id, root.trust_domain), (&other.signing_key_id, other.trust_domain));
        assert_eq!(root.not_after - root.not_before, limits::ROOT_LIFE.as_secs());
        assert!(
            root.certificate.starts_with("-----BEGIN CERTIFICATE-----")
                && root.certificate.len() < limits::MAX_ROOT / 8
        );
        assert_eq!(root.id.len(), 59, "20 bytes in hexadecimal with colons");
    }
}
