//! Byte quantities: the whole-number, binary-suffix part of a Kubernetes quantity, and nothing else.

/// Binary suffixes and the power of two each stands for.
const SUFFIXES: [(&str, u32); 4] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40)];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("{text:?} is not a whole number of bytes with an optional Ki, Mi, Gi or Ti, for example 512Mi")]
    Malformed { text: String },
    #[error("{text:?} is more than 2^64 bytes")]
    TooLarge { text: String },
}

/// The number of bytes that `text` stands for.
///
/// # Errors
/// When `text` is anything but digits and an optional suffix, or does not fit in 64 bits.
pub fn bytes(text: &str) -> Result<u64, QuantityError> {
    let (digits, shift) = SUFFIXES
        .iter()
        .find_map(|(suffix, shift)| text.strip_suffix(suffix).map(|digits| (digits, *shift)))
        .unwrap_or((text, 0));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(QuantityError::Malformed { text: text.to_owned() });
    }
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| QuantityError::TooLarge { text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_with_binary_suffixes_are_bytes() {
        assert_eq!(bytes("512Mi"), Ok(512 << 20));
        assert_eq!(bytes("4Ti"), Ok(4 << 40));
        assert_eq!(bytes("16777216"), Ok(16 << 20));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["", "Mi", "1.5Gi", "-1Gi", "512MB", "512M", " 1Gi", "1Gi5", "+1"] {
            assert_eq!(bytes(text), Err(QuantityError::Malformed { text: text.to_owned() }), "{text:?}");
        }
        assert!(matches!(bytes("99999999999999Ti"), Err(QuantityError::TooLarge { .. })));
    }
}
