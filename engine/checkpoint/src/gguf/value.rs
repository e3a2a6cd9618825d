//! Metadata values. Arrays stay in the file: a value holds their bytes, and they are decoded on demand.

use super::cursor::Cursor;
use crate::error::Problem;

#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(&'a str),
    Array { kind: Kind, count: u64, items: Cursor<'a> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    fn from_id(id: u32) -> Result<Self, Problem> {
        const KINDS: [Kind; 13] = [
            Kind::U8,
            Kind::I8,
            Kind::U16,
            Kind::I16,
            Kind::U32,
            Kind::I32,
            Kind::F32,
            Kind::Bool,
            Kind::String,
            Kind::Array,
            Kind::U64,
            Kind::I64,
            Kind::F64,
        ];
        let kind = KINDS.get(id as usize).copied();
        kind.ok_or_else(|| Problem::not_allowed(format_args!("of value type {id}"), "types 0 to 12"))
    }

    /// Bytes of a value of fixed size.
    fn width(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }
}

impl<'a> Value<'a> {
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Result<Self, Problem> {
        match Kind::from_id(cursor.u32()?)? {
            Kind::Array => Self::read_array(cursor),
            kind => Self::read_scalar(kind, cursor),
        }
    }

    fn read_scalar(kind: Kind, cursor: &mut Cursor<'a>) -> Result<Self, Problem> {
        Ok(match kind {
            Kind::U8 => Self::Unsigned(cursor.array::<1>()?[0].into()),
            Kind::I8 => Self::Signed(i8::from_le_bytes(cursor.array()?).into()),
            Kind::U16 => Self::Unsigned(u16::from_le_bytes(cursor.array()?).into()),
            Kind::I16 => Self::Signed(i16::from_le_bytes(cursor.array()?).into()),
            Kind::U32 => Self::Unsigned(cursor.u32()?.into()),
            Kind::I32 => Self::Signed(i32::from_le_bytes(cursor.array()?).into()),
            Kind::U64 => Self::Unsigned(cursor.u64()?),
            Kind::I64 => Self::Signed(i64::from_le_bytes(cursor.array()?)),
            Kind::F32 => Self::Float(f32::from_le_bytes(cursor.array()?).into()),
            Kind::F64 => Self::Float(f64::from_le_bytes(cursor.array()?)),
            Kind::Bool => Self::Bool(cursor.array::<1>()?[0] != 0),
            Kind::String => Self::String(cursor.string()?),
            Kind::Array => return Err(Problem::not_allowed("an array of arrays", "arrays of plain values")),
        })
    }

    /// Walks over the items so that the cursor ends behind them; each takes at least a byte of the file, so
    /// an absurd count ends at the end of the file.
    fn read_array(cursor: &mut Cursor<'a>) -> Result<Self, Problem> {
        let kind = Kind::from_id(cursor.u32()?)?;
        let count = cursor.u64()?;
        let items = if let Some(width) = kind.width() {
            Cursor::new(cursor.take(count.saturating_mul(width))?)
        } else {
            let items = cursor.clone();
            for _ in 0..count {
                Self::read_scalar(kind, cursor)?;
            }
            items
        };
        Ok(Self::Array { kind, count, items })
    }

    /// Items of an array; none for anything else. The count was checked against the file when it was read.
    pub(super) fn items(&self) -> impl Iterator<Item = Result<Self, Problem>> + use<'a> {
        let (kind, count, mut items) = match self {
            Self::Array { kind, count, items } => (*kind, *count, items.clone()),
            _ => (Kind::U8, 0, Cursor::new(&[])),
        };
        (0..count).map(move |_| Self::read_scalar(kind, &mut items))
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Unsigned(_) | Self::Signed(_) => "integer",
            Self::Float(_) => "float",
            Self::Bool(_) => "bool",
            Self::String(_) => "string",
            Self::Array { .. } => "array",
        }
    }
}
