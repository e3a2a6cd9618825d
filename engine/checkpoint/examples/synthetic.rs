//! Writes every synthetic preset as a safetensors directory and as a GGUF file: `synthetic <directory>`.
//! The reference script reads the directories.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use shoal_checkpoint::{DType, SyntheticModel, WriteError};

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: synthetic <directory>");
        return ExitCode::from(2);
    };
    for model in SyntheticModel::presets() {
        if let Err(error) = write(&model, &directory) {
            eprintln!("{}: {error}", model.name);
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn write(model: &SyntheticModel, directory: &Path) -> Result<(), WriteError> {
    model.write_safetensors(&directory.join(model.name), DType::BF16, 1)?;
    model.write_gguf(&directory.join(format!("{}.gguf", model.name)), DType::Q8_0)
}
