//! The library's description of one product and the algorithm chosen for it.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::mem::MaybeUninit;

use cudarc::cublaslt::{result, sys};

use super::WORKSPACE_BYTES;
use crate::launch::LaunchError;
use crate::memory::Buffer;
use crate::queue::Queue;

/// What a plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) tokens: usize,
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    /// f32 instead of bf16.
    pub(super) wide: bool,
    pub(super) bias: bool,
    pub(super) add: bool,
}

/// Device addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operands {
    pub(super) weight: u64,
    pub(super) x: u64,
    pub(super) out: u64,
    /// 0 where the plan has none.
    pub(super) bias: u64,
}

/// The library sees matrices column by column: out = weightᵀ · x.
pub(super) struct Plan {
    shape: Shape,
    operation: sys::cublasLtMatmulDesc_t,
    weight: sys::cublasLtMatrixLayout_t,
    x: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
    pub(super) algorithm: sys::cublasLtMatmulAlgo_t,
}

pub(super) fn library(action: &'static str) -> impl Fn(result::CublasError) -> LaunchError {
    move |source| LaunchError::Library { action, source }
}

impl Plan {
    /// With the algorithm that the library puts first.
    pub(super) fn new(handle: sys::cublasLtHandle_t, shape: Shape) -> Result<Self, LaunchError> {
        let (m, n, k) = (shape.outputs as u64, shape.tokens as u64, shape.inputs as u64);
        let half = sys::cudaDataType_t::CUDA_R_16BF;
        let stored = if shape.wide { sys::cudaDataType_t::CUDA_R_32F } else { half };
        let create = library("describing a product");
        let operation = result::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType_t::CUDA_R_32F,
        )
        .map_err(&create)?;
        let layout = |kind, rows, columns| {
            result::create_matrix_layout(kind, rows, columns, rows as i64).map_err(&create)
        };
        let mut plan = Self {
            shape,
            operation,
            weight: layout(half, k, m)?,
            x: layout(half, k, n)?,
            out: layout(stored, m, n)?,
            algorithm: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
        };
        // The library's `CUBLAS_OP_T`, which the bindings of this half do not name.
        plan.set(sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA, &1_i32)?;
        if shape.bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
            plan.set(sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            plan.set(sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &half)?;
        }
        plan.algorithm = *plan.algorithms(handle, 1)?.first().ok_or_else(|| LaunchError::Shape {
            kernel: "product",
            problem: format!("the matrix library has no algorithm for {shape:?}"),
        })?;
        Ok(plan)
    }

    fn set<T>(
        &mut self,
        attribute: sys::cublasLtMatmulDescAttributes_t,
        value: &T,
    ) -> Result<(), LaunchError> {
        // SAFETY: each caller passes a value of the type that the library reads for the attribute.
        unsafe {
            result::set_matmul_desc_attribute(
                self.operation,
                attribute,
                std::ptr::from_ref(value).cast(),
                size_of::<T>(),
            )
        }
        .map_err(library("describing a product"))
    }

    /// At most `most` algorithms that can run this, the most promising first.
    pub(super) fn algorithms(
        &self,
        handle: sys::cublasLtHandle_t,
        most: usize,
    ) -> Result<Vec<sys::cublasLtMatmulAlgo_t>, LaunchError> {
        let choose = library("choosing an algorithm");
        let preference = result::create_matmul_pref().map_err(&choose)?;
        let mut found = vec![MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit(); most];
        let mut count = 0;
        let workspace = WORKSPACE_BYTES as u64;
        // SAFETY: the attribute is a u64; the array has room for the number asked for, of which `count` are
        // written; the preference is destroyed once, after its last use.
        let found = unsafe {
            let set = result::set_matmul_pref_attribute(
                preference,
                sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const workspace).cast(),
                size_of_val(&workspace),
            );
            // Parts of a sum meet in f32, never in bf16.
            let schemes = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
            let set = set.and_then(|()| {
                result::set_matmul_pref_attribute(
                    preference,
                    sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                    (&raw const schemes).cast(),
                    size_of_val(&schemes),
                )
            });
            let asked = sys::cublasLtMatmulAlgoGetHeuristic(
                handle,
                self.operation,
                self.weight,
                self.x,
                self.out,
                self.out,
                preference,
                most as i32,
                found.as_mut_ptr().cast(),
                &raw mut count,
            );
            let _ = result::destroy_matmul_pref(preference);
            set.map_err(&choose)?;
            asked.result().map_err(&choose)?;
            found[..(count as usize).min(most)].iter().map(|found| found.assume_init()).collect::<Vec<_>>()
        };
        let works = |found: &&sys::cublasLtMatmulHeuristicResult_t| {
            found.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS
        };
        Ok(found.iter().filter(works).map(|found| found.algo).collect())
    }

    /// # Safety
    /// The addresses hold dense matrices of the plan's shape until the queue has run the product, and
    /// nothing else uses the workspace meanwhile.
    pub(super) unsafe fn run(
        &mut self,
        handle: sys::cublasLtHandle_t,
        queue: &Queue,
        operands: Operands,
        workspace: &Buffer<u32>,
    ) -> Result<(), LaunchError> {
        let Operands { weight, x, out, bias } = operands;
        if self.shape.bias {
            self.set(sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias)?;
        }
        let (one, keep) = (1.0_f32, f32::from(u8::from(self.shape.add)));
        let address = |address: u64| std::ptr::with_exposed_provenance_mut::<c_void>(address as usize);
        // SAFETY: as the caller promises; the factors are read during the call.
        unsafe {
            result::matmul(
                handle,
                self.operation,
                (&raw const one).cast(),
                (&raw const keep).cast(),
                address(weight),
                self.weight,
                address(x),
                self.x,
                address(out),
                self.out,
                address(out),
                self.out,
                &raw const self.algorithm,
                address(workspace.address()),
                WORKSPACE_BYTES,
                queue.stream().cu_stream().cast(),
            )
        }
        .map_err(library("multiplying"))
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: each was created by `new` and is destroyed once.
        unsafe {
            let _ = result::destroy_matmul_desc(self.operation);
            for layout in [self.weight, self.x, self.out] {
                let _ = result::destroy_matrix_layout(layout);
            }
        }
    }
}
