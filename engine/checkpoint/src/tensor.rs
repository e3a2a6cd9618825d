//! A tensor as it lies in the file.

use crate::error::Problem;

/// Storage format of a tensor. Block formats follow GGML's layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    F32,
    F16,
    BF16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q4K,
    Q5K,
    Q6K,
}

impl DType {
    /// Elements per block and bytes per block.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::BF16 => (1, 2),
            Self::Q8_0 => (32, 34),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
        }
    }

    /// Bytes of a row-major tensor. Refuses empty ones, rows that are not whole blocks, and overflow.
    pub(crate) fn byte_size(self, shape: &[u64]) -> Result<u64, Problem> {
        const MAX_RANK: usize = 8;
        if shape.len() > MAX_RANK {
            return Err(Problem::not_allowed(format_args!("of {} dimensions", shape.len()), "at most 8"));
        }
        let (elements, bytes) = self.block();
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(elements as u64) {
            let allowed = format!("multiples of {elements} for {self:?}");
            return Err(Problem::not_allowed(format_args!("of rows of {row} elements"), allowed));
        }
        let count = shape.iter().try_fold(1u64, |product, &dimension| product.checked_mul(dimension));
        match count.and_then(|count| (count / elements as u64).checked_mul(bytes as u64)) {
            Some(size) if size > 0 => Ok(size),
            _ => Err(Problem::not_allowed(
                format_args!("of shape {shape:?}"),
                "sizes that are positive and fit",
            )),
        }
    }
}

/// A view into the mapped file. `shape` is row-major: the last dimension is contiguous.
#[derive(Debug, Clone)]
pub struct TensorView<'a> {
    pub name: &'a str,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub bytes: &'a [u8],
}
