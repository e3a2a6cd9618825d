//! Times of decode steps and prefill on one GPU with random weights, each beside its floor: what the
//! machine's own memory and matrix units would allow.
//!
//! `step_time [SHAPE] [FOLDER] [library]` writes `FOLDER/step_time_SHAPE_PRODUCTS.json`; with `library` every
//! product goes through the matrix library, for comparison. **Weights, keys and values are random**: the
//! figures say how fast the model runs, the tokens mean nothing.
#![allow(clippy::print_stdout, reason = "a report")]

mod decode;
mod floor;
mod prefill;
mod shapes;

use serde_json::{Value, json};
use shoal_cuda::{CudaModel, CudaOptions, Products};
use shoal_model::KvMemory;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const BATCHES: [usize; 6] = [1, 8, 32, 64, 128, 256];
/// Prompt of the decode cases; the 128 steps after it have a context of 1,024 on average.
const PROMPT: usize = 960;
const STEPS: usize = 128;
const PROMPTS: [usize; 3] = [1024, 4096, 16_384];
/// Tokens of all prompts of a prefill case.
const PACKED: usize = 32_768;
const STEP_TOKENS: usize = 8192;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "llama-3.1-8b".into());
    let folder = arguments.next().unwrap_or_else(|| ".".into());
    let products = match arguments.next().as_deref() {
        None => Products::Fastest,
        Some("library") => Products::Library,
        Some(other) => return Err(format!("{other} is not `library`").into()),
    };
    let config = shapes::named(&name)?;
    let pages = BATCHES[BATCHES.len() - 1] * (PROMPT + STEPS).div_ceil(64);
    let options = CudaOptions {
        kv: KvMemory::Pages(pages),
        max_tokens: STEP_TOKENS,
        max_context: PROMPTS[PROMPTS.len() - 1],
        products,
        ..CudaOptions::default()
    };
    println!("{name}: RANDOM weights, keys and values; figures of speed alone");
    let started = std::time::Instant::now();
    let mut model = CudaModel::with_dummy_weights(&config, &options)?;
    println!("loaded in {:.1} s: {:?}", started.elapsed().as_secs_f64(), model.memory());
    let floor = floor::measure(model.gpu(), &config)?;
    println!("read {:.0} GB/s, bf16 product {:.0} TFLOP/s", floor.gb_per_s, floor.tflop_per_s);
    model.fill_pages_with_noise()?;
    let started = std::time::Instant::now();
    model.prepare(&BATCHES, &[STEP_TOKENS])?;
    println!("products tuned and graphs captured in {:.1} s", started.elapsed().as_secs_f64());

    for (part, rows, ways) in model.measured_products() {
        println!(
            "product {part:?} of {rows}: library {:.1} us, kernel {:.1}",
            ways.library_us, ways.kernel_us
        );
    }

    let mut rows = decode::measure(&mut model, &floor)?;
    rows.extend(prefill::measure(&mut model, &floor)?);
    let device = model.gpu().name()?;
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    let commit = std::env::var("SHOAL_COMMIT").unwrap_or_else(|_| "unknown".into());
    for row in &mut rows {
        row["products"] = json!(format!("{products:?}"));
        complete(row, &[("model", &name), ("device", &device), ("commit", &commit), ("command", &command)]);
    }
    let report = json!({
        "note": "random weights, keys and values; decode: 128 steps after a context of 960; prefill: prompts packed to 32,768 tokens in steps of 8,192",
        "build": shoal_kernels::BUILD,
        "read_gb_per_s": floor.gb_per_s,
        "product_tflop_per_s": floor.tflop_per_s,
        "rows": rows,
    });
    std::fs::write(
        format!("{folder}/step_time_{name}_{products:?}.json"),
        serde_json::to_string_pretty(&report)?,
    )?;
    Ok(())
}

fn complete(row: &mut Value, fields: &[(&str, &str)]) {
    for (key, value) in fields {
        row[*key] = json!(value);
    }
    row["dtype"] = json!("bf16");
    row["kv_dtype"] = json!("bf16");
}
