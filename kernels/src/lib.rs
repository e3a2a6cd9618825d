//! CUDA kernels for one decoder step: compiled ahead of time, embedded, launched with checked shapes.
//!
//! ```text
//! cu/<family>/<op>.cu --nvcc--> cubin per architecture --> `table` --> [`Gpu::open`] --> [`Queue`]
//!                                                                        resolves every function once
//! caller: views of device buffers --> launcher (checks shapes, strides, alignment) --> cuLaunchKernelEx
//! ```
//!
//! Without a compiler the table is empty and [`Gpu::open`] says so; nothing here needs CUDA to build. Each
//! kernel has a reference in [`mod@reference`] that computes the same formula in f64.

mod activation;
mod advance;
mod argmax;
mod batched;
mod decode;
mod draw;
mod embedding;
mod gemm;
mod gpu;
mod launch;
mod memory;
mod norm;
mod pages;
mod pinned;
mod prefill;
pub mod probe;
mod queue;
pub mod reference;
mod rope;
mod skinny;
mod table;
mod tensor_map;
mod view;

pub use activation::silu_mul;
pub use advance::{Standing, advance};
pub use argmax::{ArgmaxScratch, Logits, argmax};
pub use decode::{Decode, decode_attention};
pub use draw::{Draws, draw};
pub use embedding::gather;
pub use gemm::{Gemm, Product, ProductElement};
pub use gpu::{Gpu, OpenError};
pub use launch::{ErrorClass, LaunchError};
pub use memory::{Buffer, Element};
pub use norm::{add_rmsnorm, rmsnorm};
pub use pages::{KvElement, KvPages, PAGE_TOKENS, PageTable};
pub use pinned::Pinned;
pub use prefill::{Prefill, prefill_attention};
pub use queue::{Chain, Graph, Mark, Queue};
pub use rope::{NO_SLOT, Pairing, QkRope, RopeTables, qk_rope_write};
pub use skinny::{SKINNY_TOKENS, SkinnyOut, skinny, skinny_fits};
pub use table::{BUILD, Unit, units};
pub use view::{Rows, RowsMut};
