//! NVLinks below the GPUs: a common bar for an even island, an arc for each pair of a mesh.

use std::collections::BTreeSet;

use berth_model::NodeTopology;

use super::layout::{Place, Sheet};
use super::shapes::Canvas;
use crate::islands::{Shape, islands, nvlinks_of};

/// From the frames to the first bar or arc.
const DROP: i32 = 22;
const BAR_HEIGHT: i32 = 20;
/// How much deeper an arc hangs for each GPU between its ends.
const ARC_STEP: i32 = 26;
const ARC_DEPTH: i32 = 26;
/// Colours that the style has.
const COLOURS: usize = 4;

/// Draws all NVLinks; gives the lower edge of what was drawn.
pub(super) fn draw(node: &NodeTopology, sheet: &Sheet, canvas: &mut Canvas) -> i32 {
    let mut bottom = sheet.bottom;
    let mut pairs: Vec<(usize, usize, u8)> = Vec::new();
    for island in islands(node) {
        match island.shape {
            Shape::Even(links) => {
                bottom = bar(sheet, &island.members, &links, bottom + DROP, canvas);
            }
            Shape::Pairs(list) => pairs.extend(list),
        }
    }
    bottom = bottom.max(arcs(sheet, &pairs, bottom, canvas));
    let alone: Vec<usize> = (0..node.parts().gpus.len()).filter(|g| nvlinks_of(node, *g).0 == 0).collect();
    // Only among GPUs with NVLink is it news that one has none.
    if alone.len() < node.parts().gpus.len() {
        for place in alone.iter().filter_map(|gpu| sheet.device(*gpu)) {
            canvas.text_middle(middle(place), sheet.bottom + 15, "word-bad", "no NVLink");
            bottom = bottom.max(sheet.bottom + DROP);
        }
    }
    bottom
}

fn middle(place: Place) -> i32 {
    place.x + place.width / 2
}

/// Wider with every link, up to where lines would hide each other.
fn thickness_tenths(links: u8) -> i32 {
    (15 * i32::from(links)).min(60)
}

fn bar(sheet: &Sheet, members: &[usize], links: &[u8], top: i32, canvas: &mut Canvas) -> i32 {
    let places: Vec<(Place, u8)> =
        members.iter().zip(links).filter_map(|(m, count)| sheet.device(*m).map(|p| (p, *count))).collect();
    for (place, count) in &places {
        let x = middle(*place);
        canvas.path("nv nv0", &format!("M{x} {}V{top}", sheet.foot), thickness_tenths(*count), &format!("NV{count}"));
        canvas.text(x + 8, top - 6, "small halo", &format!("NV{count}"));
    }
    let left = places.iter().map(|(p, _)| p.x).min().unwrap_or(0);
    let right = places.iter().map(|(p, _)| p.x + p.width).max().unwrap_or(0);
    let place = Place { x: left, y: top, width: right - left, height: BAR_HEIGHT };
    let usual = links.iter().max().copied().unwrap_or(0);
    let text = if links.iter().all(|c| *c == usual) {
        format!("NVLink: NV{usual} between every two of {} GPUs", members.len())
    } else {
        format!("NVLink: every two of {} GPUs, as many as the poorer one has", members.len())
    };
    canvas.rect(place, "bar", &text);
    canvas.text_middle(left + (right - left) / 2, top + 14, "small", &text);
    top + BAR_HEIGHT
}

fn arcs(sheet: &Sheet, pairs: &[(usize, usize, u8)], top: i32, canvas: &mut Canvas) -> i32 {
    let mut order: Vec<(i32, usize)> = sheet
        .devices
        .iter()
        .filter(|(d, _)| pairs.iter().any(|p| p.0 == *d || p.1 == *d))
        .map(|(d, p)| (p.x, *d))
        .collect();
    order.sort_unstable();
    let rank = |gpu: usize| order.iter().position(|(_, d)| *d == gpu).unwrap_or(0);
    let counts: BTreeSet<u8> = pairs.iter().map(|p| p.2).collect();
    let mut bottom = top;
    let mut labels: Vec<(i32, i32, String)> = Vec::new();
    for (a, b, count) in pairs {
        let (a, b) = if rank(*a) < rank(*b) { (*a, *b) } else { (*b, *a) };
        let (Some(from), Some(to)) = (sheet.device(a), sheet.device(b)) else { continue };
        let ends = (end(a, b, from, pairs, &rank), end(b, a, to, pairs, &rank));
        let span = i32::try_from(rank(b) - rank(a)).unwrap_or(1);
        // A cubic curve reaches three quarters of the way to its control points.
        let apex = top + ARC_DEPTH + ARC_STEP * (span - 1);
        let control = sheet.foot + (apex - sheet.foot) * 4 / 3;
        let colour = counts.iter().position(|c| c == count).unwrap_or(0) % COLOURS;
        let way = format!(
            "M{} {foot}C{} {control} {} {control} {} {foot}",
            ends.0,
            ends.0,
            ends.1,
            ends.1,
            foot = sheet.foot
        );
        let text = format!("GPU{a}-GPU{b} NV{count}");
        canvas.path(&format!("nv nv{colour}"), &way, thickness_tenths(*count), &text);
        labels.push(((ends.0 + ends.1) / 2, apex + 4, format!("NV{count}")));
        bottom = bottom.max(apex + 10);
    }
    for (x, y, text) in labels {
        canvas.text_middle(x, y, "small halo", &text);
    }
    bottom
}

/// Where the arc from a GPU to another one starts. Ends are spread over the GPU's foot so that its arcs do not cross each other: those to
/// the left stand on the left, those to the right on the right, and the nearest outermost.
fn end(gpu: usize, other: usize, place: Place, pairs: &[(usize, usize, u8)], rank: &dyn Fn(usize) -> usize) -> i32 {
    let others = pairs.iter().filter_map(|(a, b, _)| match (*a == gpu, *b == gpu) {
        (true, _) => Some(*b),
        (_, true) => Some(*a),
        (false, false) => None,
    });
    let mut others: Vec<usize> = others.collect();
    others.sort_by_key(|o| (rank(*o) > rank(gpu), usize::MAX - rank(*o)));
    let slot = others.iter().position(|o| *o == other).unwrap_or(0);
    let step = |n: usize| i32::try_from(n + 1).unwrap_or(1);
    place.x + place.width * step(slot) / step(others.len())
}
