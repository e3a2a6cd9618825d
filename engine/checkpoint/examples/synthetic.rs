//! Writes every synthetic preset as a safetensors directory: `synthetic <directory>`. The reference script
//! reads them.

use std::path::PathBuf;
use std::process::ExitCode;

use shoal_checkpoint::{DType, SyntheticModel};

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: synthetic <directory>");
        return ExitCode::from(2);
    };
    for model in SyntheticModel::presets() {
        if let Err(error) = model.write_safetensors(&directory.join(model.name), DType::BF16, 1) {
            eprintln!("{}: {error}", model.name);
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
