//! The worked examples of REFERENCE.md ("The policy's weights"), each as it stands there.

use super::shares::with_policy;
use super::*;
use crate::value::Remainder;
use crate::value::rooms::Rooms;

/// A pod of so many GPUs, with 12 cores and 128 GiB for each: an eighth of the machine.
fn eighths(gpus: u32) -> Demand {
    let mut demand = demand(gpus, &[]);
    demand.shape.cpu_milli = u64::from(gpus) * 12_000;
    demand.shape.memory = MiB(u64::from(gpus) * 131_072);
    demand
}

/// Puts the pods one after the other on the best of the nodes, of equal ones the first, and says where each went.
fn filled(nodes: &mut [NodeView], pods: &[Demand], policy: &Policy) -> Vec<usize> {
    let mut went = Vec::new();
    for pod in pods {
        let mut best: Option<(Score, usize, GpuSet)> = None;
        for (at, node) in nodes.iter().enumerate() {
            let Ok(fit) = decide(node, &pod.shape, policy, &mut Afresh) else { continue };
            if best.is_none_or(|(score, _, _)| fit.score > score) {
                best = Some((fit.score, at, fit.set().unwrap()));
            }
        }
        let (_, at, set) = best.unwrap();
        nodes[at].held = nodes[at].held.or(set);
        nodes[at].requested.cpu_milli += pod.shape.cpu_milli;
        nodes[at].requested.memory.0 += pod.shape.memory.0;
        went.push(at);
    }
    went
}

fn three_nodes() -> Vec<NodeView> {
    vec![idle(Box8::Switched); 3]
}

fn weights(text: &str) -> Policy {
    with_policy(&format!("classes: {{default: {{weights: {text}}}}}"))
}

#[test]
fn most_allocated_with_gpu_3_cpu_1_memory_1_fills_one_node_before_the_next() {
    let pods: Vec<Demand> = [2, 4, 2, 4, 4, 8].into_iter().map(eighths).collect();
    for policy in [weights("{gpu: 3, cpu: 1, memory: 1, link: 0, kept: 0}"), Policy::default()] {
        assert_eq!(filled(&mut three_nodes(), &pods, &policy), [0, 0, 0, 1, 1, 2]);
    }
}

#[test]
fn spread_takes_the_emptiest_node() {
    let pods: Vec<Demand> = [2, 2, 2, 2].into_iter().map(eighths).collect();
    let spread = with_policy("classes: {default: {placement: spread}}");
    assert_eq!(filled(&mut three_nodes(), &pods, &spread), [0, 1, 2, 0]);
}

/// Two nodes; the pod of one GPU goes to the one that the weight likes.
fn chosen(first: NodeView, second: NodeView, policy: &Policy) -> usize {
    filled(&mut [first, second], &[eighths(1)], policy)[0]
}

#[test]
fn cpu_and_memory_weigh_against_gpus() {
    let compute = |gpus: u64| crate::view::Compute { cpu_milli: gpus * 12_000, memory: MiB(gpus * 131_072) };
    let by_gpus = NodeView { held: bits(0b1111), ..idle(Box8::Switched) };
    let by_cores = NodeView { requested: compute(6), ..idle(Box8::Switched) };
    let only = |name: &str| {
        weights(&format!("{{gpu: 0, cpu: 0, memory: 0, link: 0, kept: 0, {name}: 1}}").replacen(
            &format!("{name}: 0, "),
            "",
            1,
        ))
    };
    assert_eq!(chosen(by_gpus.clone(), by_cores.clone(), &only("gpu")), 0);
    assert_eq!(chosen(by_gpus.clone(), by_cores.clone(), &only("cpu")), 1);
    assert_eq!(chosen(by_gpus, by_cores, &only("memory")), 1);
}

#[test]
fn link_takes_the_node_whose_free_gpus_are_nearer_and_kept_the_gpu_whose_partner_is_gone() {
    // GPUs 0 and 1 are bridged, 2 and 3 are: free are 0 and 2 on the first node, 0 and 1 on the second.
    let apart = NodeView { held: bits(0b1111_1010), ..idle(Box8::PciePairs) };
    let pair = NodeView { held: bits(0b1111_1100), ..idle(Box8::PciePairs) };
    let two = [eighths(2)];
    assert_eq!(filled(&mut [apart.clone(), pair.clone()], &two, &weights("{link: 4, kept: 0}")), [1]);
    assert_eq!(
        filled(&mut [apart.clone(), pair.clone()], &two, &weights("{link: 0, kept: 0}")),
        [0],
        "all the same: the first"
    );
    // A pod of one GPU leaves the pair alone.
    assert_eq!(chosen(pair.clone(), apart.clone(), &weights("{link: 0, kept: 2}")), 1);
    assert_eq!(chosen(pair, apart, &weights("{link: 0, kept: 0}")), 0, "all the same: the first");
}

const EXPECTED: &str = "expected:
- {gpus: 1, cpuMilli: 8000, weight: 50}
- {gpus: 8, cpuMilli: 64000, weight: 1}
";

#[test]
fn left_keeps_gpus_from_nodes_whose_cpu_is_gone() {
    // Two GPUs are free on both nodes, but the first has cores for one pod only: that one makes the other GPU useless.
    let mut short = NodeView { held: bits(0b1111_1100), ..idle(Box8::Switched) };
    short.requested.cpu_milli = short.allocatable.cpu_milli - 13_000;
    let ample = NodeView { held: bits(0b1111_1100), ..idle(Box8::Switched) };
    let policy = with_policy(EXPECTED);
    assert_eq!(chosen(short.clone(), ample.clone(), &policy), 1);
    assert_eq!(chosen(short, ample, &Policy::default()), 0, "by use, the node with the busier CPU");
}

#[test]
fn left_keeps_an_idle_node_for_eight_gpus() {
    let mut used = NodeView { held: bits(0b11), ..idle(Box8::Switched) };
    used.requested.cpu_milli = 24_000;
    let policy = with_policy(&format!("{EXPECTED}left: {{multiPermille: 1000, stepMilli: 10}}"));
    assert_eq!(chosen(idle(Box8::Switched), used, &policy), 1);
}

#[test]
fn left_keeps_the_last_idle_nodes_for_eight_gpus_and_no_others() {
    let mut used = NodeView { held: bits(0b11), ..idle(Box8::Switched) };
    used.requested.cpu_milli = 24_000;
    let policy = with_policy(&format!("{EXPECTED}left: {{stepMilli: 10}}"));
    let beside = |idle_count: u64| {
        let mut rooms = Rooms::of(Arc::clone(policy.expected().unwrap().large()));
        (0..idle_count).for_each(|_| rooms.add(Remainder { cpu_milli: 96_000, gpus: &[1000; 8] }));
        let policy = policy.seeing(&rooms).unwrap_or_else(|| policy.clone());
        let scores = |view: &NodeView| plan(view, &eighths(1), &policy).unwrap().parts[5].value;
        (scores(&idle(Box8::Switched)), scores(&used))
    };
    let (idle_of_few, used_of_few) = beside(1);
    let (idle_of_many, used_of_many) = beside(40);
    assert!(idle_of_few < used_of_few);
    assert_eq!(used_of_few, used_of_many, "no room is lost on a node that has none");
    assert!(idle_of_few < idle_of_many);
}
