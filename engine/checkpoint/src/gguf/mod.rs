//! GGUF versions 2 and 3, little endian.
//!
//! ```text
//! magic version tensor_count key_count | key value ... | name dims dtype offset ... | padding | data
//! ```
//!
//! Every length is compared with the bytes that are left before it is used, and what is kept per key or
//! tensor is of the order of the bytes it takes in the file, so memory is bounded by the file's size and
//! the two maxima below.

mod config;
mod cursor;
mod metadata;
mod names;
mod value;
mod vocabulary;

use std::collections::BTreeMap;
use std::ops::Range;

pub(crate) use config::model_config;
pub(crate) use metadata::Metadata;
pub(crate) use names::{from_hugging_face, to_hugging_face};
pub(crate) use vocabulary::{tokenizer, vocabulary};

use crate::DType;
use crate::error::{Fault, Part, Problem};
use cursor::Cursor;
use value::Value;

const MAX_TENSORS: u64 = 1 << 20;
const MAX_KEYS: u64 = 1 << 16;
const MAX_DIMENSIONS: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;

/// A parsed header.
#[derive(Debug)]
pub(crate) struct Gguf<'a> {
    pub(crate) metadata: Metadata<'a>,
    /// By the names in the file.
    pub(crate) tensors: BTreeMap<&'a str, TensorEntry>,
}

/// Where a tensor lies; the range is inside the file.
#[derive(Debug, Clone)]
pub(crate) struct TensorEntry {
    pub(crate) dtype: DType,
    /// Row-major: the last dimension is contiguous.
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Range<usize>,
}

impl<'a> Gguf<'a> {
    pub(crate) fn parse(file: &'a [u8]) -> Result<Self, Fault> {
        let mut cursor = Cursor::new(file);
        let (tensor_count, key_count) = read_counts(&mut cursor)?;
        let metadata = read_metadata(&mut cursor, key_count)?;
        let alignment = alignment(&metadata)?;
        let infos = read_infos(&mut cursor, tensor_count)?;
        let data_start = (cursor.position() as u64).next_multiple_of(alignment);
        let mut tensors = BTreeMap::new();
        for info in infos {
            let name = info.name;
            let entry = info
                .locate(data_start, alignment, file.len() as u64)
                .map_err(|problem| Part::tensor(name).has(problem))?;
            if tensors.insert(name, entry).is_some() {
                return Err(Part::tensor(name).has(Problem::Duplicate));
            }
        }
        Ok(Self { metadata, tensors })
    }
}

fn read_counts(cursor: &mut Cursor<'_>) -> Result<(u64, u64), Fault> {
    let header = |field: &'static str| move |problem| Part::Header(field).has(problem);
    let magic: [u8; 4] = cursor.array().map_err(header("magic"))?;
    if &magic != b"GGUF" {
        let found = format!("{:?}", String::from_utf8_lossy(&magic));
        return Err(Part::Header("magic").has(Problem::not_allowed(found, "\"GGUF\"")));
    }
    let version = cursor.u32().map_err(header("version"))?;
    if !(2..=3).contains(&version) {
        return Err(Part::Header("version").has(Problem::not_allowed(version, "2 and 3, little endian")));
    }
    let tensors = cursor.u64().map_err(header("tensor count"))?;
    let keys = cursor.u64().map_err(header("key count"))?;
    for (field, count, most) in [("tensor count", tensors, MAX_TENSORS), ("key count", keys, MAX_KEYS)] {
        if count > most {
            let problem = Problem::not_allowed(count, format_args!("at most {most}"));
            return Err(Part::Header(field).has(problem));
        }
    }
    Ok((tensors, keys))
}

fn read_metadata<'a>(cursor: &mut Cursor<'a>, count: u64) -> Result<Metadata<'a>, Fault> {
    let mut metadata = Metadata::default();
    for index in 0..count {
        let key = cursor.string().map_err(|problem| Part::key(format!("number {index}")).has(problem))?;
        let value = Value::read(cursor).map_err(|problem| Part::key(key).has(problem))?;
        metadata.insert(key, value)?;
    }
    Ok(metadata)
}

