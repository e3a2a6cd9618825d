//! Device memory: plain allocations, which other processes and network cards can be given access to.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::sync::Arc;

use cudarc::driver::{result, sys};
use half::{bf16, f16};

use crate::gpu::Gpu;
use crate::launch::{LaunchError, require};
use crate::queue::Queue;
use crate::view::{Rows, RowsMut};

/// Plain numbers that kernels read and write.
///
/// # Safety
/// Any bit pattern is a value, and the type has no padding.
pub unsafe trait Element: Copy + Default + 'static {}

// SAFETY: plain numbers.
unsafe impl Element for bf16 {}
// SAFETY: plain numbers.
unsafe impl Element for f16 {}
// SAFETY: plain numbers.
unsafe impl Element for f32 {}
// SAFETY: plain numbers.
unsafe impl Element for u32 {}

/// `len` elements on one device, freed when dropped; the driver waits for work that uses them.
pub struct Buffer<T> {
    gpu: Arc<Gpu>,
    address: sys::CUdeviceptr,
    len: usize,
    element: PhantomData<T>,
}

impl<T> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} elements)", self.len)
    }
}

impl<T: Element> Buffer<T> {
    /// Allocates without writing: the content is whatever was there.
    pub fn new(gpu: &Arc<Gpu>, len: usize) -> Result<Self, LaunchError> {
        let bytes = len.checked_mul(size_of::<T>());
        require("allocation", bytes.is_some(), || format!("{len} elements exceed the address space"))?;
        let driver = LaunchError::driver("allocating device memory");
        gpu.context().bind_to_thread().map_err(&driver)?;
        // SAFETY: the context is current. At least a byte, because an empty allocation is an error.
        let address = unsafe { result::malloc_sync(bytes.unwrap_or_default().max(1)) }.map_err(driver)?;
        Ok(Self { gpu: Arc::clone(gpu), address, len, element: PhantomData })
    }

    pub fn from_host(queue: &Queue, data: &[T]) -> Result<Self, LaunchError> {
        let mut buffer = Self::new(queue.gpu(), data.len())?;
        buffer.write(queue, data)?;
        Ok(buffer)
    }

    /// Replaces the first `data.len()` elements and waits until that is done.
    pub fn write(&mut self, queue: &Queue, data: &[T]) -> Result<(), LaunchError> {
        require("write", data.len() <= self.len, || format!("{} elements into {}", data.len(), self.len))?;
        if !data.is_empty() {
            // SAFETY: the range is inside the allocation, and `data` lives past the wait below.
            unsafe { result::memcpy_htod_async(self.address, data, queue.stream().cu_stream()) }
                .map_err(LaunchError::driver("copying to the device"))?;
        }
        queue.synchronize()
    }

    /// Waits for the queue and copies everything back.
    pub fn read(&self, queue: &Queue) -> Result<Vec<T>, LaunchError> {
        let mut data = vec![T::default(); self.len];
        if !data.is_empty() {
            // SAFETY: both sides hold `len` elements, and `data` lives past the wait below.
            unsafe { result::memcpy_dtoh_async(&mut data, self.address, queue.stream().cu_stream()) }
                .map_err(LaunchError::driver("copying from the device"))?;
        }
        queue.synchronize()?;
        Ok(data)
    }

    /// Sets every byte to `byte`, in the order of the queue.
    pub fn fill_bytes(&mut self, queue: &Queue, byte: u8) -> Result<(), LaunchError> {
        let bytes = self.len * size_of::<T>();
        // SAFETY: the range is the allocation.
        unsafe { result::memset_d8_async(self.address, byte, bytes, queue.stream().cu_stream()) }
            .map_err(LaunchError::driver("filling device memory"))
    }
}

impl<T> Buffer<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first element's device address.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// `rows` dense rows of `columns` elements, from the start.
    pub fn rows(&self, rows: usize, columns: usize) -> Result<Rows<'_, T>, LaunchError> {
        self.strided(0, rows, columns, columns)
    }

    pub fn rows_mut(&mut self, rows: usize, columns: usize) -> Result<RowsMut<'_, T>, LaunchError> {
        self.strided_mut(0, rows, columns, columns)
    }

    /// `rows` rows of `columns` elements that begin `stride` elements apart, the first at `offset`.
    pub fn strided(
        &self,
        offset: usize,
        rows: usize,
        columns: usize,
        stride: usize,
    ) -> Result<Rows<'_, T>, LaunchError> {
        Rows::new(self.address, self.len, offset, [rows, columns, stride])
    }

    pub fn strided_mut(
        &mut self,
        offset: usize,
        rows: usize,
        columns: usize,
        stride: usize,
    ) -> Result<RowsMut<'_, T>, LaunchError> {
        Rows::new(self.address, self.len, offset, [rows, columns, stride]).map(RowsMut::from_exclusive)
    }

    /// The first `len` elements of each of `N` arrays that lie `stride` apart.
    pub fn arrays_mut<const N: usize>(
        &mut self,
        stride: usize,
        len: usize,
    ) -> Result<[RowsMut<'_, T>; N], LaunchError> {
        let arrays = self.strided_mut(0, N, len, stride)?.view;
        let size = (stride * size_of::<T>()) as u64;
        let array = |place| Rows::new(arrays.address + place as u64 * size, len, 0, [1, len, len]);
        // None overlaps another: `len` is at most `stride`.
        let mut views = [array(0)?; N];
        for (place, view) in views.iter_mut().enumerate() {
            *view = array(place)?;
        }
        Ok(views.map(RowsMut::from_exclusive))
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        // A context that is already broken has nothing left to free, and the process is about to end.
        if self.gpu.context().bind_to_thread().is_ok() {
            // SAFETY: allocated by `new` and freed once; the driver waits for work on it.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}
