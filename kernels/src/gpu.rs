//! A device that is ready: its context, and a handle of every kernel, resolved once.
#![allow(unsafe_code)]

use std::sync::Arc;

use cudarc::cublaslt::result::CublasError;
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, DriverError, result, sys};

use crate::launch::{ErrorClass, Function, LaunchError, Params};
use crate::table::{BUILD, units};
use crate::{
    activation, advance, argmax, batched, decode, draw, embedding, norm, prefill, probe, rope, skinny,
};

/// Why a device cannot be used. Found at start, never in the middle of a request.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("no GPU driver: libcuda cannot be loaded")]
    NoDriver,
    #[error("no GPU {ordinal}: the driver lists {count}")]
    NoDevice { ordinal: usize, count: i32 },
    #[error(
        "GPU {ordinal} ({name}) has compute capability {major}.{minor}, and no kernels are built for it ({BUILD})"
    )]
    Architecture { ordinal: usize, name: String, major: i32, minor: i32 },
    #[error(
        "kernel {kernel} takes {takes} bytes of parameters and its launcher passes {passes}: built apart"
    )]
    Parameters { kernel: &'static str, takes: usize, passes: usize },
    #[error(
        "the GPU driver is too old: it supports CUDA {}.{}, and CUDA {}.{} is needed (driver 580 or newer)",
        .found / 1000, .found % 1000 / 10, OLDEST_DRIVER / 1000, OLDEST_DRIVER % 1000 / 10
    )]
    OldDriver { found: i32 },
    #[error(
        "the matrix library is missing: libcublasLt.so cannot be loaded; install CUDA 13's cuBLAS, or put the \
         folder of libcublasLt.so.13 into LD_LIBRARY_PATH"
    )]
    NoBlas,
    #[error("the matrix library, {action}: {source}")]
    Blas { action: &'static str, source: CublasError },
    #[error("no memory for {what}: {source}")]
    Memory { what: &'static str, source: LaunchError },
    #[error("while {action}: {source}")]
    Driver { action: &'static str, source: DriverError },
}

/// The release that the kernels are compiled with, as the driver counts: an older driver does not load them.
const OLDEST_DRIVER: i32 = 13000;

impl OpenError {
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Fatal
    }
}

pub(crate) struct Kernels {
    pub(crate) gather: Function<embedding::GatherParams>,
    pub(crate) rmsnorm: Function<norm::RmsNormParams>,
    pub(crate) add_rmsnorm: Function<norm::RmsNormParams>,
    pub(crate) silu_mul: Function<activation::SiluMulParams>,
    pub(crate) argmax_f32: Function<argmax::ArgmaxParams>,
    pub(crate) argmax_bf16: Function<argmax::ArgmaxParams>,
    pub(crate) argmax_pick: Function<argmax::ArgmaxParams>,
    pub(crate) draw: Function<draw::DrawParams>,
    pub(crate) advance: Function<advance::AdvanceParams>,
    pub(crate) rope: rope::Kernels,
    /// By page element (bf16, f16), then by head dimension (64, 128).
    pub(crate) decode: [[Function<decode::DecodeParams>; 2]; 2],
    /// For pages of f16, by head dimension.
    pub(crate) prefill: [Function<prefill::PrefillParams>; 2],
    /// For pages of bf16, by head dimension.
    pub(crate) prefill_hopper: [Function<prefill::HopperParams>; 2],
    pub(crate) skinny: skinny::Kernels,
    pub(crate) batched: batched::Kernels,
    pub(crate) fill: Function<probe::FillParams>,
    pub(crate) read_only: Function<probe::ReadParams>,
    pub(crate) empty: Function<probe::EmptyParams>,
}

/// One device, opened for this process.
pub struct Gpu {
    context: Arc<CudaContext>,
    kernels: Kernels,
    multiprocessors: usize,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu").field("ordinal", &self.context.ordinal()).finish_non_exhaustive()
    }
}

impl Gpu {
    /// Opens device `ordinal`, loads the kernels built for its architecture and resolves each of them.
    pub fn open(ordinal: usize) -> Result<Arc<Self>, OpenError> {
        // SAFETY: only tries to load the driver's library, whose initialisers are the driver's own.
        if !unsafe { sys::is_culib_present() } {
            return Err(OpenError::NoDriver);
        }
        let driver = |action| move |source| OpenError::Driver { action, source };
        let mut found = 0;
        // SAFETY: the pointer is valid for the call, which needs no initialised driver.
        unsafe { sys::cuDriverGetVersion(&raw mut found) }
            .result()
            .map_err(driver("asking for the version"))?;
        if found < OLDEST_DRIVER {
            return Err(OpenError::OldDriver { found });
        }
        let count = CudaContext::device_count().map_err(driver("counting GPUs"))?;
        if i32::try_from(ordinal).is_ok_and(|ordinal| ordinal >= count) {
            return Err(OpenError::NoDevice { ordinal, count });
        }
        let context = CudaContext::new(ordinal).map_err(driver("creating a context"))?;
        let (major, minor) = context.compute_capability().map_err(driver("asking for the architecture"))?;
        let modules = load(major as u32 * 10 + minor as u32)?;
        if modules.is_empty() {
            let name = context.name().map_err(driver("asking for the name"))?;
            return Err(OpenError::Architecture { ordinal, name, major, minor });
        }
        let multiprocessors = context
            .attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
            .map_err(driver("counting multiprocessors"))? as usize;
        Ok(Arc::new(Self { context, kernels: Kernels::resolve(&modules)?, multiprocessors }))
    }

