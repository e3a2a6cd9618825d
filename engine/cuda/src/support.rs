//! What a model must be like for the kernels to run it.

use shoal_checkpoint::ModelConfig;

use crate::LoadError;

/// Refuses shapes that no kernel was built for, by the field's name.
pub(crate) fn check(config: &ModelConfig) -> Result<(), LoadError> {
    let ModelConfig { hidden, heads, kv_heads, head_dim, ffn, .. } = *config;
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return unsupported("number of kv heads", kv_heads, "divisors of the number of heads");
    }
    if ![64, 128].contains(&head_dim) {
        return unsupported("head size", head_dim, "64 and 128");
    }
    for (field, found) in [("hidden size", hidden), ("feed-forward size", ffn)] {
        if !found.is_multiple_of(8) {
            return unsupported(field, found, "multiples of 8");
        }
    }
    Ok(())
}

fn unsupported(field: &'static str, found: usize, allowed: &'static str) -> Result<(), LoadError> {
    Err(LoadError::Unsupported { field, found, allowed })
}
