//! Bounded little-endian reads. Nothing is returned that does not lie in the file.

use crate::error::Problem;

/// Longest key, name or metadata string; the largest known chat templates are a hundredth of it.
const MAX_STRING: u64 = 16 << 20;

#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Offset from the start of the bytes.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn take(&mut self, count: u64) -> Result<&'a [u8], Problem> {
        let left = (self.bytes.len() - self.at) as u64;
        if count > left {
            return Err(Problem::Cut { needed: count, left });
        }
        let start = self.at;
        self.at += count as usize;
        Ok(&self.bytes[start..self.at])
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Problem> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Problem> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn string(&mut self) -> Result<&'a str, Problem> {
        let length = self.u64()?;
        if length > MAX_STRING {
            return Err(Problem::not_allowed(format_args!("{length} bytes long"), "at most 16 MiB"));
        }
        std::str::from_utf8(self.take(length)?).map_err(|_| Problem::NotUtf8)
    }
}
