//! Content addresses of KV pages.
//!
//! A key covers the page's tokens, every page before it, and all that changes KV values: the layout
//! fingerprint and the tenant's salt. Keys are keyed hashes (BLAKE3, 128 bits kept), so nobody outside
//! the fleet can construct a collision or probe for another tenant's prompt by hashing it.

use crate::{FleetSecret, rpc::Fingerprint};

/// Address of one full page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageKey(pub [u8; 16]);

impl std::fmt::Debug for PageKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl TryFrom<&[u8]> for PageKey {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self)
    }
}

/// Makes the keys of one (fleet, fingerprint, tenant).
#[derive(Clone, Debug)]
pub struct PageKeyer {
    key: [u8; 32],
    page_tokens: usize,
}

impl PageKeyer {
    pub fn new(secret: &FleetSecret, fingerprint: &Fingerprint, tenant_salt: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&secret.page_key());
        hasher.update(&fingerprint.canonical_bytes());
        hasher.update(&(tenant_salt.len() as u64).to_le_bytes());
        hasher.update(tenant_salt);
        Self { key: *hasher.finalize().as_bytes(), page_tokens: fingerprint.page_tokens as usize }
    }

    /// Tokens in a page.
    pub fn page_tokens(&self) -> usize {
        self.page_tokens
    }

    /// Key of the page that follows `parent` and holds `tokens` (exactly one page of them).
    pub fn next(&self, parent: Option<PageKey>, tokens: &[u32]) -> PageKey {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&parent.map_or([0; 16], |key| key.0));
        for token in tokens {
            hasher.update(&token.to_le_bytes());
        }
        let mut key = [0; 16];
        key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        PageKey(key)
    }

    /// Keys of every full page of `tokens`, in order.
    pub fn chain(&self, tokens: &[u32]) -> Vec<PageKey> {
        let mut parent = None;
        tokens
            .chunks_exact(self.page_tokens.max(1))
            .map(|page| {
                let key = self.next(parent, page);
                parent = Some(key);
                key
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyer(salt: &[u8], digest: &str) -> PageKeyer {
        let fingerprint = Fingerprint { model_digest: digest.into(), page_tokens: 4, ..Default::default() };
        PageKeyer::new(&FleetSecret::from_bytes([7; 32]), &fingerprint, salt)
    }

    #[test]
    fn equal_prefixes_share_keys_until_they_differ() {
        let keyer = keyer(b"", "a");
        let (one, two) = (keyer.chain(&[1, 2, 3, 4, 5, 6, 7, 8]), keyer.chain(&[1, 2, 3, 4, 5, 6, 7, 9, 1]));
        assert_eq!(one[0], two[0]);
        assert_ne!(one[1], two[1]);
        assert_eq!(two.len(), 2, "a partial page has no key");
    }

    #[test]
    fn the_same_page_after_another_parent_has_another_key() {
        let keyer = keyer(b"", "a");
        assert_ne!(keyer.chain(&[1, 1, 1, 1, 5, 5, 5, 5])[1], keyer.chain(&[2, 2, 2, 2, 5, 5, 5, 5])[1]);
    }

    #[test]
    fn tenants_and_models_never_share_a_key() {
        let tokens = [1, 2, 3, 4];
        let base = keyer(b"", "a").chain(&tokens);
        assert_ne!(base, keyer(b"tenant", "a").chain(&tokens));
        assert_ne!(base, keyer(b"", "b").chain(&tokens));
    }
}