fn alignment(metadata: &Metadata<'_>) -> Result<u64, Fault> {
    const KEY: &str = "general.alignment";
    let alignment = metadata.integer(KEY)?.unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() || !(8..=1 << 20).contains(&alignment) {
        let allowed = "a power of two from 8 to 1048576";
        return Err(Part::key(KEY).has(Problem::not_allowed(alignment, allowed)));
    }
    Ok(alignment)
}

struct TensorInfo<'a> {
    name: &'a str,
    /// In the file's order: the first dimension is contiguous.
    dimensions: Vec<u64>,
    dtype: DType,
    offset: u64,
}

fn read_infos<'a>(cursor: &mut Cursor<'a>, count: u64) -> Result<Vec<TensorInfo<'a>>, Fault> {
    let mut infos = Vec::new();
    for index in 0..count {
        let name = cursor.string().map_err(|problem| Part::tensor(format!("number {index}")).has(problem))?;
        infos.push(TensorInfo::read(name, cursor).map_err(|problem| Part::tensor(name).has(problem))?);
    }
    Ok(infos)
}

impl<'a> TensorInfo<'a> {
    fn read(name: &'a str, cursor: &mut Cursor<'a>) -> Result<Self, Problem> {
        let rank = cursor.u32()?;
        if !(1..=MAX_DIMENSIONS).contains(&rank) {
            return Err(Problem::not_allowed(format_args!("of {rank} dimensions"), "1 to 4"));
        }
        let dimensions = (0..rank).map(|_| cursor.u64()).collect::<Result<Vec<_>, _>>()?;
        let dtype = dtype_from_id(cursor.u32()?)?;
        let offset = cursor.u64()?;
        Ok(Self { name, dimensions, dtype, offset })
    }

    fn locate(self, data_start: u64, alignment: u64, file_size: u64) -> Result<TensorEntry, Problem> {
        let shape: Vec<u64> = self.dimensions.iter().rev().copied().collect();
        let size = self.dtype.byte_size(&shape)?;
        if !self.offset.is_multiple_of(alignment) {
            let found = format!("at offset {}", self.offset);
            return Err(Problem::not_allowed(found, format_args!("multiples of {alignment}")));
        }
        let left = file_size.saturating_sub(data_start);
        let needed = self.offset.saturating_add(size);
        if needed > left {
            return Err(Problem::Cut { needed, left });
        }
        let start = (data_start + self.offset) as usize;
        let shape = shape.into_iter().map(|dimension| dimension as usize).collect();
        Ok(TensorEntry { dtype: self.dtype, shape, bytes: start..start + size as usize })
    }
}

/// GGML's numbers of the storage formats.
const DTYPE_IDS: [(u32, DType); 11] = [
    (0, DType::F32),
    (1, DType::F16),
    (2, DType::Q4_0),
    (3, DType::Q4_1),
    (6, DType::Q5_0),
    (7, DType::Q5_1),
    (8, DType::Q8_0),
    (12, DType::Q4K),
    (13, DType::Q5K),
    (14, DType::Q6K),
    (30, DType::BF16),
];

fn dtype_from_id(id: u32) -> Result<DType, Problem> {
    let known = DTYPE_IDS.iter().find(|(known, _)| *known == id);
    known.map(|(_, dtype)| *dtype).ok_or_else(|| {
        let allowed = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K";
        Problem::not_allowed(format_args!("of GGML type {id}"), allowed)
    })
}

/// GGML's number of a storage format.
pub(crate) fn dtype_id(dtype: DType) -> u32 {
    DTYPE_IDS.iter().find(|(_, known)| *known == dtype).map_or(0, |(id, _)| *id)
}
