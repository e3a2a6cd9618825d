//! The choice of an algorithm by trying them.
#![allow(unsafe_code)]

use cudarc::driver::CudaEvent;
use cudarc::driver::sys::CUevent_flags;
use half::bf16;

use super::plan::{Operands, Plan};
use super::{Gemm, Product, ProductElement, shape};
use crate::launch::LaunchError;
use crate::queue::Queue;
use crate::view::{Rows, RowsMut};

/// Algorithms asked of the library.
const CANDIDATES: usize = 16;

impl Gemm {
    /// Times the library's algorithms for a product's shape and keeps the fastest.
    ///
    /// `weights` are matrices of one shape that take turns, so that each product reads its weight from
    /// memory as it does in a model. What `out` held is lost.
    pub fn tune<T: ProductElement>(
        &mut self,
        queue: &Queue,
        product: Product<'_>,
        weights: &[Rows<'_, bf16>],
        out: &mut RowsMut<'_, T>,
    ) -> Result<(), LaunchError> {
        let shape = shape::<T>(&product, out.view)?;
        if shape.tokens == 0 {
            return Ok(());
        }
        let mut plan = Plan::new(self.handle, shape)?;
        let operands: Vec<_> = weights
            .iter()
            .filter(|weight| (weight.rows, weight.columns) == (shape.outputs, shape.inputs))
            .map(|weight| Operands {
                weight: weight.address,
                x: product.x.address,
                out: out.view.address,
                bias: product.bias.map_or(0, |bias| bias.address),
            })
            .collect();
        let mut best = (f32::INFINITY, plan.algorithm);
        for algorithm in plan.algorithms(self.handle, CANDIDATES)? {
            plan.algorithm = algorithm;
            let time = self.time(queue, &mut plan, &operands)?;
            if time < best.0 {
                best = (time, algorithm);
            }
        }
        plan.algorithm = best.1;
        self.plans.insert(shape, plan);
        Ok(())
    }

    /// Milliseconds of one turn through the weights, the better of two after one to warm up.
    fn time(&self, queue: &Queue, plan: &mut Plan, operands: &[Operands]) -> Result<f32, LaunchError> {
        let driver = LaunchError::driver("timing a product");
        let flags = CUevent_flags::CU_EVENT_DEFAULT;
        let event = || -> Result<CudaEvent, LaunchError> {
            queue.stream().context().new_event(Some(flags)).map_err(&driver)
        };
        let (begin, end) = (event()?, event()?);
        let mut best = f32::INFINITY;
        for turn in 0..3 {
            begin.record(queue.stream()).map_err(&driver)?;
            for operands in operands {
                // SAFETY: `tune` has checked the shape of every weight against the plan's.
                unsafe { plan.run(self.handle, queue, *operands, &self.workspace) }?;
            }
            end.record(queue.stream()).map_err(&driver)?;
            end.synchronize().map_err(&driver)?;
            let time = begin.elapsed_ms(&end).map_err(&driver)?;
            best = if turn == 0 { best } else { best.min(time) };
        }
        Ok(best)
    }
}
