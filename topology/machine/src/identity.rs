//! Identities made from names: UUIDs and boot ids that are the same on every run and differ from node to node.

use std::fmt;

/// What tells the nodes made from one machine file apart, usually the node's name. Empty for the machine as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Salt(String);

impl Salt {
    /// A salt from any text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether identities stay as the file gives them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An identity in UUID form from what it belongs to.
    #[must_use]
    pub fn uuid(&self, parts: &[&str]) -> String {
        let mut state = OFFSET;
        for part in std::iter::once(&self.0.as_str()).chain(parts) {
            // A separator that no part holds: ("a", "bc") differs from ("ab", "c").
            for byte in part.bytes().chain([0xff]) {
                state = (state ^ u128::from(byte)).wrapping_mul(PRIME);
            }
        }
        // FNV leaves neighbours alike in their low bits: two rounds of a multiply and shift spread them.
        for _ in 0..2 {
            state = (state ^ (state >> 61)).wrapping_mul(MIX);
        }
        Uuid(state ^ (state >> 67)).to_string()
    }
}

/// FNV-1a with 128 bits. Source: draft-eastlake-fnv, section 5. Checked: 2026-11-21.
const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
/// Any odd number with scattered bits will do.
const MIX: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

/// Printed in UUID form, version 8 ("custom") of RFC 9562.
struct Uuid(u128);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = (self.0 & !(0xf_u128 << 76)) | (8_u128 << 76);
        let bits = (bits & !(0b11_u128 << 62)) | (0b10_u128 << 62);
        let group = |shift: u32, digits: u32| (bits >> shift) & ((1_u128 << (digits * 4)) - 1);
        let (a, b, c, d, e) = (group(96, 8), group(80, 4), group(64, 4), group(48, 4), group(0, 12));
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_the_same_on_every_run_and_differ_in_every_part() {
        let salt = Salt::new("node-a");
        assert_eq!(salt.uuid(&["m", "gpu", "0"]), "9e19e169-a1a7-8b80-a58a-34cd4f7318e9");
        let mut seen = std::collections::BTreeSet::new();
        for node in ["", "node-a", "node-b"] {
            for index in 0..32 {
                assert!(seen.insert(Salt::new(node).uuid(&["m", "gpu", &index.to_string()])));
            }
        }
        assert_ne!(salt.uuid(&["ab", "c"]), salt.uuid(&["a", "bc"]));
    }
}
