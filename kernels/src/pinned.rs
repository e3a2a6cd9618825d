//! Page-locked host memory, which the device copies from and to while the host goes on.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaEvent, result};

use crate::gpu::Gpu;
use crate::launch::{LaunchError, require};
use crate::memory::{Buffer, Element};
use crate::queue::Queue;

/// `len` elements that one copy at a time reads or writes. Looking at them waits for that copy.
pub struct Pinned<T> {
    gpu: Arc<Gpu>,
    data: NonNull<T>,
    len: usize,
    copied: CudaEvent,
}

// SAFETY: the allocation belongs to this value alone, and plain numbers may move between threads.
unsafe impl<T: Element> Send for Pinned<T> {}

impl<T> std::fmt::Debug for Pinned<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pinned({} elements)", self.len)
    }
}

impl<T: Element> Pinned<T> {
    pub fn new(gpu: &Arc<Gpu>, len: usize) -> Result<Self, LaunchError> {
        let bytes = len.checked_mul(size_of::<T>());
        require("pinned memory", bytes.is_some(), || format!("{len} elements exceed the address space"))?;
        let driver = LaunchError::driver("allocating page-locked memory");
        gpu.context().bind_to_thread().map_err(&driver)?;
        let flags = CUevent_flags::CU_EVENT_DISABLE_TIMING;
        let copied = gpu.context().new_event(Some(flags)).map_err(&driver)?;
        // SAFETY: the context is current. At least a byte, because an empty allocation is an error.
        let data = unsafe { result::malloc_host(bytes.unwrap_or_default().max(1), 0) }.map_err(&driver)?;
        let missing = cudarc::driver::DriverError(cudarc::driver::sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        let data = NonNull::new(data.cast::<T>()).ok_or_else(|| driver(missing))?;
        // SAFETY: the allocation holds `len` elements, and zero bytes are a value of every element.
        unsafe { data.write_bytes(0, len) };
        Ok(Self { gpu: Arc::clone(gpu), data, len, copied })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn wait(&self) -> Result<(), LaunchError> {
        self.copied.synchronize().map_err(LaunchError::driver("waiting for a copy"))
    }

    pub fn get(&self) -> Result<&[T], LaunchError> {
        self.wait()?;
        // SAFETY: `len` initialised elements that no copy writes any more.
        Ok(unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) })
    }

    pub fn get_mut(&mut self) -> Result<&mut [T], LaunchError> {
        self.wait()?;
        // SAFETY: `len` initialised elements that no copy touches any more, borrowed exclusively.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) })
    }

    /// Enqueues a copy of the first `len` elements to `buffer[offset..]`.
    pub fn send(
        &mut self,
        queue: &Queue,
        buffer: &mut Buffer<T>,
        offset: usize,
        len: usize,
    ) -> Result<(), LaunchError> {
        self.send_part(queue, 0, buffer, offset, len)
    }

    /// As [`Self::send`], of the elements from `first` on.
    pub fn send_part(
        &mut self,
        queue: &Queue,
        first: usize,
        buffer: &mut Buffer<T>,
        offset: usize,
        len: usize,
    ) -> Result<(), LaunchError> {
        require("copy", first <= self.len && len <= self.len - first, || {
            format!("{len} elements from {first} of {} pinned", self.len)
        })?;
        let address = self.device_side(buffer, offset, len)?;
        if len > 0 {
            // SAFETY: both sides hold `len` elements; copies only read this side, which is not written
            // before the event below.
            unsafe {
                let host = std::slice::from_raw_parts(self.data.as_ptr().add(first), len);
                result::memcpy_htod_async(address, host, queue.stream().cu_stream())
            }
            .map_err(LaunchError::driver("copying to the device"))?;
        }
        self.copied.record(queue.stream()).map_err(LaunchError::driver("recording a copy"))
    }

    /// Enqueues a copy of `buffer[offset..offset + len]` to the first `len` elements.
    pub fn receive(
        &mut self,
        queue: &Queue,
        buffer: &Buffer<T>,
        offset: usize,
        len: usize,
    ) -> Result<(), LaunchError> {
        self.wait()?;
        let address = self.device_side(buffer, offset, len)?;
        if len > 0 {
            // SAFETY: both sides hold `len` elements; this side is not touched before the event below.
            unsafe {
                let host = std::slice::from_raw_parts_mut(self.data.as_ptr(), len);
                result::memcpy_dtoh_async(host, address, queue.stream().cu_stream())
            }
            .map_err(LaunchError::driver("copying from the device"))?;
        }
        self.copied.record(queue.stream()).map_err(LaunchError::driver("recording a copy"))
    }

    /// The device's side of a copy.
    fn device_side(&self, buffer: &Buffer<T>, offset: usize, len: usize) -> Result<u64, LaunchError> {
        let end = offset.checked_add(len);
        require("copy", len <= self.len && end.is_some_and(|end| end <= buffer.len()), || {
            format!("{len} elements at {offset} of {} with {} pinned", buffer.len(), self.len)
        })?;
        Ok(buffer.address() + (offset * size_of::<T>()) as u64)
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        if self.gpu.context().bind_to_thread().is_ok() {
            // A copy that never ends means a broken context, whose memory the process's end frees.
            if self.copied.synchronize().is_ok() {
                // SAFETY: allocated by `new`, freed once, and no copy is in flight.
                let _ = unsafe { result::free_host(self.data.as_ptr().cast()) };
            }
        }
    }
}
