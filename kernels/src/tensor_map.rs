//! How the copy engine is told of a matrix.
#![allow(unsafe_code)]

use cudarc::driver::sys;

use crate::launch::LaunchError;

/// Columns of a box: 128 bytes of bf16, what the swizzle repeats over.
pub(crate) const BOX_COLUMNS: usize = 64;

/// A dense bf16 matrix of `[columns, rows]` in boxes of 64 columns by `box_rows`, for the 128-byte swizzle.
pub(crate) fn describe(
    address: u64,
    [columns, rows]: [usize; 2],
    box_rows: usize,
) -> Result<sys::CUtensorMap, LaunchError> {
    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    let sizes = [columns as u64, rows as u64];
    let strides = [columns as u64 * 2];
    let (boxes, steps) = ([BOX_COLUMNS as u32, box_rows as u32], [1_u32, 1]);
    // SAFETY: two dimensions have two sizes, boxes and steps and one stride; all are read during the call.
    unsafe {
        sys::cuTensorMapEncodeTiled(
            &raw mut map,
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            2,
            std::ptr::with_exposed_provenance_mut(address as usize),
            sizes.as_ptr(),
            strides.as_ptr(),
            boxes.as_ptr(),
            steps.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    }
    .result()
    .map_err(LaunchError::driver("describing a matrix to the copy engine"))?;
    Ok(map)
}
