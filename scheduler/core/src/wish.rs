//! What a pod may wish for its GPUs: one annotation each.
//!
//! A wish that cannot be parsed is an unfit with its text; it is never ignored.

use std::collections::BTreeMap;

use berth_model::{GpuIndex, GpuUuid, LinkClass, MiB, PcieLevel};

use crate::quantity;
use crate::unfit::{Reason, Unfit};

/// Prefix of every wish.
pub const PREFIX: &str = "berth.dev/";
/// Class of the policy.
pub const CLASS: &str = "berth.dev/class";
/// Worst link allowed inside the GPU set.
pub const LINK: &str = "berth.dev/link";
/// A NIC under the same PCIe switch for every GPU.
pub const RAIL: &str = "berth.dev/rail";
/// All GPUs of one zone.
pub const ZONE: &str = "berth.dev/zone";
/// Glob list of products.
pub const GPU_PRODUCT: &str = "berth.dev/gpu-product";
/// Least memory of every GPU.
pub const GPU_MEMORY: &str = "berth.dev/gpu-memory";
/// Exactly among these GPUs.
pub const GPUS: &str = "berth.dev/gpus";

/// How much a wish binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Force {
    /// No say.
    #[default]
    Off,
    /// Scores.
    Preferred,
    /// Refuses.
    Required,
}

/// The worst link a set may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkWish {
    /// Every pair must be at least this near.
    pub least: LinkClass,
    /// Whether that refuses or scores.
    pub force: Force,
}

impl LinkWish {
    /// Reads `nvlink`, `pix`, `pxb`, `phb`, `node` or `any`, with `:required` (default) or `:preferred`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (word, force) = match text.split_once(':') {
            None => (text, Force::Required),
            Some((word, "required")) => (word, Force::Required),
            Some((word, "preferred")) => (word, Force::Preferred),
            Some(_) => return None,
        };
        let least = match word {
            "nvlink" => LinkClass::NvLink(1),
            "pix" => LinkClass::Pcie(PcieLevel::Pix),
            "pxb" => LinkClass::Pcie(PcieLevel::Pxb),
            "phb" => LinkClass::Pcie(PcieLevel::Phb),
            "node" => LinkClass::Pcie(PcieLevel::Node),
            "any" => LinkClass::Unknown,
            _ => return None,
        };
        Some(Self { least, force })
    }
}

/// A GPU named by its owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamedGpu {
    /// By position.
    Index(GpuIndex),
    /// By identity.
    Uuid(GpuUuid),
}

/// All wishes of one pod, as the annotations say; absent ones are left to the policy's class.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wishes {
    /// Class of the policy.
    pub class: Option<String>,
    /// Worst link inside the set.
    pub link: Option<LinkWish>,
    /// Rails.
    pub rail: Option<Force>,
    /// One zone.
    pub zone: Option<Force>,
    /// Product globs; empty for any.
    pub products: Vec<String>,
    /// Least memory of every GPU.
    pub memory: Option<MiB>,
    /// Exactly among these; empty for any.
    pub named: Vec<NamedGpu>,
}

/// Longest list a wish may hold: bounds the work of matching.
const LIST_MAX: usize = 64;

impl Wishes {
    /// Reads the pod's annotations. Keys outside `berth.dev/` are not ours.
    ///
    /// # Errors
    /// [`Reason::BadWish`] names the annotation, its value and the legal forms.
    pub fn parse(annotations: &BTreeMap<String, String>) -> Result<Self, Unfit> {
        let mut wishes = Self::default();
        for (key, value) in annotations.iter().filter(|(k, _)| k.starts_with(PREFIX)) {
            wishes.take(key, value.trim())?;
        }
        Ok(wishes)
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), Unfit> {
        match key {
            CLASS => self.class = Some(value.to_owned()),
            LINK => {
                let forms = "nvlink, pix, pxb, phb, node or any, with :required or :preferred";
                self.link = Some(LinkWish::parse(value).ok_or_else(|| bad(key, value, forms))?);
            }
            RAIL => self.rail = Some(parse_force(key, value)?),
            ZONE => self.zone = Some(parse_force(key, value)?),
            GPU_PRODUCT => {
                self.products =
                    parse_products(value).ok_or_else(|| bad(key, value, "a list of globs such as *H100*,*H200*"))?;
            }
            GPU_MEMORY => {
                self.memory = Some(parse_memory(value).ok_or_else(|| bad(key, value, "a quantity such as 40Gi"))?);
            }
            GPUS => {
                self.named = parse_named(value)
                    .ok_or_else(|| bad(key, value, "a list of indexes or UUIDs such as 0,1 or GPU-..."))?;
            }
            _ => return Err(bad(key, value, "one of class, link, rail, zone, gpu-product, gpu-memory, gpus")),
        }
        Ok(())
    }
}

fn bad(key: &str, value: &str, forms: &str) -> Unfit {
    let value: String = value.chars().take(64).collect();
    Unfit::new(Reason::BadWish, format!("annotation {key}: {value:?} is not {forms}"))
}

fn parse_force(key: &str, value: &str) -> Result<Force, Unfit> {
    match value {
        "off" => Ok(Force::Off),
        "preferred" => Ok(Force::Preferred),
        "required" => Ok(Force::Required),
        _ => Err(bad(key, value, "required, preferred or off")),
    }
}

