//! Bandwidth of the device's memory and of the way to the host.
#![allow(unsafe_code)]

use cudarc::driver::{result, sys};
use half::bf16;
use serde_json::{Value, json};
use shoal_kernels::{Buffer, Queue, probe};

use crate::{Outcome, timing};

const ELEMENTS: usize = 4 << 30 >> 1;
const HOST_BYTES: usize = 1 << 30;

fn gb_per_s(bytes: usize, ms: f64) -> f64 {
    bytes as f64 / ms / 1e6
}

/// A pure read of 4 GiB of random bits, and a copy of them (bytes read plus bytes written).
pub(crate) fn device(queue: &Queue) -> Outcome<Value> {
    let mut source = Buffer::<bf16>::new(queue.gpu(), ELEMENTS)?;
    probe::fill_random(queue, &mut source, 1, 1.0)?;
    let mut sink = Buffer::<u32>::new(queue.gpu(), 4)?;
    let mut rows = Vec::new();
    for blocks in [1, 2, 3, 4, 8] {
        let times = timing::repeat(queue, 15, || Ok(probe::read_all(queue, &source, &mut sink, blocks)?))?;
        rows.push(json!({
            "what": "read", "blocks_per_multiprocessor": blocks, "bytes": ELEMENTS * 2,
            "gb_per_s_median": gb_per_s(ELEMENTS * 2, times.median_ms),
            "gb_per_s_best": gb_per_s(ELEMENTS * 2, times.best_ms),
        }));
    }
    let target = Buffer::<bf16>::new(queue.gpu(), ELEMENTS)?;
    let times = timing::repeat(queue, 15, || {
        // SAFETY: both buffers hold `ELEMENTS` elements.
        Ok(unsafe {
            result::memcpy_dtod_async(
                target.address(),
                source.address(),
                ELEMENTS * 2,
                queue.stream().cu_stream(),
            )
        }?)
    })?;
    rows.push(json!({
        "what": "copy", "bytes": ELEMENTS * 4,
        "gb_per_s_median": gb_per_s(ELEMENTS * 4, times.median_ms),
        "gb_per_s_best": gb_per_s(ELEMENTS * 4, times.best_ms),
    }));
    Ok(Value::Array(rows))
}

/// Pinned host memory, 1 GiB each way.
pub(crate) fn host(queue: &Queue) -> Outcome<Value> {
    let device = Buffer::<u32>::new(queue.gpu(), HOST_BYTES / 4)?;
    // SAFETY: freed below; the slice covers exactly the allocation, which is written before it is read.
    let pinned = unsafe { result::malloc_host(HOST_BYTES, 0) }?;
    // SAFETY: as above.
    let host = unsafe { std::slice::from_raw_parts_mut(pinned.cast::<u8>(), HOST_BYTES) };
    host.fill(0x5a);
    let stream: sys::CUstream = queue.stream().cu_stream();
    let up = timing::repeat(queue, 7, || {
        // SAFETY: both sides hold `HOST_BYTES`, and the copy ends before the host side is freed.
        Ok(unsafe { result::memcpy_htod_async(device.address(), host, stream) }?)
    });
    let down = timing::repeat(queue, 7, || {
        // SAFETY: as above.
        Ok(unsafe { result::memcpy_dtoh_async(host, device.address(), stream) }?)
    });
    queue.synchronize()?;
    // SAFETY: allocated above, and no copy is in flight.
    unsafe { result::free_host(pinned) }?;
    let (up, down) = (up?, down?);
    Ok(json!({
        "bytes": HOST_BYTES,
        "to_device_gb_per_s_median": gb_per_s(HOST_BYTES, up.median_ms),
        "to_device_gb_per_s_best": gb_per_s(HOST_BYTES, up.best_ms),
        "to_host_gb_per_s_median": gb_per_s(HOST_BYTES, down.median_ms),
        "to_host_gb_per_s_best": gb_per_s(HOST_BYTES, down.best_ms),
    }))
}
