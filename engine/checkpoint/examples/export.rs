//! Converts a model file to a safetensors directory in bf16: `export <model> <directory>`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use shoal_checkpoint::{Checkpoint, DType, WriteError, export_safetensors};

fn main() -> ExitCode {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [model, directory] = paths.as_slice() else {
        eprintln!("usage: export <model> <directory>");
        return ExitCode::from(2);
    };
    match export(model, directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn export(model: &Path, directory: &Path) -> Result<(), WriteError> {
    export_safetensors(&Checkpoint::open(model)?, directory, DType::BF16)
}
