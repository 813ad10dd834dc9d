//! What a piece of a GPU is worth, from how the expected shares fit together on whole GPUs.
//!
//! The dual of the cutting-stock problem over the sizes of shares gives every size a price: the part of a GPU that one such pod
//! uses up when all are cut as well as possible. A free piece is worth the best that can be bought with it; the rest of it is
//! waste. Floats stay in this module: they are quantised to parts per million before they leave it.
#![allow(
    clippy::float_arithmetic,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    reason = "a linear program of at most 64 rows, solved where the expectation is built; positions come from its own sizes"
)]

/// Milli-GPU of one GPU.
const WHOLE: usize = 1000;
/// Sizes that take part; the most frequent are given first. Real clusters show about twenty.
const SIZES_MAX: usize = 64;
/// Pivots; twenty sizes take about as many.
const PIVOTS_MAX: usize = 2000;
/// What counts as better, against rounding: prices are at most one.
const EPSILON: f64 = 1e-9;

/// By free milli of a GPU, 0 to 1000: how many millionths of a GPU of it are worth nothing to the expected shares.
///
/// Negative where a piece is worth more than its size: a pod of 810 milli spoils a whole GPU when nothing is expected that
/// fits beside it. `shares` are sizes in milli with how often each is expected.
#[must_use]
pub fn waste(shares: &[(u32, u64)]) -> Vec<i64> {
    let mut kept: Vec<(usize, f64)> = Vec::new();
    for (milli, count) in shares.iter().take(SIZES_MAX) {
        let milli = *milli as usize;
        if (1..WHOLE).contains(&milli) && *count > 0 && kept.iter().all(|(known, _)| *known != milli) {
            kept.push((milli, *count as f64));
        }
    }
    let prices: Vec<(usize, i64)> =
        kept.iter().map(|(milli, _)| *milli).zip(prices(&kept).into_iter().map(quantised)).collect();
    if prices.is_empty() {
        return vec![0; WHOLE + 1];
    }
    let best = knapsack(&prices);
    best.iter().enumerate().map(|(milli, worth)| milli as i64 * 1000 - worth).collect()
}

/// Millionths, to the nearest hundredth of a percent: prices are fractions of small denominators, and equal ones must stay
/// equal on every machine.
fn quantised(price: f64) -> i64 {
    (price.clamp(0.0, 1.0) * 10_000.0).round() as i64 * 100
}

/// The best that each piece of 0 to 1000 milli buys.
fn knapsack(prices: &[(usize, i64)]) -> Vec<i64> {
    let mut best = vec![0_i64; WHOLE + 1];
    for milli in 1..=WHOLE {
        let bought = prices.iter().filter(|(size, _)| *size <= milli).map(|(size, price)| best[milli - size] + price);
        best[milli] = bought.max().unwrap_or(0).max(best[milli - 1]);
    }
    best
}

/// The cut of one GPU that is worth most at these prices: how many of each size, and its worth.
fn best_cut(sizes: &[(usize, f64)], prices: &[f64]) -> (Vec<f64>, f64) {
    let mut best = vec![0.0_f64; WHOLE + 1];
    let mut last = vec![usize::MAX; WHOLE + 1];
    for milli in 1..=WHOLE {
        best[milli] = best[milli - 1];
        for (at, (size, _)) in sizes.iter().enumerate().filter(|(_, (size, _))| *size <= milli) {
            let worth = best[milli - size] + prices[at];
            if worth > best[milli] + EPSILON {
                best[milli] = worth;
                last[milli] = at;
            }
        }
    }
    let mut cut = vec![0.0; sizes.len()];
    let mut milli = WHOLE;
    while milli > 0 {
        let at = last[milli];
        if at == usize::MAX {
            milli -= 1;
        } else {
            cut[at] += 1.0;
            milli -= sizes[at].0;
        }
    }
    (cut, best[WHOLE])
}

