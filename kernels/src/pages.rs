//! Paged keys and values: `[page][kv_head][layer][K|V][token][dim]`, and the table of a batch's pages.

use half::{bf16, f16};

use crate::launch::{LaunchError, require};
use crate::memory::{Buffer, Element};
use crate::view::Rows;

/// Tokens in a page.
pub const PAGE_TOKENS: usize = 64;

mod sealed {
    pub trait Sealed {}
    impl Sealed for half::bf16 {}
    impl Sealed for half::f16 {}
}

/// What keys and values are stored as.
pub trait KvElement: Element + sealed::Sealed {
    /// Place among the kernels of each kind: bf16, f16.
    #[doc(hidden)]
    const VARIANT: usize;
}

impl KvElement for bf16 {
    const VARIANT: usize = 0;
}

impl KvElement for f16 {
    const VARIANT: usize = 1;
}

/// All pages of a model on one device.
#[derive(Debug)]
pub struct KvPages<T> {
    buffer: Buffer<T>,
    pages: usize,
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct PagesParams {
    base: u64,
    count: u32,
    kv_heads: u32,
    layers: u32,
    layer: u32,
}

impl<T: KvElement> KvPages<T> {
    /// Elements of one page.
    pub const fn page_elements(layers: usize, kv_heads: usize, head_dim: usize) -> usize {
        kv_heads * layers * 2 * PAGE_TOKENS * head_dim
    }

    /// Takes a buffer of whole pages; shape is `[layers, kv_heads, head_dim]`.
    pub fn new(buffer: Buffer<T>, [layers, kv_heads, head_dim]: [usize; 3]) -> Result<Self, LaunchError> {
        let page = Self::page_elements(layers, kv_heads, head_dim);
        require("pages", page > 0 && buffer.len().is_multiple_of(page), || {
            format!("{} elements are no whole number of pages of {page}", buffer.len())
        })?;
        let pages = buffer.len() / page;
        // Slots are 32-bit, and the last page's number stays free for "no slot".
        require("pages", pages < (u32::MAX as usize) / PAGE_TOKENS, || {
            format!("{pages} pages are too many")
        })?;
        Ok(Self { buffer, pages, layers, kv_heads, head_dim })
    }

    pub fn buffer(&self) -> &Buffer<T> {
        &self.buffer
    }

    pub fn buffer_mut(&mut self) -> &mut Buffer<T> {
        &mut self.buffer
    }

    pub fn pages(&self) -> usize {
        self.pages
    }

    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// First element of one head's keys (`part` 0) or values (1) of a page and layer.
    pub fn run(&self, page: usize, kv_head: usize, layer: usize, part: usize) -> usize {
        (((page * self.kv_heads + kv_head) * self.layers + layer) * 2 + part) * PAGE_TOKENS * self.head_dim
    }

    pub(crate) fn params(&self, kernel: &'static str, layer: usize) -> Result<PagesParams, LaunchError> {
        require(kernel, layer < self.layers, || format!("layer {layer} of {}", self.layers))?;
        Ok(PagesParams {
            base: self.buffer.address(),
            count: self.pages as u32,
            kv_heads: self.kv_heads as u32,
            layers: self.layers as u32,
            layer: layer as u32,
        })
    }
}

/// Which pages each sequence of a batch has, in token order, and how many tokens are in them.
///
/// A page number past the arena stops the kernel with an error that ends the process; a length past the
/// row's pages is cut.
#[derive(Debug, Clone, Copy)]
pub struct PageTable<'a> {
    /// `[batch][pages]`; entries past a sequence's length are not read.
    pub pages: Rows<'a, u32>,
    /// `[1][batch]`.
    pub lengths: Rows<'a, u32>,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageTableParams {
    page: u64,
    length: u64,
    stride: u64,
    columns: u32,
    padding: u32,
}

impl PageTable<'_> {
    /// Sequences in it.
    pub fn batch(&self) -> usize {
        self.pages.rows
    }

    pub(crate) fn params(&self, kernel: &'static str) -> Result<PageTableParams, LaunchError> {
        let Self { pages, lengths } = self;
        require(kernel, lengths.rows == 1 && lengths.columns == pages.rows, || {
            format!("{} x {} lengths for {} rows of pages", lengths.rows, lengths.columns, pages.rows)
        })?;
        require(kernel, pages.columns < (i32::MAX as usize) / PAGE_TOKENS, || {
            format!("{} pages in a row are too many", pages.columns)
        })?;
        Ok(PageTableParams {
            page: pages.address,
            length: lengths.address,
            stride: pages.stride as u64,
            columns: pages.columns as u32,
            padding: 0,
        })
    }
}
