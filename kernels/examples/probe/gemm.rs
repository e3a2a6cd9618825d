//! bf16 matrix products of Llama-8B's shapes through cuBLASLt: what the library reaches.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::mem::MaybeUninit;

use cudarc::cublaslt::{result, sys};
use half::bf16;
use serde_json::{Value, json};
use shoal_kernels::{Buffer, Queue, probe};

use crate::{Outcome, timing};

/// Name, outputs, inputs.
const SHAPES: [(&str, usize, usize); 6] = [
    ("qkv", 6144, 4096),
    ("o", 4096, 4096),
    ("gate_up", 28672, 4096),
    ("down", 4096, 14336),
    ("head", 128_256, 4096),
    ("square", 8192, 8192),
];
const TOKENS: [usize; 8] = [1, 8, 32, 64, 128, 256, 1024, 4096];
const WORKSPACE: usize = 32 << 20;
const ALGORITHMS: usize = 8;
/// Weights are rotated so that each product reads them from memory.
const ROTATED_BYTES: usize = 512 << 20;

pub(crate) fn measure(queue: &Queue) -> Outcome<Value> {
    // SAFETY: only tries to load the library.
    if !unsafe { sys::is_culib_present() } {
        return Err("libcublasLt is not installed".into());
    }
    let handle = result::create_handle()?;
    let workspace = Buffer::<u32>::new(queue.gpu(), WORKSPACE / 4)?;
    let mut rows = Vec::new();
    for (name, outputs, inputs) in SHAPES {
        let copies = (ROTATED_BYTES / (outputs * inputs * 2)).max(1);
        let mut weights = Buffer::<bf16>::new(queue.gpu(), copies * outputs * inputs)?;
        probe::fill_random(queue, &mut weights, 2, 0.05)?;
        for tokens in TOKENS.into_iter().chain((name == "square").then_some(8192)) {
            let case =
                Case { handle, tokens, outputs, inputs, copies, weights: &weights, workspace: &workspace };
            let mut row = case.time(queue)?;
            row["shape"] = name.into();
            rows.push(row);
        }
    }
    // SAFETY: created above; every product has been waited for.
    unsafe { result::destroy_handle(handle) }?;
    Ok(Value::Array(rows))
}

struct Case<'a> {
    handle: sys::cublasLtHandle_t,
    tokens: usize,
    outputs: usize,
    inputs: usize,
    copies: usize,
    weights: &'a Buffer<bf16>,
    workspace: &'a Buffer<u32>,
}

/// Descriptors of `out[tokens][outputs] = x[tokens][inputs] · weight[outputs][inputs]ᵀ`, which the library
/// sees column by column: out = weightᵀ · x.
struct Plan {
    operation: sys::cublasLtMatmulDesc_t,
    weight: sys::cublasLtMatrixLayout_t,
    x: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
    preference: sys::cublasLtMatmulPreference_t,
}

