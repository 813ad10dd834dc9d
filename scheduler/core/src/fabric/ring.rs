//! The best ring of every GPU set: what a single NCCL ring through all GPUs of the set can run at, bounded by its slowest hop.

/// For every set (as its bits) the slowest hop of its best ring, in MB/s: the link itself for two GPUs, zero for fewer.
///
/// `speeds` is row-major, `count` x `count` and symmetric. Thresholds are tried from fast to slow: a set has a ring at a speed when the
/// graph of the links that are at least as fast has a Hamiltonian cycle through it, found by growing paths from the set's lowest GPU
/// (Held and Karp, one word of path ends per set). That is 2^count x count steps per distinct speed: 16 GPUs take milliseconds.
pub(super) fn rings(count: usize, speeds: &[u32]) -> Vec<u32> {
    let sets = 1_usize.checked_shl(u32::try_from(count).unwrap_or(u32::MAX)).unwrap_or(0);
    let mut rings = vec![0_u32; sets];
    let mut thresholds: Vec<u32> = pairs(count).filter_map(|(a, b)| speed(count, speeds, a, b)).collect();
    thresholds.sort_unstable();
    thresholds.dedup();
    for threshold in thresholds.into_iter().rev() {
        let near: Vec<usize> = (0..count).map(|a| neighbours(count, speeds, a, threshold)).collect();
        let ends = path_ends(sets, &near);
        for (set, (ring, ends)) in rings.iter_mut().zip(&ends).enumerate() {
            let from_start = near.get(lowest(set)).copied().unwrap_or(0);
            // Two GPUs are a ring of one link there and back; three or more need a closing link.
            if *ring == 0 && set.count_ones() > 1 && ends & from_start != 0 {
                *ring = threshold;
            }
        }
    }
    rings
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |a| (a.saturating_add(1)..count).map(move |b| (a, b)))
}

fn speed(count: usize, speeds: &[u32], a: usize, b: usize) -> Option<u32> {
    speeds.get(a.saturating_mul(count).saturating_add(b)).copied()
}

fn neighbours(count: usize, speeds: &[u32], a: usize, threshold: u32) -> usize {
    let is_near = |b: &usize| *b != a && speed(count, speeds, a, *b) >= Some(threshold);
    (0..count).filter(is_near).fold(0, |set, b| set | bit(b))
}

fn bit(position: usize) -> usize {
    u32::try_from(position).ok().and_then(|p| 1_usize.checked_shl(p)).unwrap_or(0)
}

fn lowest(set: usize) -> usize {
    usize::try_from(set.trailing_zeros()).unwrap_or(usize::MAX)
}

/// For every set the GPUs at which a path through all of the set may end that starts at its lowest GPU.
fn path_ends(sets: usize, near: &[usize]) -> Vec<usize> {
    let mut ends = vec![0_usize; sets];
    for set in 1..sets {
        let start = set & set.wrapping_neg();
        if set == start {
            put(&mut ends, set, start);
            continue;
        }
        let mut rest = set ^ start;
        let mut found = 0;
        while rest != 0 {
            let last = rest & rest.wrapping_neg();
            rest ^= last;
            let before = ends.get(set ^ last).copied().unwrap_or(0);
            if before & near.get(lowest(last)).copied().unwrap_or(0) != 0 {
                found |= last;
            }
        }
        put(&mut ends, set, found);
    }
    ends
}

fn put(ends: &mut [usize], set: usize, value: usize) {
    if let Some(cell) = ends.get_mut(set) {
        *cell = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The best ring by trying every order of the GPUs.
    fn by_permutation(count: usize, speeds: &[u32], set: usize) -> u32 {
        fn walk(count: usize, speeds: &[u32], path: &mut Vec<usize>, left: usize, slowest: u32) -> u32 {
            let (first, last) = (path[0], path[path.len() - 1]);
            if left == 0 {
                return slowest.min(speeds[last * count + first]);
            }
            let next = (0..count).filter(|b| left >> b & 1 == 1).map(|b| {
                path.push(b);
                let found = walk(count, speeds, path, left & !(1 << b), slowest.min(speeds[last * count + b]));
                path.pop();
                found
            });
            next.max().unwrap_or(0)
        }
        if set.count_ones() < 2 {
            return 0;
        }
        let start = lowest(set);
        walk(count, speeds, &mut vec![start], set & !(1 << start), u32::MAX)
    }

    #[test]
    fn every_ring_equals_the_best_of_all_orders() {
        let mut state = 7_u64;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..60 {
            let count = usize::try_from(1 + draw(7)).unwrap();
            let kinds = 1 + draw(5);
            let mut speeds = vec![0; count * count];
            for (a, b) in pairs(count) {
                let speed = u32::try_from(10 + draw(kinds)).unwrap();
                (speeds[a * count + b], speeds[b * count + a]) = (speed, speed);
            }
            for (set, ring) in rings(count, &speeds).into_iter().enumerate() {
                assert_eq!(ring, by_permutation(count, &speeds, set), "{count} GPUs, set {set:b}, {speeds:?}");
            }
        }
    }
}
