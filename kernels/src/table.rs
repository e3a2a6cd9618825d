//! The embedded cubins, as `build.rs` found and compiled them.

/// One compiled source file for one architecture.
#[derive(Debug, Clone, Copy)]
pub struct Unit {
    /// File name of the source, without folder and extension.
    pub name: &'static str,
    /// Compute capability times ten.
    pub capability: u32,
    pub image: &'static [u8],
}

/// The driver reads an image as an ELF file; its headers want an aligned start.
#[repr(C, align(64))]
#[allow(dead_code, reason = "an empty table aligns nothing")]
struct Aligned<Bytes>(Bytes);

mod generated {
    #[allow(unused_imports, reason = "an empty table aligns nothing")]
    use super::{Aligned, Unit};
    include!(concat!(env!("OUT_DIR"), "/units.rs"));
}

/// What the build found: the compiler's release and targets, or why there are no kernels.
pub const BUILD: &str = generated::BUILD;

/// Units for a device of this compute capability. Arch-specific code runs on exactly that one.
pub fn units(capability: u32) -> impl Iterator<Item = &'static Unit> {
    generated::UNITS.iter().filter(move |unit| unit.capability == capability)
}
