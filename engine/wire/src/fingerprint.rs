//! Comparison of layout fingerprints.

use crate::rpc::Fingerprint;

/// Why two processes must not exchange pages.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{field} differs: ours is {ours}, theirs is {theirs}")]
pub struct Mismatch {
    pub field: &'static str,
    pub ours: String,
    pub theirs: String,
}

impl Fingerprint {
    /// Bytes that differ whenever any field differs.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(160);
        for (name, value) in self.fields() {
            for part in [name.as_bytes(), value.as_bytes()] {
                bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
                bytes.extend_from_slice(part);
            }
        }
        bytes
    }

    /// The first field in which the two differ.
    pub fn check(&self, theirs: &Self) -> Result<(), Mismatch> {
        match self.fields().into_iter().zip(theirs.fields()).find(|(a, b)| a.1 != b.1) {
            None => Ok(()),
            Some(((field, ours), (_, theirs))) => Err(Mismatch { field, ours, theirs }),
        }
    }

    /// Bytes of one token's KV over all layers: layers × 2 × heads × dim × element size.
    pub fn token_bytes(&self) -> usize {
        let element = if self.kv_dtype == "f32" { 4 } else { 2 };
        self.layers as usize * 2 * self.kv_heads as usize * self.head_dim as usize * element
    }

    fn fields(&self) -> [(&'static str, String); 8] {
        let Self { protocol, model_digest, layers, kv_heads, head_dim, page_tokens, kv_dtype, numerics } =
            self;
        [
            ("protocol", protocol.to_string()),
            ("model digest", model_digest.clone()),
            ("layers", layers.to_string()),
            ("kv heads", kv_heads.to_string()),
            ("head dim", head_dim.to_string()),
            ("page tokens", page_tokens.to_string()),
            ("kv dtype", kv_dtype.clone()),
            ("numerics", numerics.clone()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_names_the_field_and_both_values() {
        let ours = Fingerprint { layers: 30, kv_dtype: "f16".into(), ..Default::default() };
        let theirs = Fingerprint { kv_dtype: "f32".into(), ..ours.clone() };
        let error = ours.check(&theirs).expect_err("dtype differs");
        assert_eq!(error.to_string(), "kv dtype differs: ours is f16, theirs is f32");
        assert_eq!(ours.check(&ours), Ok(()));
    }
}
