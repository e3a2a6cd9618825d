//! A role is an admission policy over the one scheduler, never a different code path.

use shoal_wire::rpc;

use crate::request::{Purpose, Refusal};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Prefill,
    Decode,
    Mixed,
}

/// Of the time of a decode instance while streams run, the part that local prefill may take.
pub const DECODE_PREFILL_SHARE: f64 = 0.25;

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Mixed => "mixed",
        }
    }

    /// Whether new work of this purpose is admitted. A decode instance prefills short prompts itself, and
    /// those whose prefill instance failed, so it admits `Generate`.
    pub fn admits(self, purpose: Purpose) -> Result<(), Refusal> {
        let admits = match self {
            Self::Mixed => true,
            Self::Prefill => purpose == Purpose::Prefill,
            Self::Decode => purpose != Purpose::Prefill,
        };
        if admits { Ok(()) } else { Err(Refusal::Role { role: self.name(), purpose: purpose.name() }) }
    }

    /// Part of the step time that prefill may take beside running streams; `None` is no limit but the chunk.
    pub fn prefill_share(self) -> Option<f64> {
        (self == Self::Decode).then_some(DECODE_PREFILL_SHARE)
    }
}

impl From<Role> for rpc::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Prefill => Self::Prefill,
            Role::Decode => Self::Decode,
            Role::Mixed => Self::Mixed,
        }
    }
}

impl TryFrom<rpc::Role> for Role {
    type Error = UnknownRole;

    fn try_from(role: rpc::Role) -> Result<Self, UnknownRole> {
        match role {
            rpc::Role::Prefill => Ok(Self::Prefill),
            rpc::Role::Decode => Ok(Self::Decode),
            rpc::Role::Mixed => Ok(Self::Mixed),
            rpc::Role::Unspecified => Err(UnknownRole),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`role` is not set; allowed are ROLE_PREFILL, ROLE_DECODE and ROLE_MIXED")]
pub struct UnknownRole;
