//! What can happen in one step, with all that was drawn for it: a run is a seed, and the same run is its list of steps.
//!
//! Numbers name things by their place among those that are there, and a step that fits nothing does nothing: a list from which
//! steps were taken is a run too.

use serde::{Deserialize, Serialize};

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// A call that waits gets its answer, or does not.
    Answer { nth: u16, how: How },
    /// Something comes out of a watch.
    Deliver { nth: u16, how: Delivery },
    /// Time passes.
    Wait { ms: u32 },
    /// The clock jumps.
    Jump { seconds: u16 },
    /// Somebody makes a pod; `again` takes the name of one that is there or was there.
    Create { shape: u8, again: bool },
    /// Somebody deletes a pod: it leaves, and is gone when its kubelet says so.
    Delete { nth: u16 },
    /// A pod that leaves is gone, or one that does not is deleted by force.
    Remove { nth: u16 },
    /// The kubelet starts a bound pod, or says how a running one ended.
    Kubelet { nth: u16, ended: bool },
    /// Another scheduler binds a pending pod, without a plan.
    Foreign { nth: u16, node: u8 },
    /// kube-scheduler's leader asks about a pending pod and chooses among the answers.
    Schedule { nth: u16, names: u8, pick: u8 },
    /// kube-scheduler calls bind for a pod that has its node.
    Bind { nth: u16 },
    /// kube-scheduler repeats a bind that has ended.
    Rebind { nth: u16 },
    /// Another replica leads from now on.
    Lead { replica: u8 },
    /// A replica's process dies, with what it has on its way.
    Kill { replica: u8 },
    /// A replica's process starts.
    Start { replica: u8 },
    /// A node goes, comes, or boots anew.
    Node { at: u8, what: NodeStep },
    /// An agent publishes.
    Report { at: u8, what: ReportStep },
    /// An agent's pod becomes Ready, or not, or is gone.
    Agent { at: u8, state: AgentState },
    /// Somebody edits the policy; none for deleting it.
    Policy { document: Option<u8> },
    /// The API server forgets what it told of a kind.
    Compact { kind: u8 },
    /// Faults stop. All comes right, or it never will.
    Calm,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum How {
    /// It is served.
    Ok,
    /// A list that is so many versions old; only watchers can be told such a thing.
    Stale(u8),
    /// It is refused with this status and not applied.
    Refuse(u16),
    /// It is applied and answered with 504.
    ApplyAndRefuse,
    /// It is neither applied nor answered.
    Lose,
    /// It is applied and not answered.
    ApplyAndLose,
    /// The connection ends before it is applied.
    Cut,
    /// The connection ends after it is applied.
    ApplyAndCut,
}

/// What comes out of a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Delivery {
    /// The next event.
    Next,
    /// The next event, two times.
    Twice,
    /// Not the next event, ever.
    Skip,
    /// The next two, of two objects, in the other order.
    Swap,
    /// An event of before.
    Again(u8),
    /// A bookmark.
    Bookmark,
    /// The end, as of a server that restarts.
    End,
    /// 410.
    Gone,
    /// The end in the middle.
    Cut,
    /// A line that cannot be read.
    Garbage,
    /// The end, if the watch's time is over.
    Expire,
}

/// What becomes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NodeStep {
    /// It is deleted, with its pods and its report.
    Gone,
    /// It is there.
    Back,
    /// It boots.
    Boot,
}

/// What an agent publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ReportStep {
    /// The truth, with the next generation; so many bits of GPUs are lost.
    Next { lost: u8 },
    /// The truth with a generation of before.
    Back,
    /// What nobody can read.
    Broken,
    /// Nothing: the object is deleted.
    Gone,
}

/// How an agent's pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AgentState {
    Ready,
    NotReady,
    Gone,
}
