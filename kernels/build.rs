//! Compiles every `cu/<family>/<op>.cu` to a cubin per architecture and writes the table that embeds them.
//!
//! The compiler is `$SHOAL_NVCC`, else `nvcc` on the path. Without one the table is empty and the crate
//! builds all the same; a compiler that is named and fails, or a kernel that does not compile, is an error.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compute capability and the arch-specific target it is compiled for.
const ARCHITECTURES: [(u32, &str); 1] = [(90, "90a")];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=cu");
    println!("cargo::rerun-if-env-changed=SHOAL_NVCC");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let table = if let Some((nvcc, version)) = find_compiler()? {
        compile_all(&nvcc, &version, &out)?
    } else {
        fs::write(out.join("ptxas.txt"), "")?;
        table("no nvcc was found when this was built", &[])
    };
    fs::write(out.join("units.rs"), table)?;
    Ok(())
}

/// The compiler and the line that names its release; `None` if none is named and none is on the path.
fn find_compiler() -> Result<Option<(PathBuf, String)>, String> {
    println!("cargo::rerun-if-env-changed=PATH");
    let named = env::var_os("SHOAL_NVCC").filter(|path| !path.is_empty());
    let nvcc = PathBuf::from(named.clone().unwrap_or_else(|| "nvcc".into()));
    let output = match Command::new(&nvcc).arg("--version").output() {
        Ok(output) if output.status.success() => output,
        _ if named.is_none() => return Ok(None),
        Ok(output) => {
            return Err(format!("SHOAL_NVCC: `{} --version` ended with {}", nvcc.display(), output.status));
        }
        Err(error) => return Err(format!("SHOAL_NVCC: cannot run {}: {error}", nvcc.display())),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let version =
        text.lines().find(|line| line.contains("release")).unwrap_or("unknown release").trim().to_owned();
    Ok(Some((nvcc, version)))
}

fn compile_all(nvcc: &Path, version: &str, out: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let mut entries = Vec::new();
    let mut report = String::new();
    for source in sources(Path::new("cu"))? {
        let stem = source.file_stem().ok_or("a .cu file without a name")?.to_string_lossy().into_owned();
        for (capability, target) in ARCHITECTURES {
            let cubin = out.join(format!("{stem}.sm_{target}.cubin"));
            report += &compile(nvcc, &source, target, &cubin)?;
            entries.push((stem.clone(), capability, cubin));
        }
    }
    fs::write(out.join("ptxas.txt"), &report)?;
    let targets = ARCHITECTURES.map(|(_, target)| format!("sm_{target}")).join(", ");
    Ok(table(&format!("{version}; {targets}; {} units", entries.len()), &entries))
}

fn sources(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "cu") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Returns what ptxas says of registers and spills.
fn compile(
    nvcc: &Path,
    source: &Path,
    target: &str,
    cubin: &Path,
) -> Result<String, Box<dyn std::error::Error>> {
    let output = Command::new(nvcc)
        .args([
            "-std=c++17",
            "-O3",
            "-cubin",
            "-lineinfo",
            "-Xptxas",
            "-v",
            "-Werror",
            "all-warnings",
            "-gencode",
        ])
        .arg(format!("arch=compute_{target},code=sm_{target}"))
        .arg("-o")
        .args([cubin, source])
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(text) } else { Err(format!("{}: {text}", source.display()).into()) }
}

fn table(build: &str, units: &[(String, u32, PathBuf)]) -> String {
    let mut text =
        format!("pub(super) const BUILD: &str = {build:?};\npub(super) static UNITS: &[Unit] = &[\n");
    for (name, capability, cubin) in units {
        let cubin = cubin.display().to_string();
        let _ = writeln!(
            text,
            "    Unit {{ name: {name:?}, capability: {capability}, image: &Aligned(*include_bytes!({cubin:?})).0 }},"
        );
    }
    text + "];\n"
}