/// Prices of all sizes: the dual of "as few GPUs as possible for these counts", by column generation (Gilmore and Gomory).
///
/// Columns are cuts; a cut that is worth more than one GPU at the present prices enters the basis. A size with a negative price
/// may be served more often than asked: its surplus column enters instead.
fn prices(sizes: &[(usize, f64)]) -> Vec<f64> {
    let n = sizes.len();
    // The start: every cut holds one size only, as often as it fits. The inverse of that basis is diagonal.
    let mut inverse = vec![vec![0.0; n]; n];
    let mut amounts = Vec::with_capacity(n);
    let mut costs = vec![1.0; n];
    for (at, (size, count)) in sizes.iter().enumerate() {
        let per_gpu = (WHOLE / size) as f64;
        inverse[at][at] = 1.0 / per_gpu;
        amounts.push(count / per_gpu);
    }
    let mut prices = vec![0.0; n];
    for _ in 0..PIVOTS_MAX {
        for (at, price) in prices.iter_mut().enumerate() {
            *price = (0..n).map(|row| costs[row] * inverse[row][at]).sum();
        }
        let surplus = (0..n).find(|at| prices[*at] < -EPSILON);
        let (column, cost) = if let Some(at) = surplus {
            let mut column = vec![0.0; n];
            column[at] = -1.0;
            (column, 0.0)
        } else {
            let (cut, worth) = best_cut(sizes, &prices);
            if worth <= 1.0 + 1e-7 {
                break;
            }
            (cut, 1.0)
        };
        let direction: Vec<f64> = (0..n).map(|row| (0..n).map(|at| inverse[row][at] * column[at]).sum()).collect();
        let steps = (0..n).filter(|row| direction[*row] > EPSILON).map(|row| (amounts[row] / direction[row], row));
        let Some((step, leaves)) = steps.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))) else { break };
        pivot(&mut inverse, &mut amounts, &direction, leaves, step);
        costs[leaves] = cost;
    }
    prices
}

/// Puts the entering column in place of the leaving one.
fn pivot(inverse: &mut [Vec<f64>], amounts: &mut [f64], direction: &[f64], leaves: usize, step: f64) {
    let pivot_row: Vec<f64> = inverse[leaves].iter().map(|v| v / direction[leaves]).collect();
    for row in (0..amounts.len()).filter(|row| *row != leaves) {
        amounts[row] = (amounts[row] - direction[row] * step).max(0.0);
        for (cell, from) in inverse[row].iter_mut().zip(&pivot_row) {
            *cell -= direction[row] * from;
        }
    }
    amounts[leaves] = step;
    inverse[leaves] = pivot_row;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_spoils_a_whole_gpu_costs_one() {
        let waste = waste(&[(810, 35), (470, 24), (320, 11), (650, 8), (160, 3)]);
        assert_eq!(waste[1000], 0, "a whole GPU is worth a whole GPU");
        assert_eq!(waste[810], -190_000, "nothing that comes often fits beside 810");
        assert_eq!(waste[190], 190_000, "so that what is left beside it is waste");
        assert_eq!(waste[470], -30_000, "half a GPU: two of them are all that fits");
        assert_eq!(waste[0], 0);
    }

    #[test]
    fn nothing_expected_makes_nothing_waste() {
        assert!(waste(&[]).iter().all(|w| *w == 0));
        assert!(waste(&[(1000, 5), (0, 5), (500, 0)]).iter().all(|w| *w == 0));
    }

    /// The dual is an optimum: no cut is worth more than one GPU, and the prices of all pods add up to the GPUs of a real
    /// packing by cuts, bound from both sides.
    #[test]
    fn no_cut_is_worth_more_than_a_gpu_and_all_pods_cost_what_the_best_cuts_cost() {
        for (sizes, gpus) in [
            (vec![(500, 10), (250, 8)], 7.0),
            (vec![(600, 10), (400, 10)], 10.0),
            (vec![(600, 10), (400, 4)], 10.0),
            (vec![(340, 9)], 4.5),
            (vec![(700, 6), (300, 12)], 8.0),
        ] {
            let sizes: Vec<(usize, f64)> = sizes.into_iter().map(|(s, c)| (s, f64::from(c))).collect();
            let found = prices(&sizes);
            let sum: f64 = found.iter().zip(&sizes).map(|(p, (_, c))| p * c).sum();
            assert!((sum - gpus).abs() < 1e-6, "{sizes:?}: {found:?} cost {sum}, not {gpus}");
            assert!(best_cut(&sizes, &found).1 <= 1.0 + 1e-6);
        }
    }
}
