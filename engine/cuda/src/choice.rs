//! Which of two ways a product goes: through the matrix library, or by the kernel for few tokens, which also
//! does what follows the product.

use std::collections::HashMap;

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

/// What a product alone does not show: what it does to the launches around it. The kernels for up to 16 tokens keep the
/// chain of early launches whole, which the library's break: on an H200 a step of one token took 4.18 ms with all
/// products by kernels and 4.42 ms with gate and up by the library, which alone had been 1 % faster there. The kernels
/// for more tokens lose beside others what they win alone: with all products by them, each alone as fast as the library's
/// or faster, a step of 32 tokens took 6.00 ms instead of 5.61.
fn handicap(rows: usize) -> f64 {
    if rows <= 16 { 1.05 } else { 0.9 }
}

/// Time of one product, with what the kernel does beside it done by others for the library.
#[derive(Debug, Clone, Copy)]
pub struct Ways {
    pub library_us: f64,
    pub kernel_us: f64,
}

#[derive(Debug)]
pub(crate) struct Choices {
    products: Products,
    measured: HashMap<(Part, usize), Ways>,
}

impl Choices {
    pub(crate) fn new(products: Products) -> Self {
        Self { products, measured: HashMap::new() }
    }

    /// Whether the kernel can and may run `rows` of a part.
    pub(crate) fn possible(&self, rows: usize, outputs: usize, inputs: usize) -> bool {
        self.products == Products::Fastest && skinny_fits(rows, outputs, inputs)
    }

    pub(crate) fn skinny(&self, part: Part, rows: usize, outputs: usize, inputs: usize) -> bool {
        let faster = |ways: &Ways| ways.kernel_us <= ways.library_us * handicap(rows);
        self.possible(rows, outputs, inputs) && self.measured.get(&(part, rows)).is_none_or(faster)
    }

    pub(crate) fn record(&mut self, part: Part, rows: usize, ways: Ways) {
        self.measured.insert((part, rows), ways);
    }

    pub(crate) fn measured(&self) -> Vec<(Part, usize, Ways)> {
        let mut all: Vec<_> =
            self.measured.iter().map(|((part, rows), ways)| (*part, *rows, *ways)).collect();
        all.sort_by_key(|(part, rows, _)| (*rows, *part as usize));
        all
    }
}
