//! GGUF version 3.

use std::path::Path;

use super::WriteError;
use crate::DType;
use crate::gguf::dtype_id;
use crate::quantize::quantize;

const ALIGNMENT: usize = 32;

/// The kinds of values that the models here need.
pub(crate) enum MetadataValue {
    U32(u32),
    F32(f32),
    Bool(bool),
    String(String),
    Strings(Vec<String>),
    I32s(Vec<i32>),
}

/// Collects a file in memory; meant for small models.
#[derive(Default)]
pub(crate) struct GgufWriter {
    keys: Vec<u8>,
    key_count: u64,
    infos: Vec<u8>,
    tensor_count: u64,
    data: Vec<u8>,
}

impl GgufWriter {
    pub(crate) fn key(&mut self, key: &str, value: MetadataValue) {
        self.key_count += 1;
        put_string(&mut self.keys, key);
        put_value(&mut self.keys, value);
    }

    /// `shape` is row-major; the file lists dimensions the other way round.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize], elements: &[f32], dtype: DType) {
        self.tensor_count += 1;
        put_string(&mut self.infos, name);
        self.infos.extend((shape.len() as u32).to_le_bytes());
        for dimension in shape.iter().rev() {
            self.infos.extend((*dimension as u64).to_le_bytes());
        }
        self.infos.extend(dtype_id(dtype).to_le_bytes());
        self.infos.extend((self.data.len() as u64).to_le_bytes());
        self.data.extend(quantize(dtype, elements));
        pad(&mut self.data);
    }

    pub(crate) fn write(self, path: &Path) -> Result<(), WriteError> {
        let mut file = b"GGUF".to_vec();
        file.extend(3u32.to_le_bytes());
        file.extend(self.tensor_count.to_le_bytes());
        file.extend(self.key_count.to_le_bytes());
        file.extend(self.keys);
        file.extend(self.infos);
        pad(&mut file);
        file.extend(self.data);
        std::fs::write(path, file).map_err(WriteError::io(path))
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
}

fn put_string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn put_value(bytes: &mut Vec<u8>, value: MetadataValue) {
    let mut kind = |id: u32| bytes.extend(id.to_le_bytes());
    match value {
        MetadataValue::U32(value) => {
            kind(4);
            bytes.extend(value.to_le_bytes());
        }
        MetadataValue::F32(value) => {
            kind(6);
            bytes.extend(value.to_le_bytes());
        }
        MetadataValue::Bool(value) => {
            kind(7);
            bytes.push(value.into());
        }
        MetadataValue::String(text) => {
            kind(8);
            put_string(bytes, &text);
        }
        MetadataValue::Strings(texts) => {
            kind(9);
            kind(8);
            bytes.extend((texts.len() as u64).to_le_bytes());
            for text in texts {
                put_string(bytes, &text);
            }
        }
        MetadataValue::I32s(values) => {
            kind(9);
            kind(5);
            bytes.extend((values.len() as u64).to_le_bytes());
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
    }
}
