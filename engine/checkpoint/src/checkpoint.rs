//! An opened model file or directory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use crate::error::{Fault, Part, Problem};
use crate::gguf::{self, Gguf};
use crate::huggingface;
use crate::mapping::Mapping;
use crate::{
    CheckpointError, DType, ModelConfig, TensorView, TokenizerSource, Vocabulary, inventory, limits,
};

/// A model, memory-mapped. All tensors that the configuration calls for exist in the right shape.
#[derive(Debug)]
pub struct Checkpoint {
    pub(crate) description: Description,
    /// Weight files in a fixed order, then `config.json` where there is one.
    pub(crate) files: Vec<Mapping>,
    pub(crate) tensors: BTreeMap<String, Located>,
}

/// Everything but the weights.
#[derive(Debug)]
pub(crate) struct Description {
    pub(crate) config: ModelConfig,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) tokenizer: TokenizerSource,
    pub(crate) chat_template: Option<String>,
    pub(crate) name: Option<String>,
}

/// Where a tensor lies; the range is inside the file.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) file: usize,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Range<usize>,
}

impl Checkpoint {
    /// Opens a `.gguf` file, or a directory with `config.json`, `*.safetensors` and `tokenizer.json`.
    ///
    /// Reads headers only; weights are paged in as they are used. Errors name the file and the key or
    /// tensor at fault.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let path = path.as_ref();
        let metadata = std::fs::metadata(path).map_err(CheckpointError::io("open", path))?;
        if metadata.is_dir() { huggingface::open_directory(path) } else { Self::open_gguf(path) }
    }

    fn open_gguf(path: &Path) -> Result<Self, CheckpointError> {
        let file = Mapping::open(path)?;
        let (description, tensors) = read_gguf(&file).map_err(|fault| fault.at(path))?;
        Ok(Self { description, files: vec![file], tensors })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.description.config
    }

    /// A tensor by its Hugging Face name (`model.layers.0.self_attn.q_proj.weight`), in either container.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, CheckpointError> {
        let Some((name, located)) = self.tensors.get_key_value(name) else {
            return Err(CheckpointError::NoSuchTensor { name: name.to_owned() });
        };
        let bytes = &self.files[located.file][located.bytes.clone()];
        Ok(TensorView { name, dtype: located.dtype, shape: located.shape.clone(), bytes })
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Hugging Face names, sorted.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// BLAKE3 (hex) over the content of the weight files and of `config.json`, which together decide every
    /// number the model computes. Equal content has an equal digest wherever it lies. Reads every byte.
    pub fn digest(&self) -> String {
        let mut all = blake3::Hasher::new();
        for file in &self.files {
            all.update(blake3::hash(file).as_bytes());
        }
        all.finalize().to_hex().to_string()
    }

    pub fn vocabulary(&self) -> Vocabulary {
        self.description.vocabulary.clone()
    }

    pub fn tokenizer(&self) -> TokenizerSource {
        self.description.tokenizer.clone()
    }

    /// The Jinja template that turns chat messages into a prompt.
    pub fn chat_template(&self) -> Option<&str> {
        self.description.chat_template.as_deref()
    }

    /// The name that the file gives itself.
    pub fn model_name(&self) -> Option<&str> {
        self.description.name.as_deref()
    }
}

fn read_gguf(file: &[u8]) -> Result<(Description, BTreeMap<String, Located>), Fault> {
    let gguf = Gguf::parse(file)?;
    let config = gguf::model_config(&gguf, rope_factors(&gguf, file)?)?;
    limits::check(&config)?;
    let tokenizer = gguf::tokenizer(&gguf.metadata)?;
    let mut tensors = BTreeMap::new();
    for (name, entry) in &gguf.tensors {
        let located =
            Located { file: 0, dtype: entry.dtype, shape: entry.shape.clone(), bytes: entry.bytes.clone() };
        if tensors.insert(gguf::to_hugging_face(name), located).is_some() {
            return Err(Part::tensor(*name).has(Problem::Duplicate));
        }
    }
    check_inventory(&config, &tensors)?;
    let description = Description {
        vocabulary: gguf::vocabulary(&tokenizer, &config),
        tokenizer: TokenizerSource::Gguf(tokenizer),
        chat_template: gguf.metadata.string("tokenizer.chat_template")?.map(str::to_owned),
        name: gguf.metadata.string("general.name")?.map(str::to_owned),
        config,
    };
    Ok((description, tensors))
}

/// Llama 3's frequency factors, which converters store as a tensor.
fn rope_factors(gguf: &Gguf<'_>, file: &[u8]) -> Result<Option<Vec<f32>>, Fault> {
    const NAME: &str = "rope_freqs.weight";
    let Some(entry) = gguf.tensors.get(NAME) else { return Ok(None) };
    if entry.dtype != DType::F32 {
        return Err(Part::tensor(NAME).has(Problem::not_allowed(format_args!("{:?}", entry.dtype), "F32")));
    }
    let (factors, _) = file[entry.bytes.clone()].as_chunks();
    Ok(Some(factors.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
}

pub(crate) fn check_inventory(
    config: &ModelConfig,
    tensors: &BTreeMap<String, Located>,
) -> Result<(), Fault> {
    inventory::check(config, tensors.len(), |name| Some(tensors.get(name)?.shape.as_slice()))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::damage::{self, damage, damaged};
    use crate::{SyntheticModel, dequantize};

    static ORIGINAL: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut model = SyntheticModel::qwen2();
        model.config = ModelConfig { layers: 1, hidden: 32, heads: 2, kv_heads: 1, ffn: 32, ..model.config };
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("original.gguf");
        model.write_gguf(&path, DType::Q4_0).expect("writable");
        std::fs::read(path).expect("just written")
    });

    /// Where the tensor data begins, roughly: behind the name of the last tensor.
    fn header() -> usize {
        let last = b"output_norm.weight";
        ORIGINAL.windows(last.len()).rposition(|window| window == last).expect("written") + 64
    }

    /// What was accepted can be used: every tensor lies in the file and every token has its bytes.
    fn exercise(file: &[u8], description: &Description, tensors: &BTreeMap<String, Located>) {
        for located in tensors.values() {
            let mut elements = vec![0.0; located.shape.iter().product()];
            assert_eq!(
                dequantize(located.dtype, &file[located.bytes.clone()], &mut elements),
                elements.len()
            );
        }
        for id in 0..=description.vocabulary.len() as u32 {
            description.vocabulary.bytes(id);
        }
    }

    #[test]
    fn the_undamaged_file_is_accepted() {
        let (description, tensors) = read_gguf(&ORIGINAL).expect("valid");
        exercise(&ORIGINAL, &description, &tensors);
    }

    proptest! {
        #![proptest_config(damage::config())]

        #[test]
        fn a_damaged_gguf_file_is_read_in_order_or_refused(damages in prop::collection::vec(damage(), 1..4)) {
            let file = damaged(&ORIGINAL, header(), &damages);
            if let Ok((description, tensors)) = read_gguf(&file) {
                exercise(&file, &description, &tensors);
            }
        }
    }
}
