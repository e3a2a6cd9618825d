//! One door to the device: a resolved function, its parameter type, and `cuLaunchKernelEx`.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::marker::PhantomData;

use cudarc::cublaslt::result::CublasError;
use cudarc::driver::{DriverError, result, sys};

use crate::gpu::OpenError;
use crate::queue::{Chain, Queue};

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The arguments are wrong; the device is as it was.
    Invalid,
    /// The device's context is not to be trusted any more: the process ends.
    Fatal,
}

#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("{kernel}: {problem}")]
    Shape { kernel: &'static str, problem: String },
    #[error("{action}: {source}")]
    Driver { action: &'static str, source: DriverError },
    #[error("matrix library, {action}: {source}")]
    Library { action: &'static str, source: CublasError },
}

impl LaunchError {
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Shape { .. } => ErrorClass::Invalid,
            Self::Driver { .. } | Self::Library { .. } => ErrorClass::Fatal,
        }
    }

    pub(crate) fn driver(action: &'static str) -> impl Fn(DriverError) -> Self {
        move |source| Self::Driver { action, source }
    }
}

/// Refuses a launch whose arguments do not fit, with the numbers that do not.
pub(crate) fn require(
    kernel: &'static str,
    holds: bool,
    problem: impl FnOnce() -> String,
) -> Result<(), LaunchError> {
    if holds { Ok(()) } else { Err(LaunchError::Shape { kernel, problem: problem() }) }
}

/// A kernel's only parameter: a structure that its source declares field for field.
///
/// # Safety
/// `repr(C)`, the same fields in the same order as in the unit's source, and only plain numbers and device
/// addresses inside.
pub(crate) unsafe trait Params: Copy {
    /// The unit whose functions take it.
    const UNIT: &'static str;
}

pub(crate) struct Function<P> {
    raw: sys::CUfunction,
    name: &'static str,
    params: PhantomData<fn(P)>,
}

// SAFETY: a function handle is an immutable reference into a loaded module; the driver allows launching
// it from any thread.
unsafe impl<P> Send for Function<P> {}
// SAFETY: as above.
unsafe impl<P> Sync for Function<P> {}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    pub(crate) blocks: [usize; 3],
    pub(crate) threads: u32,
    /// Dynamic shared memory in bytes: at most 48 KiB, or what [`Function::allow_shared`] allowed.
    pub(crate) shared: u32,
}

impl<P: Params> Function<P> {
    /// Fails if the unit or the function is missing, or takes parameters of another size.
    pub(crate) fn resolve(module: Option<sys::CUmodule>, name: &'static str) -> Result<Self, OpenError> {
        let driver = |source| OpenError::Driver { action: name, source };
        let missing = DriverError(sys::CUresult::CUDA_ERROR_NOT_FOUND);
        let symbol = CString::new(name).map_err(|_| driver(missing))?;
        let module = module.ok_or_else(|| driver(missing))?;
        // SAFETY: the module is loaded in the current context.
        let raw = unsafe { result::module::get_function(module, symbol) }.map_err(driver)?;
        let (mut offset, mut takes) = (0, 0);
        // SAFETY: both pointers are valid for the call; every kernel has a parameter 0.
        unsafe { sys::cuFuncGetParamInfo(raw, 0, &raw mut offset, &raw mut takes) }
            .result()
            .map_err(driver)?;
        let passes = size_of::<P>();
        if takes != passes {
            return Err(OpenError::Parameters { kernel: name, takes, passes });
        }
        Ok(Self { raw, name, params: PhantomData })
    }

    /// Allows launches with up to `bytes` of dynamic shared memory.
    pub(crate) fn allow_shared(self, bytes: u32) -> Result<Self, OpenError> {
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is loaded in the current context.
        unsafe { result::function::set_function_attribute(self.raw, attribute, bytes as i32) }
            .map_err(|source| OpenError::Driver { action: self.name, source })?;
        Ok(self)
    }

    /// Clusters of a shape that the device holds at once; `grid` is one of them.
    pub(crate) fn resident_clusters(&self, grid: Grid, cluster: [u32; 2]) -> Result<usize, OpenError> {
        let mut attributes = attributes(Chain::Serial, cluster);
        let config = config(&grid, std::ptr::null_mut(), &mut attributes);
        let mut clusters = 0;
        // SAFETY: the function is loaded in the current context, and both pointers are valid for the call.
        unsafe { sys::cuOccupancyMaxActiveClusters(&raw mut clusters, self.raw, &raw const config) }
            .result()
            .map_err(|source| OpenError::Driver { action: self.name, source })?;
        Ok(usize::try_from(clusters).unwrap_or_default())
    }

    /// Enqueues one launch. An empty grid is no work and no error.
    ///
    /// # Safety
    /// Every address in `params` is valid for the shapes beside it until the queue has run the kernel, and
    /// nothing else writes that memory meanwhile.
    pub(crate) unsafe fn launch(&self, queue: &Queue, grid: Grid, params: P) -> Result<(), LaunchError> {
        // SAFETY: the caller's promise.
        unsafe { self.launch_clustered(queue, grid, [1, 1], params) }
    }

    /// As [`Self::launch`], with clusters of blocks along x and y that see each other's shared memory.
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn launch_clustered(
        &self,
        queue: &Queue,
        grid: Grid,
        cluster: [u32; 2],
        mut params: P,
    ) -> Result<(), LaunchError> {
        let [x, y, z] = grid.blocks;
        if grid.blocks.contains(&0) {
            return Ok(());
        }
        require(self.name, i32::try_from(x).is_ok() && y.max(z) <= 65535, || {
            format!("a grid of {x} x {y} x {z} blocks is past what a launch can have")
        })?;
        let mut attributes = attributes(queue.chain(), cluster);
        let config = config(&grid, queue.stream().cu_stream(), &mut attributes);
        let mut arguments = [(&raw mut params).cast()];
        queue.stream().context().bind_to_thread().map_err(LaunchError::driver(self.name))?;
        // SAFETY: the argument array has one pointer to a structure of the size that the function takes,
        // as checked when it was resolved; the rest is the caller's promise.
        unsafe {
            sys::cuLaunchKernelEx(&raw const config, self.raw, arguments.as_mut_ptr(), std::ptr::null_mut())
        }
        .result()
        .map_err(LaunchError::driver(self.name))
    }
}

fn config(
    grid: &Grid,
    stream: sys::CUstream,
    attributes: &mut [sys::CUlaunchAttribute],
) -> sys::CUlaunchConfig {
    let [x, y, z] = grid.blocks.map(|blocks| blocks as u32);
    sys::CUlaunchConfig {
        gridDimX: x,
        gridDimY: y,
        gridDimZ: z,
        blockDimX: grid.threads,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: grid.shared,
        hStream: stream,
        attrs: attributes.as_mut_ptr(),
        numAttrs: attributes.len() as u32,
    }
}

/// What a launch asks for beside its grid.
fn attributes(chain: Chain, [x, y]: [u32; 2]) -> Vec<sys::CUlaunchAttribute> {
    let attribute = |id, value| sys::CUlaunchAttribute { id, pad: [0; 4], value };
    let mut attributes = Vec::with_capacity(2);
    if chain == Chain::Programmatic {
        // Lets the kernel start while the one before it drains; its `griddepcontrol.wait` keeps the order.
        attributes.push(attribute(
            sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        ));
    }
    if x * y > 1 {
        attributes.push(attribute(
            sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
            sys::CUlaunchAttributeValue {
                clusterDim: sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x, y, z: 1 },
            },
        ));
    }
    attributes
}
