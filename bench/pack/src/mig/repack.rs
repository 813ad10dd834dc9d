//! The reference that moves everything at will: a request is turned away only where no arrangement of all instances exists.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::arrivals::Request;
use super::cluster::Tally;

/// Runs the requests.
#[must_use]
pub fn run(requests: &[Request], gpu_count: usize) -> Tally {
    let mut live = [0_i64; 6];
    let mut endings: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut tally = Tally::default();
    let warm = requests.len() / 5;
    let gpu_count = i64::try_from(gpu_count).unwrap_or(i64::MAX);
    for (number, request) in requests.iter().enumerate() {
        while let Some(Reverse((_, profile))) = endings.peek().copied().filter(|Reverse((at, _))| *at <= request.at) {
            endings.pop();
            live[profile] -= 1;
        }
        live[request.profile] += 1;
        let fits = fits(gpu_count, live);
        if fits {
            endings.push(Reverse((request.until, request.profile)));
        } else {
            live[request.profile] -= 1;
        }
        if number >= warm {
            tally.count(request.profile, fits);
        }
    }
    tally
}

/// Whether so many instances of each profile fit on seven-slice cards. A left half takes a 4g, a 3g or two pairs of slots; a right half a
/// 3g, or one pair and the last pair, which holds a 1g with double memory or one 1g. A pair holds a 2g, a double 1g, or two 1g.
#[must_use]
pub fn fits(gpu_count: i64, [one, double, two, three, four, seven]: [i64; 6]) -> bool {
    let cards = gpu_count - seven;
    let left = cards - four;
    // A 3g on the right costs a pair less than on the left.
    let on_the_right = three.min(cards);
    let (left, right) = (left - (three - on_the_right), cards - on_the_right);
    let pairs = 2 * left + right - two;
    let last = double.min(right);
    let (pairs_left, last_left) = (pairs - (double - last), right - last);
    cards >= 0 && left >= 0 && pairs >= 0 && pairs_left >= 0 && one <= 2 * pairs_left + last_left
}
