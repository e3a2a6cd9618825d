//! The fleet secret: 32 random bytes that gateways and engines of one cluster share.
//!
//! Created once and never changed: server-side apply would replace the value that running processes hold. If
//! somebody deletes it while pods use it, the operator puts the same value back, as long as it has read it. One that has
//! not makes a new value for the pods that come; those that run keep the old one, out of its reach.
//!
//! It is not marked immutable: a kubelet stops watching such a secret, and would go on mounting the value of a
//! deleted one into new pods for as long as an old pod of its node uses the name.

use k8s_openapi::{ByteString, api::core::v1::Secret};

use crate::{fleet::Fleet, labels, observe::SeenSecret};

/// Key of the value, and name of the mounted file.
pub const KEY: &str = "secret";
const BYTES: usize = 32;

/// # Errors
/// When the system has no randomness to give.
pub fn fleet_secret(fleet: &Fleet) -> Result<Secret, getrandom::Error> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(with_value(fleet, bytes))
}

/// The value that pods use, in a new object that counts as the same secret.
pub fn fleet_secret_again(fleet: &Fleet, lost: &SeenSecret) -> Secret {
    let mut secret = with_content(fleet, lost.content.clone());
    secret.metadata.annotations = Some(labels::map([(labels::FLEET_SECRET, lost.id.as_str())]));
    secret
}

/// Hex digits, because readers of the file leave out white space around the value.
fn with_value(fleet: &Fleet, bytes: [u8; BYTES]) -> Secret {
    let text = blake3::Hash::from_bytes(bytes).to_hex().to_string();
    with_content(fleet, ByteString(text.into_bytes()))
}

fn with_content(fleet: &Fleet, content: ByteString) -> Secret {
    Secret {
        metadata: fleet.object_meta(fleet.names().fleet_secret()),
        type_: Some("Opaque".to_owned()),
        data: Some([(KEY.to_owned(), content)].into()),
        ..Secret::default()
    }
}

#[cfg(test)]
pub(crate) fn known(fleet: &Fleet) -> Secret {
    with_value(fleet, [7; BYTES])
}
