//! Layout of a KV page: `[kv_head][layer][K|V][token][dim]`, contiguous.
//!
//! Head comes before layer so that a tensor-parallel rank owns one contiguous part of every page.

use std::ops::Range;

/// Element type of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvDtype {
    F16,
    Bf16,
    F32,
}

impl KvDtype {
    pub fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }

    /// Name in the layout fingerprint.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvPart {
    Key,
    Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvGeometry {
    pub layers: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub page_tokens: usize,
    pub dtype: KvDtype,
}

impl KvGeometry {
    /// Tokens in a page unless a test asks for fewer.
    pub const PAGE_TOKENS: usize = 64;

    /// Bytes of one token over all layers and heads.
    pub fn token_bytes(&self) -> usize {
        self.layers * 2 * self.kv_heads * self.head_dim * self.dtype.bytes()
    }

    pub fn page_bytes(&self) -> usize {
        self.token_bytes() * self.page_tokens
    }

    /// Runs of a page, each `page_tokens × head_dim` elements: one per (kv head, layer, K or V).
    pub fn runs(&self) -> usize {
        self.kv_heads * self.layers * 2
    }

    /// Bytes of one run.
    pub fn run_bytes(&self) -> usize {
        self.page_tokens * self.head_dim * self.dtype.bytes()
    }

    /// Byte range of one run within a page.
    pub fn run(&self, kv_head: usize, layer: usize, part: KvPart) -> Range<usize> {
        let index = (kv_head * self.layers + layer) * 2 + usize::from(part == KvPart::Value);
        let start = index * self.run_bytes();
        start..start + self.run_bytes()
    }

    /// Pages that hold `tokens` tokens.
    pub fn pages_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.page_tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_tile_the_page_in_layout_order() {
        let geometry =
            KvGeometry { layers: 3, kv_heads: 2, head_dim: 4, page_tokens: 8, dtype: KvDtype::F16 };
        let mut end = 0;
        for head in 0..2 {
            for layer in 0..3 {
                for part in [KvPart::Key, KvPart::Value] {
                    let run = geometry.run(head, layer, part);
                    assert_eq!(run.start, end);
                    end = run.end;
                }
            }
        }
        assert_eq!(end, geometry.page_bytes());
        assert_eq!(geometry.page_bytes(), 8 * geometry.token_bytes());
    }
}
