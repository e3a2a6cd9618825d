//! The weight files of a directory: one, or shards listed by an index.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::{safetensors, text};
use crate::CheckpointError;
use crate::checkpoint::Located;
use crate::error::{Part, Problem};
use crate::mapping::Mapping;

const MAX_FILES: usize = 4096;
const INDEX: &str = "model.safetensors.index.json";

#[derive(Deserialize)]
struct Index {
    /// Tensor name to file name.
    weight_map: BTreeMap<String, String>,
}

/// Maps the files and finds every tensor in them.
pub(super) fn open(directory: &Path) -> Result<(Vec<Mapping>, BTreeMap<String, Located>), CheckpointError> {
    let index = read_index(directory)?;
    let names = match &index {
        Some(index) => file_names(directory, index)?,
        None => unindexed_files(directory)?,
    };
    let paths: Vec<PathBuf> = names.iter().map(|name| directory.join(name)).collect();
    let files = paths.iter().map(|path| Mapping::open(path)).collect::<Result<Vec<_>, _>>()?;
    let tensors = locate(&files)?;
    if let Some(index) = index {
        check_index(directory, &index, &names, &tensors)?;
    }
    Ok((files, tensors))
}

fn read_index(directory: &Path) -> Result<Option<Index>, CheckpointError> {
    let path = directory.join(INDEX);
    let Some(text) = text::read_optional(&path)? else { return Ok(None) };
    let parsed = serde_json::from_str(&text);
    parsed.map(Some).map_err(|error| Part::key("weight_map").has(Problem::Json(error)).at(&path))
}

/// Shards in order of their names. A name that leads out of the directory is refused.
fn file_names(directory: &Path, index: &Index) -> Result<Vec<String>, CheckpointError> {
    let names: BTreeSet<&String> = index.weight_map.values().collect();
    let refuse = |found: &str, allowed: &str| {
        Part::key("weight_map").has(Problem::not_allowed(found, allowed)).at(&directory.join(INDEX))
    };
    if names.len() > MAX_FILES {
        return Err(refuse("a list of too many files", "at most 4096 files"));
    }
    let is_plain =
        |name: &str| matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
    if let Some(name) = names.iter().find(|name| !is_plain(name)) {
        return Err(refuse(name, "names of files in the same directory"));
    }
    Ok(names.into_iter().cloned().collect())
}

/// `model.safetensors`, or else whatever has the extension.
fn unindexed_files(directory: &Path) -> Result<Vec<String>, CheckpointError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(CheckpointError::io("list", directory))? {
        let name = entry.map_err(CheckpointError::io("list", directory))?.file_name();
        if let Some(name) = name.to_str().filter(|name| name.ends_with(".safetensors")) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    if let Some(single) = names.iter().find(|name| *name == "model.safetensors") {
        return Ok(vec![single.clone()]);
    }
    if names.is_empty() || names.len() > MAX_FILES {
        let problem = Problem::not_allowed(format_args!("{} weight files", names.len()), "1 to 4096");
        return Err(Part::key("*.safetensors").has(problem).at(directory));
    }
    Ok(names)
}

fn locate(files: &[Mapping]) -> Result<BTreeMap<String, Located>, CheckpointError> {
    let mut tensors = BTreeMap::new();
    for (file, mapping) in files.iter().enumerate() {
        let entries = safetensors::parse(mapping).map_err(|fault| fault.at(mapping.path()))?;
        for (name, entry) in entries {
            if tensors.contains_key(&name) {
                return Err(Part::tensor(name).has(Problem::Duplicate).at(mapping.path()));
            }
            let located = Located { file, dtype: entry.dtype, shape: entry.shape, bytes: entry.bytes };
            tensors.insert(name, located);
        }
    }
    Ok(tensors)
}

/// Every tensor that the index lists lies in the shard that it names.
fn check_index(
    directory: &Path,
    index: &Index,
    names: &[String],
    tensors: &BTreeMap<String, Located>,
) -> Result<(), CheckpointError> {
    for (name, file) in &index.weight_map {
        let found = tensors.get(name).map(|located| &names[located.file]);
        if found != Some(file) {
            return Err(Part::tensor(name).has(Problem::Missing).at(&directory.join(file)));
        }
    }
    Ok(())
}
