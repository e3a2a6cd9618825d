//! Matrix products through cuBLASLt. A plan (descriptors and algorithm) is made once per shape and kept:
//! a product then costs one library call, and can be captured into a graph.
#![allow(unsafe_code)]

mod plan;
mod tune;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use cudarc::cublaslt::{result, sys};
use half::bf16;

use crate::gpu::{Gpu, OpenError};
use crate::launch::{LaunchError, require};
use crate::memory::{Buffer, Element};
use crate::queue::Queue;
use crate::view::{Rows, RowsMut};
use plan::{Plan, Shape};

/// What the library may use beside its operands; Hopper's algorithms ask for up to this.
const WORKSPACE_BYTES: usize = 32 << 20;
/// The library picks algorithms for operands that begin at multiples of this.
const ALIGNMENT: u64 = 256;

/// What products are stored as: `bf16` or `f32`.
pub trait ProductElement: Element {
    #[doc(hidden)]
    const WIDE: bool;
}

impl ProductElement for bf16 {
    const WIDE: bool = false;
}

impl ProductElement for f32 {
    const WIDE: bool = true;
}

/// `out[tokens][outputs] = x[tokens][inputs] · weight[outputs][inputs]ᵀ`, all dense, sums in f32.
#[derive(Debug, Clone, Copy)]
pub struct Product<'a> {
    pub x: Rows<'a, bf16>,
    pub weight: Rows<'a, bf16>,
    /// `[1][outputs]`, added to each row.
    pub bias: Option<Rows<'a, bf16>>,
    /// Adds to what `out` holds instead of replacing it.
    pub add: bool,
}

/// The library, its workspace and the plans. One queue at a time: products share the workspace.
pub struct Gemm {
    gpu: Arc<Gpu>,
    handle: sys::cublasLtHandle_t,
    workspace: Buffer<u32>,
    plans: HashMap<Shape, Plan>,
}

// SAFETY: the handle may be used from any thread, and this value is its only user.
unsafe impl Send for Gemm {}

impl std::fmt::Debug for Gemm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gemm").field("plans", &self.plans.len()).finish_non_exhaustive()
    }
}

impl Gemm {
    /// Loads the library. Fails where it is not installed, and says what to do.
    pub fn new(gpu: &Arc<Gpu>) -> Result<Self, OpenError> {
        // SAFETY: only tries to load the library, whose initialisers are its own.
        if !unsafe { sys::is_culib_present() } {
            return Err(OpenError::NoBlas);
        }
        let memory = |source| OpenError::Memory { what: "the matrix library's workspace", source };
        gpu.context()
            .bind_to_thread()
            .map_err(|source| OpenError::Driver { action: "binding the context", source })?;
        let handle =
            result::create_handle().map_err(|source| OpenError::Blas { action: "starting it", source })?;
        let workspace = match Buffer::new(gpu, WORKSPACE_BYTES / 4) {
            Ok(workspace) => workspace,
            Err(error) => {
                // SAFETY: created above and used by nothing.
                let _ = unsafe { result::destroy_handle(handle) };
                return Err(memory(error));
            }
        };
        Ok(Self { gpu: Arc::clone(gpu), handle, workspace, plans: HashMap::new() })
    }

    /// Enqueues one product. The first of a shape takes the algorithm that the library puts first, unless
    /// [`Gemm::tune`] has chosen one.
    pub fn product<T: ProductElement>(
        &mut self,
        queue: &Queue,
        product: Product<'_>,
        out: &mut RowsMut<'_, T>,
    ) -> Result<(), LaunchError> {
        let shape = shape::<T>(&product, out.view)?;
        if shape.tokens == 0 {
            return Ok(());
        }
        let plan = match self.plans.entry(shape) {
            Entry::Occupied(plan) => plan.into_mut(),
            Entry::Vacant(place) => place.insert(Plan::new(self.handle, shape)?),
        };
        self.gpu.context().bind_to_thread().map_err(LaunchError::driver("binding the context"))?;
        let operands = plan::Operands {
            weight: product.weight.address,
            x: product.x.address,
            out: out.view.address,
            bias: product.bias.map_or(0, |bias| bias.address),
        };
        // SAFETY: `shape` has checked that the views are dense and of the plan's shape.
        unsafe { plan.run(self.handle, queue, operands, &self.workspace) }
    }
}

impl Drop for Gemm {
    fn drop(&mut self) {
        // The products that use the handle's memory have ended once the context is idle; a context that is
        // broken has nothing left to free.
        if self.gpu.context().synchronize().is_ok() {
            self.plans.clear();
            // SAFETY: created by `new` and destroyed once.
            let _ = unsafe { result::destroy_handle(self.handle) };
        }
    }
}

fn shape<T: ProductElement>(product: &Product<'_>, out: Rows<'_, T>) -> Result<Shape, LaunchError> {
    const KERNEL: &str = "product";
    let Product { x, weight, bias, add } = *product;
    require(
        KERNEL,
        x.rows == out.rows && x.columns == weight.columns && weight.rows == out.columns && x.columns > 0,
        || {
            format!(
                "{} x {} by {} x {} into {} x {}",
                x.rows, x.columns, weight.rows, weight.columns, out.rows, out.columns
            )
        },
    )?;
    require(KERNEL, x.dense() && weight.dense() && out.dense(), || "an operand is not dense".into())?;
    require(KERNEL, bias.is_none_or(|bias| (bias.rows, bias.columns) == (1, out.columns)), || {
        format!("a bias that is not of {} elements", out.columns)
    })?;
    let addresses = [x.address, weight.address, out.address, bias.map_or(0, |bias| bias.address)];
    require(KERNEL, addresses.iter().all(|address| address.is_multiple_of(ALIGNMENT)), || {
        format!("an operand does not begin at a multiple of {ALIGNMENT} bytes")
    })?;
    Ok(Shape {
        tokens: x.rows,
        outputs: out.columns,
        inputs: x.columns,
        wide: T::WIDE,
        bias: bias.is_some(),
        add,
    })
}
