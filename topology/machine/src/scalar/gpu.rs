//! Scalars of a GPU: closed words, links, MIG tables.

use berth_model::gpu::detail::{
    Architecture, ComputeMode, FabricHealth, FabricState, HostVgpu, PcieLink, Virtualization,
};
use berth_model::mig::catalog::KnownBoard;
use berth_model::{Link, MigCapability, MigProfile};

use super::Scalar;

macro_rules! words {
    ($($kind:ty = $expected:literal,)+) => {
        $(impl Scalar for $kind {
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Option<Self> {
                Self::from_word(text)
            }
        })+
    };
}

words! {
    Architecture = "an architecture like hopper",
    ComputeMode = "default, exclusive-thread, prohibited or exclusive-process",
    Virtualization = "none, passthrough, vgpu, host-vgpu or host-vsga",
    HostVgpu = "non-sriov or sriov",
    FabricState = "not-started, in-progress or completed",
    FabricHealth = "healthy, unhealthy or limited-capacity",
}

impl Scalar for PcieLink {
    const EXPECTED: &'static str = "a link like 5x16";

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

/// Counts by NVLink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkCounts(pub(crate) Vec<(u8, u64)>);

impl Scalar for LinkCounts {
    const EXPECTED: &'static str = "none, or counts by link like 3:100 7:1";

    fn parse(text: &str) -> Option<Self> {
        if text == "none" {
            return Some(Self(Vec::new()));
        }
        let count = |word: &str| {
            let (link, count) = word.split_once(':')?;
            let link = link.parse().ok().filter(|l| *l < Link::NVLINKS_MAX)?;
            Some((link, count.parse().ok()?))
        };
        text.split(' ').map(count).collect::<Option<Vec<_>>>().map(Self)
    }
}

/// UUID of a fabric's cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cluster(pub(crate) [u8; 16]);

impl Scalar for Cluster {
    const EXPECTED: &'static str = "a UUID";

    fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u32> = text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
        let bytes = digits.chunks(2).map(|pair| match pair {
            [high, low] => u8::try_from(high * 16 + low).ok(),
            _ => None,
        });
        bytes.collect::<Option<Vec<u8>>>()?.try_into().ok().map(Self)
    }
}

/// MIG profiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MigTable(pub(crate) MigCapability);

impl Scalar for MigTable {
    const EXPECTED: &'static str =
        "a known board like h100-80, or rows like \"1g.10gb 19 1 9984 7 1@0,1,2\" separated by ;";

    fn parse(text: &str) -> Option<Self> {
        if let Some(board) = KnownBoard::by_name(text) {
            return board.capability().ok().map(Self);
        }
        let rows = text.split(';').map(|row| MigProfile::parse(row.trim()));
        MigCapability::try_new(rows.collect::<Result<_, _>>().ok()?).ok().map(Self)
    }
}

/// Rows of text that are checked against a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MigRows(pub(crate) Vec<String>);

impl Scalar for MigRows {
    const EXPECTED: &'static str = "none, or instances like 3g.40gb@4+4 separated by ;";

    fn parse(text: &str) -> Option<Self> {
        let rows = if text == "none" { Vec::new() } else { text.split(';').map(|r| r.trim().to_owned()).collect() };
        Some(Self(rows))
    }
}
