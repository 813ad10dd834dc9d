//! Levels: how far a node keeps to the plans that are made for it.

/// What a plan for a node promises, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Level {
    /// Another device plugin chooses the devices.
    #[default]
    Advice,
    /// The kubelet is asked for the planned devices, and has the last word.
    Preferred,
    /// A container gets the planned devices or does not start.
    Enforced,
}

impl Level {
    /// All of them, the weakest first.
    pub const ALL: [Self; 3] = [Self::Advice, Self::Preferred, Self::Enforced];

    /// The closed word of flags, reports and policies.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Advice => "advice",
            Self::Preferred => "preferred",
            Self::Enforced => "enforced",
        }
    }

    /// The level of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.word() == word)
    }
}

/// Berth's own device plugin on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DevicePlugin {
    /// What it promises; never [`Level::Advice`].
    pub level: Level,
    /// Whether the kubelet knows all its resources and it is not about to stop. A pod that a kubelet admits while it does not is lost.
    pub is_accepting: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_levels_word_is_that_level_and_the_order_is_that_of_the_promises() {
        for level in Level::ALL {
            assert_eq!(Level::parse(level.word()), Some(level));
        }
        assert_eq!(Level::parse("L2"), None);
        assert!(Level::ALL.is_sorted() && Level::default() == Level::ALL[0]);
    }
}
