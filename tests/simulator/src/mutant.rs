//! Schedulers with one thing wrong, made at the seams of the real one: the simulator must find each.

/// What is wrong with the schedulers of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Nothing.
    None,
    /// What a bind planned is not held while its write is on its way.
    NoHold,
    /// A hold is given back when nobody knows what the write did.
    HoldFreedWhenUnknown,
    /// The write binds whatever pod has the name.
    UidIgnored,
    /// The list before the write is what the pod watch saw.
    ListNotConsistent,
    /// A report that is older than the known one is taken.
    OlderReportTaken,
    /// A pod that is gone is not taken out of the ledger.
    DeletionsMissed,
    /// Holds are never looked over.
    HoldsNeverEnd,
}
