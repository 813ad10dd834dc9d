//! Profiles of known boards: data for tests and machine files, and a fallback. What NVML reports wins over every row.
//!
//! Rows are in the one-line form of [`super::MigProfile`]: name, id, compute slices, MiB of an instance, cap, `size@starts` in the board's
//! own memory slots.

use super::{MigCapability, MigError, MigProfile};

/// A board and its profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownBoard {
    /// Our name of it, as machine files say it.
    pub name: &'static str,
    /// PCI device ids.
    pub device_ids: &'static [u16],
    /// Profiles in the one-line form.
    pub profiles: &'static [&'static str],
}

impl KnownBoard {
    /// The profiles as a capability.
    ///
    /// # Errors
    /// Never for a row of [`BOARDS`]: a test reads them all.
    pub fn capability(&self) -> Result<MigCapability, MigError> {
        MigCapability::try_new(self.profiles.iter().map(|row| MigProfile::parse(row)).collect::<Result<_, _>>()?)
    }

    /// The board of a name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Self> {
        BOARDS.iter().find(|b| b.name == name)
    }
}

/// Boards whose figures are known.
/// Source: `nvidia-smi mig -lgip` and `-lgipp` captures and tables of mig-parted (`deployments/systemd/config-default.yaml`, `pkg/mig`), the
/// MIG user guide, and NVIDIA/k8s-test-infra. Memory of 7g and of the GiB figures is rounded to MiB. Checked: 2026-11-20.
pub const BOARDS: &[KnownBoard] = &[
    KnownBoard {
        name: "a100-40",
        device_ids: &[0x20b0, 0x20b1, 0x20f1, 0x20f6],
        profiles: &[
            "1g.5gb 19 1 4864 7 1@0,1,2,3,4,5,6",
            "1g.5gb+me 20 1 4864 1 1@0,1,2,3,4,5,6",
            "1g.10gb 15 1 9856 4 2@0,2,4,6",
            "2g.10gb 14 2 9856 3 2@0,2,4",
            "3g.20gb 9 3 19968 2 4@0,4",
            "4g.20gb 5 4 19968 1 4@0",
            "7g.40gb 0 7 40192 1 8@0",
        ],
    },
    KnownBoard {
        name: "a100-80",
        device_ids: &[0x20b2, 0x20b5, 0x20f3, 0x20f5],
        profiles: &[
            "1g.10gb 19 1 9856 7 1@0,1,2,3,4,5,6",
            "1g.10gb+me 20 1 9856 1 1@0,1,2,3,4,5,6",
            "1g.20gb 15 1 19968 4 2@0,2,4,6",
            "2g.20gb 14 2 19968 3 2@0,2,4",
            "3g.40gb 9 3 40192 2 4@0,4",
            "4g.40gb 5 4 40192 1 4@0",
            "7g.80gb 0 7 80384 1 8@0",
        ],
    },
    KnownBoard {
        name: "h100-80",
        device_ids: &[0x2330, 0x2331, 0x2322, 0x2324],
        profiles: &[
            "1g.10gb 19 1 9984 7 1@0,1,2,3,4,5,6",
            "1g.10gb+me 20 1 9984 1 1@0,1,2,3,4,5,6",
            "1g.20gb 15 1 20096 4 2@0,2,4,6",
            "2g.20gb 14 2 20096 3 2@0,2,4",
            "3g.40gb 9 3 40448 2 4@0,4",
            "4g.40gb 5 4 40448 1 4@0",
            "7g.80gb 0 7 81152 1 8@0",
        ],
    },
    // Cap of 1g.6gb+me as on other boards; its starts follow 1g.6gb. 2g.12gb+me is left out: its id is not known.
    KnownBoard {
        name: "a30",
        device_ids: &[0x20b7],
        profiles: &[
            "1g.6gb 14 1 5952 4 1@0,1,2,3",
            "1g.6gb+me 21 1 5952 1 1@0,1,2,3",
            "2g.12gb 5 2 11968 2 2@0,2",
            "4g.24gb 0 4 24064 1 4@0",
        ],
    },
];

#[cfg(test)]
mod tests;