fn list(value: &str) -> Option<Vec<&str>> {
    let items: Vec<&str> = value.split(',').map(str::trim).collect();
    (items.len() <= LIST_MAX && items.iter().all(|i| !i.is_empty())).then_some(items)
}

fn parse_products(value: &str) -> Option<Vec<String>> {
    let mut globs: Vec<String> = list(value)?.into_iter().map(str::to_owned).collect();
    globs.sort_unstable();
    globs.iter().all(|g| g.len() <= 128).then_some(globs)
}

fn parse_memory(value: &str) -> Option<MiB> {
    let bytes = quantity::parse_units(value).ok()?;
    Some(MiB(bytes.div_ceil(1 << 20)))
}

fn parse_named(value: &str) -> Option<Vec<NamedGpu>> {
    let one = |item: &str| match item.parse::<u8>() {
        Ok(index) if index < 32 => Some(NamedGpu::Index(GpuIndex(index))),
        Ok(_) => None,
        Err(_) => item.starts_with("GPU-").then(|| GpuUuid::parse(item).ok().map(NamedGpu::Uuid)).flatten(),
    };
    let mut named = list(value)?.into_iter().map(one).collect::<Option<Vec<_>>>()?;
    named.sort_unstable();
    Some(named)
}

/// Whether `text` matches `glob`, where `*` stands for any run and `?` for one character; letter case does not count.
#[must_use]
pub fn glob_matches(glob: &str, text: &str) -> bool {
    let glob: Vec<char> = glob.to_lowercase().chars().collect();
    let text: Vec<char> = text.to_lowercase().chars().collect();
    // Positions of `glob` that can stand before the current character: linear in both lengths, whatever the glob.
    let mut alive = vec![false; glob.len().saturating_add(1)];
    if let Some(first) = alive.first_mut() {
        *first = true;
    }
    skip_stars(&glob, &mut alive);
    for c in text {
        let mut next = vec![false; alive.len()];
        for (i, token) in glob.iter().enumerate() {
            if !alive.get(i).copied().unwrap_or(false) {
                continue;
            }
            let target = if *token == '*' { i } else { i.saturating_add(1) };
            if (*token == '*' || *token == '?' || *token == c)
                && let Some(slot) = next.get_mut(target)
            {
                *slot = true;
            }
        }
        alive = next;
        skip_stars(&glob, &mut alive);
    }
    alive.last().copied().unwrap_or(false)
}

fn skip_stars(glob: &[char], alive: &mut [bool]) {
    for (i, token) in glob.iter().enumerate() {
        if *token == '*'
            && alive.get(i).copied().unwrap_or(false)
            && let Some(slot) = alive.get_mut(i.saturating_add(1))
        {
            *slot = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Wishes, Unfit> {
        let map = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Wishes::parse(&map)
    }

    #[test]
    fn every_wish_of_the_table_is_read() {
        let wishes = parse(&[
            (CLASS, "training"),
            (LINK, "pxb:preferred"),
            (RAIL, "required"),
            (ZONE, "off"),
            (GPU_PRODUCT, "*H100*, *A100*"),
            (GPU_MEMORY, "40Gi"),
            (GPUS, "3,GPU-ab,0"),
            ("other.io/link", "nonsense"),
        ])
        .unwrap();
        assert_eq!(wishes.class.as_deref(), Some("training"));
        assert_eq!(wishes.link, Some(LinkWish { least: LinkClass::Pcie(PcieLevel::Pxb), force: Force::Preferred }));
        assert_eq!((wishes.rail, wishes.zone), (Some(Force::Required), Some(Force::Off)));
        assert_eq!(wishes.products, ["*A100*", "*H100*"]);
        assert_eq!(wishes.memory, Some(MiB(40 * 1024)));
        assert_eq!(wishes.named.len(), 3);
        assert_eq!(LinkWish::parse("nvlink").unwrap().force, Force::Required);
    }

    #[test]
    fn a_wish_that_cannot_be_read_names_itself_and_the_legal_forms() {
        for (key, value, said) in [
            (LINK, "nvlnk", "nvlink, pix"),
            (LINK, "pix:maybe", ":required or :preferred"),
            (RAIL, "yes", "required, preferred or off"),
            (GPU_MEMORY, "lots", "40Gi"),
            (GPUS, "0,,1", "indexes or UUIDs"),
            (GPUS, "99", "indexes or UUIDs"),
            (GPU_PRODUCT, "", "globs"),
            ("berth.dev/lnk", "pix", "one of class, link"),
        ] {
            let unfit = parse(&[(key, value)]).unwrap_err();
            assert_eq!(unfit.reason, Reason::BadWish);
            assert!(unfit.detail.contains(key) && unfit.detail.contains(said), "{}", unfit.detail);
        }
    }

    #[test]
    fn globs_match_as_in_a_shell_but_for_letter_case() {
        let product = "NVIDIA H100 80GB HBM3";
        for glob in ["*h100*", "NVIDIA H100 80GB HBM3", "nvidia*hbm?", "*", "**H*100**"] {
            assert!(glob_matches(glob, product), "{glob}");
        }
        for glob in ["H100", "*h200*", "", "nvidia", "?"] {
            assert!(!glob_matches(glob, product), "{glob}");
        }
        assert!(!glob_matches(&"*a".repeat(60), &"a".repeat(59)));
    }
}
