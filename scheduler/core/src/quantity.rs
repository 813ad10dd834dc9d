//! Kubernetes resource quantities (`500m`, `16Gi`, `2`, `1e3`), as integers.
//!
//! Source: grammar in k8s.io/apimachinery `pkg/api/resource/quantity.go`. Values round up, as Kubernetes does.

/// Why a text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a quantity such as 2, 500m or 16Gi")]
pub struct QuantityError {
    text: String,
}

/// A quantity in thousandths, rounded up. Negative values are refused: no request can be one.
///
/// # Errors
/// [`QuantityError`] for anything outside the grammar, below zero or past the range of `u64`.
pub fn parse_milli(text: &str) -> Result<u64, QuantityError> {
    read(text, 1000).ok_or_else(|| QuantityError { text: text.chars().take(32).collect() })
}

/// A quantity in whole units (bytes, devices), rounded up.
///
/// # Errors
/// As [`parse_milli`].
pub fn parse_units(text: &str) -> Result<u64, QuantityError> {
    read(text, 1).ok_or_else(|| QuantityError { text: text.chars().take(32).collect() })
}

/// Longest accepted text: bounds the arithmetic below. Kubernetes prints at most 18 digits and a suffix.
const TEXT_BYTES_MAX: usize = 40;

fn read(text: &str, scale: u128) -> Option<u64> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (numerator, denominator) = multiplier(suffix)?;
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let below = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?.checked_mul(denominator)?;
    let above = digits.checked_mul(numerator)?.checked_mul(scale)?;
    u64::try_from(above.div_ceil(below)).ok()
}

fn multiplier(suffix: &str) -> Option<(u128, u128)> {
    let fixed = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => return power(exponent),
    };
    Some(fixed)
}

fn power(exponent: &str) -> Option<(u128, u128)> {
    let digits = exponent.strip_prefix(['e', 'E'])?;
    let value: i32 = digits.parse().ok()?;
    let ten = 10_u128.checked_pow(value.unsigned_abs())?;
    Some(if value < 0 { (1, ten) } else { (ten, 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suffix_of_the_grammar_is_read() {
        for (text, units) in [
            ("0", 0),
            ("8", 8),
            ("1.5k", 1500),
            ("16Gi", 16 << 30),
            ("0.5Gi", 1 << 29),
            ("1e3", 1000),
            ("2E2", 200),
            ("1E", 1_000_000_000_000_000_000),
            (".5k", 500),
            ("5.", 5),
            ("+3", 3),
        ] {
            assert_eq!(parse_units(text), Ok(units), "{text}");
        }
        assert_eq!(parse_milli("500m"), Ok(500));
        assert_eq!(parse_milli("2"), Ok(2000));
    }

    #[test]
    fn parts_of_a_unit_round_up_as_kubernetes_does() {
        assert_eq!(parse_units("1m"), Ok(1));
        assert_eq!(parse_milli("1n"), Ok(1));
        assert_eq!(parse_units("1500m"), Ok(2));
    }

    #[test]
    fn what_is_no_quantity_is_refused_and_never_panics() {
        for bad in [
            "",
            "-1",
            "x",
            "1 Gi",
            "1.2.3",
            "Gi",
            "1e",
            "1e99",
            "99999999999999999999",
            ".",
            "1Kii",
            "e3",
            "9E9E9",
            "1e-99",
        ] {
            assert!(parse_units(bad).is_err(), "{bad:?} was taken");
        }
    }
}
