//! Names of MIG profiles: as NVML writes them, as resources write them, and what they say of media engines.

/// The profile's part of its resource name: the device plugin writes `+` as `.`, so `1g.10gb+me` is asked for as `1g.10gb.me`.
///
/// Source: github.com/NVIDIA/k8s-device-plugin `internal/rm/rm.go`.
#[must_use]
pub fn resource_form(profile: &str) -> String {
    profile.replace('+', ".")
}

/// Whether a resource's part after its prefix means the profile. Both forms are taken.
#[must_use]
pub fn means(asked: &str, profile: &str) -> bool {
    let same = |(a, p): (u8, u8)| a == p || (a == b'.' && p == b'+');
    asked.len() == profile.len() && asked.bytes().zip(profile.bytes()).all(same)
}

/// What an instance takes of a card's media engines beside its slots.
///
/// Source: NVIDIA's MIG user guide, profiles of H100 and of RTX PRO Blackwell. Checked: 2026-11-20.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Media {
    /// Its own part, or whatever its board gives: no rule.
    Own,
    /// None (`-me`).
    None,
    /// The one extension unit of the card (`+me`): one instance of a card has it.
    Extension,
    /// All of the card's (`+me.all`): beside it only instances without any.
    All,
}

impl Media {
    /// What the name says.
    #[must_use]
    pub fn of(profile: &str) -> Self {
        if profile.contains("+me.all") {
            Self::All
        } else if profile.contains("+me") {
            Self::Extension
        } else if profile.contains("-me") {
            Self::None
        } else {
            Self::Own
        }
    }

    /// Whether both may be on one card.
    #[must_use]
    pub fn allows(self, other: Self) -> bool {
        match (self, other) {
            (Self::None, _) | (_, Self::None) => true,
            (Self::All, _) | (_, Self::All) | (Self::Extension, Self::Extension) => false,
            (Self::Own | Self::Extension, Self::Own) | (Self::Own, Self::Extension) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_names_its_profile_with_dots_for_plus() {
        for profile in ["1g.10gb", "1g.10gb+me", "1g.24gb+gfx", "1g.24gb+me.all", "1g.24gb-me"] {
            assert!(means(&resource_form(profile), profile) && means(profile, profile), "{profile}");
        }
        assert_eq!(resource_form("1g.24gb+me.all"), "1g.24gb.me.all");
        for (asked, profile) in
            [("1g.10gb.me", "1g.10gb"), ("1g.10gb", "1g.10gb+me"), ("1g.24gb.me", "1g.24gb-me"), ("", "1g.5gb")]
        {
            assert!(!means(asked, profile), "{asked} {profile}");
        }
    }

    #[test]
    fn one_instance_has_the_extension_and_all_leaves_nothing() {
        let (own, none, one, all) =
            (Media::of("1g.24gb"), Media::of("1g.24gb-me"), Media::of("1g.24gb+me"), Media::of("1g.24gb+me.all"));
        assert_eq!((own, none, one, all), (Media::Own, Media::None, Media::Extension, Media::All));
        assert!(own.allows(one) && one.allows(own) && none.allows(all) && all.allows(none));
        assert!(!one.allows(one) && !all.allows(own) && !own.allows(all) && !all.allows(one));
    }
}
