//! NVLink islands of a node and their shape, as the pictures, the comparison and lint need them. Pure.

use berth_model::NodeTopology;

use crate::render::fabric::components;

/// GPUs that hang together by NVLink; positions in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Island {
    /// At least two positions.
    pub(crate) members: Vec<usize>,
    /// How they are joined.
    pub(crate) shape: Shape,
}

/// How the GPUs of an island are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Every GPU reaches every other one with as many links as the poorer of the two has: switches, or a mesh as even as if there were.
    /// The links of each member, in their order.
    Even(Vec<u8>),
    /// Links between some pairs: two positions and a count.
    Pairs(Vec<(usize, usize, u8)>),
}

/// Fewest GPUs of an even island: two joined GPUs are a pair.
const EVEN_GPUS_MIN: usize = 3;

/// NVLinks between two GPUs by position; 0 for none.
pub(crate) fn nvlinks(node: &NodeTopology, a: usize, b: usize) -> u8 {
    node.parts().links.link(a, b).map_or(0, |l| l.nvlinks)
}

/// NVLinks of a GPU: the most to any other one, and the sum over all.
pub(crate) fn nvlinks_of(node: &NodeTopology, gpu: usize) -> (u8, u32) {
    let counts = (0..node.parts().gpus.len()).map(|other| nvlinks(node, gpu, other));
    counts.fold((0, 0), |(most, sum), count| (most.max(count), sum + u32::from(count)))
}

/// The islands in the order of their lowest GPU.
pub(crate) fn islands(node: &NodeTopology) -> Vec<Island> {
    let all: Vec<usize> = (0..node.parts().gpus.len()).collect();
    let groups = components(&all, |a, b| nvlinks(node, a, b) > 0);
    groups.into_iter().filter(|g| g.len() > 1).map(|members| island(node, members)).collect()
}

fn island(node: &NodeTopology, members: Vec<usize>) -> Island {
    let mut pairs: Vec<(usize, usize, u8)> = Vec::new();
    for (i, a) in members.iter().enumerate() {
        pairs.extend(members.iter().skip(i + 1).map(|b| (*a, *b, nvlinks(node, *a, *b))));
    }
    let links: Vec<u8> = members.iter().map(|m| nvlinks_of(node, *m).0).collect();
    let of = |gpu: usize| members.iter().position(|m| *m == gpu).and_then(|i| links.get(i)).copied().unwrap_or(0);
    let is_even = members.len() >= EVEN_GPUS_MIN && pairs.iter().all(|(a, b, count)| *count == of(*a).min(of(*b)));
    let shape = if is_even {
        Shape::Even(links)
    } else {
        pairs.retain(|(_, _, count)| *count > 0);
        Shape::Pairs(pairs)
    };
    Island { members, shape }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample::{Sample, dgx_h100};

    #[test]
    fn a_switched_node_is_even_also_when_one_gpu_lost_links() {
        let all = (0..8).collect::<Vec<_>>();
        assert_eq!(islands(&dgx_h100()), [Island { members: all, shape: Shape::Even(vec![18; 8]) }]);
        let rows = ["X NV16/SYS NV16/SYS", "NV16/SYS X NV18/SYS", "NV16/SYS NV18/SYS X"];
        let node = Sample::new(&rows, &[0, 0, 0], &[]).build();
        assert_eq!(islands(&node)[0].shape, Shape::Even(vec![16, 18, 18]));
    }

    #[test]
    fn a_hybrid_mesh_is_pairs_and_a_lone_gpu_is_no_island() {
        let rows = ["X NV2/PIX NV1/PIX PIX", "NV2/PIX X PIX PIX", "NV1/PIX PIX X PIX", "PIX PIX PIX X"];
        let node = Sample::new(&rows, &[0, 0, 0, 0], &[]).build();
        let shape = Shape::Pairs(vec![(0, 1, 2), (0, 2, 1)]);
        assert_eq!(islands(&node), [Island { members: vec![0, 1, 2], shape }]);
        assert_eq!(nvlinks_of(&node, 0), (2, 3));
    }
}
