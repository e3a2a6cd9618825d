//! Views of device buffers as rows with a stride, checked once against the buffer's length.

use std::marker::PhantomData;

use crate::launch::{LaunchError, require};

/// `rows` rows of `columns` elements, `stride` elements from one row's start to the next.
#[derive(Debug)]
#[allow(clippy::struct_field_names, reason = "a matrix has rows")]
pub struct Rows<'a, T> {
    pub(crate) address: u64,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) stride: usize,
    buffer: PhantomData<&'a T>,
}

impl<T> Clone for Rows<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Rows<'_, T> {}

impl<T> Rows<'_, T> {
    pub(crate) fn new(
        address: u64,
        len: usize,
        offset: usize,
        shape: [usize; 3],
    ) -> Result<Self, LaunchError> {
        let [rows, columns, stride] = shape;
        let end = rows.checked_sub(1).map_or(Some(0), |last| last.checked_mul(stride)?.checked_add(columns));
        let end = end.and_then(|end| end.checked_add(offset));
        require("view", columns <= stride && end.is_some_and(|end| end <= len), || {
            format!("{rows} rows of {columns}, {stride} apart, from {offset} do not fit {len} elements")
        })?;
        let address = address + (offset * size_of::<T>()) as u64;
        Ok(Self { address, rows, columns, stride, buffer: PhantomData })
    }

    /// How many rows.
    pub fn count(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Whether each row can be moved in 16-byte pieces.
    pub(crate) fn vectors(&self) -> bool {
        let bytes = size_of::<T>();
        self.address.is_multiple_of(16)
            && (self.stride * bytes).is_multiple_of(16)
            && (self.columns * bytes).is_multiple_of(16)
    }

    pub(crate) fn dense(&self) -> bool {
        self.stride == self.columns || self.rows <= 1
    }
}

/// As [`Rows`], for a kernel that writes: the buffer is borrowed exclusively.
#[derive(Debug)]
pub struct RowsMut<'a, T> {
    pub(crate) view: Rows<'a, T>,
    exclusive: PhantomData<&'a mut T>,
}

impl<'a, T> RowsMut<'a, T> {
    pub(crate) fn from_exclusive(view: Rows<'a, T>) -> Self {
        Self { view, exclusive: PhantomData }
    }

    /// As a kernel that reads takes it.
    pub fn rows(&self) -> Rows<'_, T> {
        self.view
    }
}
