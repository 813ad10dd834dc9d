//! Refusals: containers that get no devices from a node that enforces plans, and why. The reasons are a closed set.

/// Why a container gets no devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalReason {
    /// The pod has no plan.
    NoPlan,
    /// The plan is another pod's or another node's.
    ForeignPlan,
    /// The annotation is no plan.
    BrokenPlan,
    /// The plan says nothing for this container and resource, or another count.
    OtherPlan,
    /// A planned device is not on the node.
    UnknownDevice,
    /// A planned device must not get pods.
    SickDevice,
    /// A planned device is in another live lease, or held without one.
    DeviceLeased,
    /// The kubelet names more than one holder, or does not say whose the devices are.
    Ambiguous,
    /// Nothing on the node says how a container reaches the device.
    NoEdits,
}

impl RefusalReason {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::NoPlan,
        Self::ForeignPlan,
        Self::BrokenPlan,
        Self::OtherPlan,
        Self::UnknownDevice,
        Self::SickDevice,
        Self::DeviceLeased,
        Self::Ambiguous,
        Self::NoEdits,
    ];

    /// The closed word of wire form and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NoPlan => "no-plan",
            Self::ForeignPlan => "foreign-plan",
            Self::BrokenPlan => "broken-plan",
            Self::OtherPlan => "other-plan",
            Self::UnknownDevice => "unknown-device",
            Self::SickDevice => "sick-device",
            Self::DeviceLeased => "device-leased",
            Self::Ambiguous => "ambiguous",
            Self::NoEdits => "no-edits",
        }
    }

    /// What helps, for people.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::NoPlan => "Delete the pod and let schedulerName berth place it, without nodeName.",
            Self::ForeignPlan => "Delete the pod; only the scheduler may write plans.",
            Self::BrokenPlan => {
                "Delete the pod; the annotation was changed, or agent and scheduler are of different versions."
            }
            Self::OtherPlan => "Delete the pod; the plan does not fit what the kubelet was asked for.",
            Self::UnknownDevice => "Delete the pod; the card was removed, or cut anew, since it was planned.",
            Self::SickDevice => "It starts by itself when the device is well again; else delete the pod.",
            Self::DeviceLeased => "It starts by itself when the other pod ends; else delete this pod.",
            Self::Ambiguous => {
                "It starts by itself when the kubelet is clear; if it lasts, see the agent's log and mounts."
            }
            Self::NoEdits => "It starts by itself once nvidia-ctk cdi generate has run, or the device files are there.",
        }
    }

    /// Reads the closed word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.word() == word)
    }
}

/// A container that waits for devices which it does not get as things are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// Namespace and name of the pod, joined by `/`.
    pub pod: String,
    /// UID of the pod: a pod of the same name that comes later is another one.
    pub pod_uid: String,
    /// The container.
    pub container: String,
    /// Why.
    pub reason: RefusalReason,
    /// Why in this case, for people.
    pub text: String,
}

impl Refusal {
    /// Most refusals of a node: the kubelet admits 110 pods unless told otherwise, and few wait at once.
    pub const REFUSALS_MAX: usize = 128;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        for reason in RefusalReason::ALL {
            assert_eq!(RefusalReason::from_word(reason.word()), Some(reason));
        }
        assert_eq!(RefusalReason::from_word("no plan"), None);
    }

    #[test]
    fn every_reason_has_its_own_advice() {
        let advices: std::collections::BTreeSet<&str> = RefusalReason::ALL.map(RefusalReason::advice).into();
        assert_eq!(advices.len(), RefusalReason::ALL.len());
    }
}
