//! A directory as Hugging Face tools write it.

mod config;
mod fields;
mod safetensors;
mod text;
mod tokenizer;
mod weights;

use std::path::Path;

use serde_json::{Map, Value};

use crate::checkpoint::{Description, check_inventory};
use crate::error::{Part, Problem};
use crate::mapping::Mapping;
use crate::{Checkpoint, CheckpointError, ModelConfig, TokenizerSource, limits};

/// Real ones have a few thousand bytes.
const MAX_CONFIG: usize = 4 << 20;

pub(crate) fn open_directory(directory: &Path) -> Result<Checkpoint, CheckpointError> {
    let config_file = Mapping::open(&directory.join("config.json"))?;
    let fields =
        parse_object(&config_file).map_err(|problem| Part::File.has(problem).at(config_file.path()))?;
    let config = read_config(directory, &config_file, &fields)?;
    let (mut files, tensors) = weights::open(directory)?;
    check_inventory(&config, &tensors).map_err(|fault| fault.at(directory))?;
    let tokenizer_path = directory.join("tokenizer.json");
    let tokenizer = text::read(&tokenizer_path)?;
    let vocabulary = tokenizer::vocabulary(&tokenizer, &config).map_err(|fault| fault.at(&tokenizer_path))?;
    files.push(config_file);
    let description = Description {
        vocabulary,
        tokenizer: TokenizerSource::Json(tokenizer),
        chat_template: text::chat_template(directory)?,
        name: model_name(&fields, directory),
        config,
    };
    Ok(Checkpoint { description, files, tensors })
}

fn read_config(
    directory: &Path,
    file: &Mapping,
    fields: &Map<String, Value>,
) -> Result<ModelConfig, CheckpointError> {
    let generation_path = directory.join("generation_config.json");
    let generation = match text::read_optional(&generation_path)? {
        None => Map::new(),
        Some(text) => {
            parse_object(text.as_bytes()).map_err(|problem| Part::File.has(problem).at(&generation_path))?
        }
    };
    let mut config = config::model_config(fields).map_err(|fault| fault.at(file.path()))?;
    let ends = config::token_ids(&generation, "eos_token_id").map_err(|fault| fault.at(&generation_path))?;
    for id in ends {
        if !config.eos.contains(&id) {
            config.eos.push(id);
        }
    }
    limits::check(&config).map_err(|fault| fault.at(file.path()))?;
    Ok(config)
}

fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    if bytes.len() > MAX_CONFIG {
        return Err(Problem::not_allowed(format_args!("{} bytes long", bytes.len()), "at most 4 MiB"));
    }
    Ok(serde_json::from_slice(bytes)?)
}

fn model_name(fields: &Map<String, Value>, directory: &Path) -> Option<String> {
    let stated = fields.get("_name_or_path").and_then(Value::as_str).filter(|name| !name.is_empty());
    stated.map(str::to_owned).or_else(|| Some(directory.file_name()?.to_str()?.to_owned()))
}