    pub fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// Bytes that are free, and those of the whole device.
    pub fn memory(&self) -> Result<(u64, u64), LaunchError> {
        let driver = LaunchError::driver("asking for free memory");
        self.context.bind_to_thread().map_err(&driver)?;
        let (free, total) = result::mem_get_info().map_err(driver)?;
        Ok((free as u64, total as u64))
    }

    pub fn name(&self) -> Result<String, LaunchError> {
        self.context.name().map_err(LaunchError::driver("asking for the name"))
    }

    pub fn multiprocessors(&self) -> usize {
        self.multiprocessors
    }

    pub(crate) fn kernels(&self) -> &Kernels {
        &self.kernels
    }
}

/// Modules by unit name. They stay loaded as long as the context, which is the process's primary one.
type Modules = Vec<(&'static str, sys::CUmodule)>;

fn load(capability: u32) -> Result<Modules, OpenError> {
    units(capability)
        .map(|unit| {
            // SAFETY: the image is a whole cubin, embedded at build time, and the context is current.
            let module = unsafe { result::module::load_data(unit.image.as_ptr().cast()) };
            let module =
                module.map_err(|source| OpenError::Driver { action: "loading a kernel unit", source })?;
            Ok((unit.name, module))
        })
        .collect()
}

impl Kernels {
    fn resolve(modules: &Modules) -> Result<Self, OpenError> {
        fn get<P: Params>(modules: &Modules, kernel: &'static str) -> Result<Function<P>, OpenError> {
            let module = modules.iter().find(|(name, _)| *name == P::UNIT).map(|(_, module)| *module);
            Function::resolve(module, kernel)
        }
        fn set<P: Params>(
            modules: &Modules,
            shared: u32,
            names: [&'static str; 4],
        ) -> Result<[Function<P>; 4], OpenError> {
            let [a, b, c, d] = names.map(|name| get(modules, name)?.allow_shared(shared));
            Ok([a?, b?, c?, d?])
        }
        let skinny = |m: &Modules, place: usize, names| set(m, skinny::VARIANTS[place].shared(), names);
        let batched =
            |m: &Modules, place, names| batched::Variant::new(place, set(m, batched::shared(place), names)?);
        let m = modules;
        Ok(Self {
            gather: get(m, "gather_bf16")?,
            rmsnorm: get(m, "rmsnorm_bf16")?,
            add_rmsnorm: get(m, "add_rmsnorm_bf16")?,
            silu_mul: get(m, "silu_mul_bf16")?,
            argmax_f32: get(m, "argmax_f32")?,
            argmax_bf16: get(m, "argmax_bf16")?,
            argmax_pick: get(m, "argmax_pick")?,
            draw: get(m, "draw_f32")?,
            advance: get(m, "advance")?,
            rope: [
                [
                    [get(m, "qk_rope_write_half_bf16_64")?, get(m, "qk_rope_write_half_bf16_128")?],
                    [get(m, "qk_rope_write_half_f16_64")?, get(m, "qk_rope_write_half_f16_128")?],
                ],
                [
                    [
                        get(m, "qk_rope_write_interleaved_bf16_64")?,
                        get(m, "qk_rope_write_interleaved_bf16_128")?,
                    ],
                    [
                        get(m, "qk_rope_write_interleaved_f16_64")?,
                        get(m, "qk_rope_write_interleaved_f16_128")?,
                    ],
                ],
            ],
            decode: [
                [get(m, "decode_bf16_64")?, get(m, "decode_bf16_128")?],
                [get(m, "decode_f16_64")?, get(m, "decode_f16_128")?],
            ],
            prefill: [get(m, "prefill_f16_64")?, get(m, "prefill_f16_128")?],
            prefill_hopper: [
                get(m, "prefill_hopper_64")?.allow_shared(prefill::hopper_shared(64))?,
                get(m, "prefill_hopper_128")?.allow_shared(prefill::hopper_shared(128))?,
            ],
            skinny: [
                skinny(m, 0, ["skinny_8_store", "skinny_8_add", "skinny_8_wide", "skinny_8_silu"])?,
                skinny(
                    m,
                    1,
                    ["skinny_8_many_store", "skinny_8_many_add", "skinny_8_many_wide", "skinny_8_many_silu"],
                )?,
                skinny(m, 2, ["skinny_16_store", "skinny_16_add", "skinny_16_wide", "skinny_16_silu"])?,
            ],
            batched: [
                batched(m, 0, ["batched_32_store", "batched_32_add", "batched_32_wide", "batched_32_silu"])?,
                batched(m, 1, ["batched_64_store", "batched_64_add", "batched_64_wide", "batched_64_silu"])?,
                batched(
                    m,
                    2,
                    ["batched_128_store", "batched_128_add", "batched_128_wide", "batched_128_silu"],
                )?,
            ],
            fill: get(m, "fill_bf16")?,
            read_only: get(m, "read_only")?,
            empty: get(m, "empty")?,
        })
    }
}
