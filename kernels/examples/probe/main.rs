//! Measures one GPU's ceilings and what the kernels reach of them, and prints one JSON document.
//!
//! `cargo run --release -p shoal-kernels --example probe`

mod gemm;
mod kernels;
mod memory;
mod timing;

use cudarc::driver::sys::CUdevice_attribute as Attribute;
use serde_json::{Value, json};
use shoal_kernels::{BUILD, Chain, Gpu, Queue, probe};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;
type Section = fn(&Queue) -> Outcome<Value>;

fn main() -> Outcome<()> {
    let gpu = Gpu::open(0)?;
    let queue = Queue::new(&gpu, Chain::Serial)?;
    let mut report = json!({ "build": BUILD, "device": device(&gpu)? });
    let sections: [(&str, Section); 5] = [
        ("memory", memory::device),
        ("host_copy", memory::host),
        ("launch_gap", launch_gap),
        ("gemm_bf16", gemm::measure),
        ("kernels", kernels::measure),
    ];
    for (name, measure) in sections {
        // A part that cannot be measured here (a library that is not installed) is said, not hidden.
        report[name] = measure(&queue).unwrap_or_else(|error| json!({ "not_measured": error.to_string() }));
    }
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

fn device(gpu: &Gpu) -> Outcome<Value> {
    let context = gpu.context();
    let attribute = |which| context.attribute(which);
    Ok(json!({
        "name": context.name()?,
        "memory_bytes": context.total_mem()?,
        "multiprocessors": gpu.multiprocessors(),
        "l2_bytes": attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
        "clock_khz": attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?,
        "memory_clock_khz": attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?,
        "memory_bus_bits": attribute(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?,
    }))
}

/// Time per kernel in a graph of kernels that do nothing, each waiting for the one before.
fn launch_gap(queue: &Queue) -> Outcome<Value> {
    const KERNELS: usize = 500;
    let mut rows = Vec::new();
    for blocks in [1, 132, 1056] {
        for chain in [Chain::Serial, Chain::Programmatic] {
            let queue = queue.chained(chain);
            let graph = queue.capture(|queue| (0..KERNELS).try_for_each(|_| probe::empty(queue, blocks)))?;
            let times = timing::repeat(&queue, 30, || Ok(graph.replay()?))?;
            rows.push(json!({
                "blocks": blocks,
                "chain": format!("{chain:?}"),
                "us_per_kernel_median": times.median_ms * 1e3 / KERNELS as f64,
                "us_per_kernel_best": times.best_ms * 1e3 / KERNELS as f64,
            }));
        }
    }
    Ok(Value::Array(rows))
}
