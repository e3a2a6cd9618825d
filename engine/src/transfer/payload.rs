//! A page that is not full travels as the valid tokens of each (head, layer, K|V) run, in layout order.

use shoal_model::KvGeometry;

/// Appends the first `tokens` tokens of every run of `page` to `out`.
pub(super) fn gather(geometry: &KvGeometry, page: &[u8], tokens: usize, out: &mut Vec<u8>) {
    let valid = tokens * geometry.head_dim * geometry.dtype.bytes();
    for run in page.chunks_exact(geometry.run_bytes()) {
        out.extend_from_slice(&run[..valid]);
    }
}

/// The reverse of [`gather`]: `payload` holds `tokens` tokens of every run.
pub(super) fn scatter(geometry: &KvGeometry, payload: &[u8], tokens: usize, page: &mut [u8]) {
    let valid = tokens * geometry.head_dim * geometry.dtype.bytes();
    for (run, part) in page.chunks_exact_mut(geometry.run_bytes()).zip(payload.chunks_exact(valid)) {
        run[..valid].copy_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_model::KvDtype;

    use super::*;

    proptest! {
        #[test]
        fn the_valid_tokens_of_a_page_arrive_and_the_rest_is_untouched(
            heads in 1..4_usize, layers in 1..4_usize, tokens in 1..=8_usize, seed: u8,
        ) {
            let geometry = KvGeometry {
                layers, kv_heads: heads, head_dim: 4, page_tokens: 8, dtype: KvDtype::F16,
            };
            let page: Vec<u8> = (0..geometry.page_bytes()).map(|i| (i as u8).wrapping_add(seed)).collect();
            let mut payload = Vec::new();
            gather(&geometry, &page, tokens, &mut payload);
            prop_assert_eq!(payload.len(), tokens * geometry.token_bytes());
            let mut arrived = vec![0xAA; page.len()];
            scatter(&geometry, &payload, tokens, &mut arrived);
            let valid = tokens * geometry.head_dim * 2;
            for (run, original) in arrived.chunks(geometry.run_bytes()).zip(page.chunks(geometry.run_bytes())) {
                prop_assert_eq!(&run[..valid], &original[..valid]);
                prop_assert!(run[valid..].iter().all(|byte| *byte == 0xAA));
            }
        }
    }
}
