//! The safetensors header: `u64` length, JSON object, data.
//!
//! Parsed here rather than by the crate of that name because its errors do not name the tensor and it lets
//! the last of two equal names win.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};

use crate::DType;
use crate::error::{Fault, Part, Problem};

/// The format's own limit.
const MAX_HEADER: u64 = 100_000_000;

/// Where a tensor lies; the range is inside the file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Range<usize>,
}

pub(super) fn parse(file: &[u8]) -> Result<BTreeMap<String, Entry>, Fault> {
    let header = |problem| Part::Header("length").has(problem);
    let Some((length, rest)) = file.split_first_chunk() else {
        return Err(header(Problem::Cut { needed: 8, left: file.len() as u64 }));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(header(Problem::not_allowed(length, format_args!("at most {MAX_HEADER} bytes"))));
    }
    let Some((json, data)) = rest.split_at_checked(length as usize) else {
        return Err(header(Problem::Cut { needed: length, left: rest.len() as u64 }));
    };
    let tensors: Tensors =
        serde_json::from_slice(json).map_err(|error| Part::Header("JSON").has(Problem::Json(error)))?;
    let data_start = file.len() - data.len();
    let mut entries = BTreeMap::new();
    for (name, tensor) in tensors.0 {
        match tensor.locate(data_start, data.len() as u64) {
            Ok(entry) => entries.insert(name, entry),
            Err(problem) => return Err(Part::tensor(name).has(problem)),
        };
    }
    Ok(entries)
}

#[derive(Deserialize)]
struct TensorHeader {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl TensorHeader {
    fn locate(self, data_start: usize, data_size: u64) -> Result<Entry, Problem> {
        let dtype = match self.dtype.as_str() {
            "F32" => DType::F32,
            "F16" => DType::F16,
            "BF16" => DType::BF16,
            other => return Err(Problem::not_allowed(format_args!("of type {other}"), "F32, F16 and BF16")),
        };
        let size = dtype.byte_size(&self.shape)?;
        let (start, end) = self.data_offsets;
        if end > data_size {
            return Err(Problem::Cut { needed: end, left: data_size });
        }
        if end.checked_sub(start) != Some(size) {
            let found = format!("at bytes {start} to {end}");
            return Err(Problem::not_allowed(found, format_args!("ranges of its {size} bytes")));
        }
        let bytes = data_start + start as usize..data_start + end as usize;
        Ok(Entry {
            dtype,
            shape: self.shape.into_iter().map(|dimension| dimension as usize).collect(),
            bytes,
        })
    }
}

/// A JSON object whose names must differ.
struct Tensors(BTreeMap<String, TensorHeader>);

impl<'de> Deserialize<'de> for Tensors {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TensorsVisitor)
    }
}

struct TensorsVisitor;

impl<'de> Visitor<'de> for TensorsVisitor {
    type Value = Tensors;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tensors, A::Error> {
        let mut tensors = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let header = map
                .next_value()
                .map_err(|error| A::Error::custom(format_args!("tensor {}: {error}", name.escape_debug())))?;
            if tensors.contains_key(&name) {
                return Err(A::Error::custom(format_args!("tensor {} appears twice", name.escape_debug())));
            }
            tensors.insert(name, header);
        }
        Ok(Tensors(tensors))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::damage::{self, damage, damaged};

    fn original() -> Vec<u8> {
        let header = br#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"__metadata__":{"k":"v"},"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}}"#;
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header);
        file.extend([0; 32]);
        file
    }

    #[test]
    fn the_undamaged_file_is_accepted() {
        let entries = parse(&original()).expect("valid");
        assert_eq!(entries["b"].shape, [4]);
        assert_eq!(entries["b"].bytes, original().len() - 8..original().len());
    }

    proptest! {
        #![proptest_config(damage::config())]

        #[test]
        fn a_damaged_file_is_read_in_order_or_refused(damages in prop::collection::vec(damage(), 1..4)) {
            let original = original();
            let file = damaged(&original, original.len() - 32, &damages);
            for (name, entry) in parse(&file).unwrap_or_default() {
                let size = entry.shape.iter().product::<usize>() * entry.dtype.block().1;
                prop_assert_eq!(file.get(entry.bytes).map(<[u8]>::len), Some(size), "{}", name);
            }
        }
    }
}