impl Plan {
    fn new(case: &Case<'_>) -> Outcome<Self> {
        let (m, n, k) = (case.outputs as u64, case.tokens as u64, case.inputs as u64);
        let half = sys::cudaDataType_t::CUDA_R_16BF;
        let operation = result::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType_t::CUDA_R_32F,
        )?;
        // The library's `CUBLAS_OP_T`, which the bindings of this half do not name.
        let transposed = 1_i32;
        let preference = result::create_matmul_pref()?;
        // SAFETY: each attribute is read as the type and size given here.
        unsafe {
            result::set_matmul_desc_attribute(
                operation,
                sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
                (&raw const transposed).cast(),
                size_of_val(&transposed),
            )?;
            result::set_matmul_pref_attribute(
                preference,
                sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const WORKSPACE_BYTES).cast(),
                size_of_val(&WORKSPACE_BYTES),
            )?;
        }
        Ok(Self {
            operation,
            weight: result::create_matrix_layout(half, k, m, k as i64)?,
            x: result::create_matrix_layout(half, k, n, k as i64)?,
            out: result::create_matrix_layout(half, m, n, m as i64)?,
            preference,
        })
    }

    fn algorithms(&self, handle: sys::cublasLtHandle_t) -> Outcome<Vec<sys::cublasLtMatmulAlgo_t>> {
        let mut found = [const { MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit() }; ALGORITHMS];
        let mut count = 0;
        // SAFETY: the array has room for the number asked for, and `count` of them are written.
        let found = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                handle,
                self.operation,
                self.weight,
                self.x,
                self.out,
                self.out,
                self.preference,
                ALGORITHMS as i32,
                found.as_mut_ptr().cast(),
                &raw mut count,
            )
            .result()?;
            std::slice::from_raw_parts(
                found.as_ptr().cast::<sys::cublasLtMatmulHeuristicResult_t>(),
                count as usize,
            )
        };
        Ok(found
            .iter()
            .filter(|found| found.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS)
            .map(|found| found.algo)
            .collect())
    }
}

static WORKSPACE_BYTES: u64 = WORKSPACE as u64;

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: each was created by `new` and is destroyed once.
        unsafe {
            let _ = result::destroy_matmul_desc(self.operation);
            let _ = result::destroy_matmul_pref(self.preference);
            for layout in [self.weight, self.x, self.out] {
                let _ = result::destroy_matrix_layout(layout);
            }
        }
    }
}

impl Case<'_> {
    fn time(&self, queue: &Queue) -> Outcome<Value> {
        let mut x = Buffer::<bf16>::new(queue.gpu(), self.tokens * self.inputs)?;
        probe::fill_random(queue, &mut x, 3, 1.0)?;
        let out = Buffer::<bf16>::new(queue.gpu(), self.tokens * self.outputs)?;
        let plan = Plan::new(self)?;
        let mut times = Vec::new();
        for algorithm in plan.algorithms(self.handle)? {
            let mut turn = 0;
            let measured = timing::repeat(queue, 11, || {
                turn = (turn + 1) % self.copies;
                self.run(queue, &plan, &algorithm, [self.weight_address(turn), x.address(), out.address()])
            })?;
            times.push(measured.median_ms);
        }
        let best = times.iter().copied().fold(f64::INFINITY, f64::min);
        let (m, n, k) = (self.outputs as f64, self.tokens as f64, self.inputs as f64);
        Ok(json!({
            "shape": null, "tokens": self.tokens, "outputs": self.outputs, "inputs": self.inputs,
            "algorithms": times.len(),
            "us_first": times.first().map(|ms| ms * 1e3),
            "us_best": best * 1e3,
            "tflop_per_s": 2.0 * m * n * k / best / 1e9,
            "gb_per_s": (m * k + n * k + m * n) * 2.0 / best / 1e6,
        }))
    }

    fn weight_address(&self, turn: usize) -> u64 {
        self.weights.address() + (turn * self.outputs * self.inputs * 2) as u64
    }

    fn run(
        &self,
        queue: &Queue,
        plan: &Plan,
        algorithm: &sys::cublasLtMatmulAlgo_t,
        [weight, x, out]: [u64; 3],
    ) -> Outcome<()> {
        let (one, zero) = (1.0_f32, 0.0_f32);
        let address = |address: u64| std::ptr::with_exposed_provenance::<c_void>(address as usize);
        // SAFETY: the layouts describe the three buffers, which outlive the wait that ends each timing.
        unsafe {
            result::matmul(
                self.handle,
                plan.operation,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                address(weight),
                plan.weight,
                address(x),
                plan.x,
                address(out),
                plan.out,
                address(out).cast_mut(),
                plan.out,
                algorithm,
                address(self.workspace.address()).cast_mut(),
                WORKSPACE,
                queue.stream().cu_stream().cast(),
            )?;
        }
        Ok(())
    }
}
