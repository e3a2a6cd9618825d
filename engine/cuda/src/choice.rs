//! Which of two ways a product goes: through the matrix library, or by the kernel for few tokens, which also
//! does what follows the product.

use std::collections::HashSet;

use shoal_kernels::skinny_fits;

use crate::profile::Part;

/// How products of few tokens are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Products {
    /// By the kernel where it fits, but for shapes where [`CudaModel::prepare`](crate::CudaModel::prepare)
    /// measured the library to be faster.
    #[default]
    Fastest,
    /// All through the library.
    Library,
}

#[derive(Debug)]
pub(crate) struct Choices {
    products: Products,
    /// Parts and rows for which the library was faster.
    library: HashSet<(Part, usize)>,
}

impl Choices {
    pub(crate) fn new(products: Products) -> Self {
        Self { products, library: HashSet::new() }
    }

    /// Whether the kernel can and may run `rows` of a part.
    pub(crate) fn possible(&self, rows: usize, outputs: usize, inputs: usize) -> bool {
        self.products == Products::Fastest && skinny_fits(rows, outputs, inputs)
    }

    pub(crate) fn skinny(&self, part: Part, rows: usize, outputs: usize, inputs: usize) -> bool {
        self.possible(rows, outputs, inputs) && !self.library.contains(&(part, rows))
    }

    pub(crate) fn record(&mut self, part: Part, rows: usize, library_is_faster: bool) {
        if library_is_faster {
            self.library.insert((part, rows));
        } else {
            self.library.remove(&(part, rows));
        }
    }
}
