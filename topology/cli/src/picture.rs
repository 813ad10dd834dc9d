//! A node as an SVG: zones as frames, bridges as frames in them, GPUs in one row at the bottom, NICs above, NVLinks hanging below.
//!
//! The layout is computed here and in [`layout`], by hand and with integers, so that one node always gives one text. [`links`] draws
//! NVLinks, [`shapes`] knows SVG. Colours follow the viewer's light or dark scheme; the background is part of the picture.

mod layout;
mod links;
mod shapes;

use berth_model::{Driver, Gpu, Health, LinkLayer, Nic, NodeTopology, PortState, Zone};

use crate::islands::nvlinks_of;
use crate::render::card::marks;
use crate::render::host::{function, host_lines, huge_pages};
use crate::render::mig::{Slots, slots};
use crate::render::nesting::nesting;
use crate::render::size::{gib, ranges};
use layout::{Frame, Place, Sheet};
use shapes::{Canvas, Tone};

/// Space around everything.
const MARGIN: i32 = 20;
const ZONE_GAP: i32 = 16;
const LINE: i32 = 16;
/// More zones than this without a device are named in a line instead of drawn: Grace-class nodes have 29 of them.
const BARE_ZONES_MAX: usize = 3;
/// Most notes below the picture; the tree has them all.
const NOTES_MAX: usize = 12;

/// The picture of a node.
pub(crate) fn svg(node: &NodeTopology) -> String {
    let parts = node.parts();
    let (frames, bare) = frames(node);
    let mut canvas = Canvas::default();
    canvas.text(MARGIN, MARGIN + 14, "title", parts.node.as_str());
    canvas.text(MARGIN, MARGIN + 34, "plain", &heading(node));
    let mut top = MARGIN + 3 * LINE + 4;
    for line in host_lines(node) {
        canvas.text(MARGIN, top + 2, "small", &format!("{}: {}", line.label, line.facts.join(" · ")));
        top += LINE;
    }
    let sheet = Sheet::lay(frames, MARGIN, top, ZONE_GAP);
    for (frame, place) in &sheet.frames {
        draw_frame(frame, *place, &mut canvas);
    }
    for (position, place) in &sheet.devices {
        match parts.gpus.get(*position) {
            Some(gpu) => draw_gpu(gpu, *place, &mut canvas),
            None => {
                let number = position - parts.gpus.len();
                if let Some(nic) = parts.nics.get(number) {
                    draw_nic(number, nic, *place, &mut canvas);
                }
            }
        }
    }
    let mut bottom = links::draw(node, &sheet, &mut canvas);
    if !bare.is_empty() {
        bottom += LINE;
        canvas.text(MARGIN, bottom, "plain", &format!("without devices: zones {}", ranges(bare)));
    }
    bottom = legend(node, bottom + LINE, &mut canvas);
    for note in notes(node) {
        bottom += LINE;
        canvas.text(MARGIN, bottom, "plain", &note);
    }
    let right = sheet.right.max(canvas.right());
    canvas.finish(right + MARGIN, bottom + MARGIN, parts.node.as_str())
}

fn heading(node: &NodeTopology) -> String {
    let parts = node.parts();
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for gpu in &parts.gpus {
        match counts.iter_mut().find(|(product, _)| *product == gpu.product) {
            Some((_, count)) => *count += 1,
            None => counts.push((&gpu.product, 1)),
        }
    }
    let mut facts: Vec<String> = counts.iter().map(|(product, count)| format!("{count} x {product}")).collect();
    if facts.is_empty() {
        facts.push("no GPU".to_owned());
    }
    match &parts.driver {
        Driver::Loaded(versions) if versions.driver.is_empty() => facts.push("driver of unknown version".to_owned()),
        Driver::Loaded(versions) => facts.push(format!("driver {}", versions.driver)),
        Driver::Absent(why) => facts.push(format!("no driver: {why}")),
    }
    facts.join(" · ")
}

/// Frames of the zones, and the ids of zones that are only named.
fn frames(node: &NodeTopology) -> (Vec<Frame>, Vec<u32>) {
    let parts = node.parts();
    let mut frames = Vec::new();
    let mut bare = Vec::new();
    let has_device = |zone: &Zone| {
        let zones = parts.gpus.iter().map(|g| g.zone).chain(parts.nics.iter().map(|n| n.zone));
        zones.into_iter().any(|z| z == Some(zone.id))
    };
    let bare_count = parts.zones.iter().filter(|z| !has_device(z)).count();
    for zone in &parts.zones {
        if !has_device(zone) && bare_count > BARE_ZONES_MAX {
            bare.push(u32::from(zone.id.0));
            continue;
        }
        let cpus = if zone.cpus.is_empty() { "no CPUs".to_owned() } else { format!("CPUs {}", zone.cpus) };
        let memory = zone.memory.map_or_else(|| "memory not known".to_owned(), |m| format!("memory {}", gib(m)));
        let pages = huge_pages(zone.huge_pages.as_deref()).map_or_else(String::new, |p| format!(" · huge pages {p}"));
        let title = vec![format!("zone {}", zone.id), cpus, format!("{memory}{pages}")];
        frames.push(Frame::zone(title, nesting(node, Some(zone.id)), parts.gpus.len()));
    }
    let strays = nesting(node, None);
    if !strays.is_empty() {
        frames.push(Frame::zone(vec!["zone not known".to_owned()], strays, parts.gpus.len()));
    }
    (frames, bare)
}

fn draw_frame(frame: &Frame, place: Place, canvas: &mut Canvas) {
    canvas.rect(place, if frame.is_zone { "zone" } else { "bridge" }, &frame.title.join(", "));
    for (line, text) in (0..).zip(&frame.title) {
        let class = if line == 0 && frame.is_zone { "strong" } else { "small" };
        canvas.fitted(place.x + 8, place.y + 14 + line * 14, class, text, place.width - 16);
    }
}

fn draw_gpu(gpu: &Gpu, place: Place, canvas: &mut Canvas) {
    let (tone, word) = match &gpu.health {
        Health::Healthy => (Tone::Good, "healthy"),
        Health::Unhealthy(_) => (Tone::Bad, "unhealthy"),
        Health::Unknown(_) => (Tone::Doubt, "not known"),
    };
    let why = if gpu.health.reason().is_empty() { String::new() } else { format!(": {}", gpu.health.reason()) };
    canvas.rect(place, tone.class(), &format!("{} {} {word}{why}", gpu.index, gpu.uuid));
    canvas.text(place.x + 8, place.y + 17, "strong", &gpu.index.to_string());
    canvas.text_end(place.x + place.width - 8, place.y + 17, tone.word_class(), word);
    let product = ["NVIDIA ", "Tesla "].iter().fold(gpu.product.as_str(), |text, make| text.trim_start_matches(make));
    canvas.fitted(place.x + 8, place.y + 33, "small", product, place.width - 16);
    let memory = gpu.memory.map_or_else(|| "memory not known".to_owned(), gib);
    let mig = if gpu.mig_enabled == Some(true) { " · MIG on" } else { "" };
    canvas.fitted(place.x + 8, place.y + 48, "small", &format!("{memory}{mig}"), place.width - 16);
    let doubt: Vec<String> = marks(gpu).into_iter().filter(|m| m.is_doubtful).map(|m| m.text).collect();
    match slots(gpu) {
        Some(slots) => draw_slots(&slots, Place { x: place.x + 8, y: place.y + 53, ..place }, canvas),
        None if doubt.is_empty() => {
            canvas.fitted(place.x + 8, place.y + 63, "faint", &gpu.pci.to_string(), place.width - 16);
        }
        None => canvas.fitted(place.x + 8, place.y + 63, "word-doubt", &doubt.join(", "), place.width - 16),
    }
}

/// The slots of a GPU as a strip: a box for each instance, a dashed one for each free slot.
fn draw_slots(slots: &Slots, place: Place, canvas: &mut Canvas) {
    let width = (place.width - 16) / i32::from(slots.count.max(1));
    let strip = |start: u8, size: u8| Place {
        x: place.x + width * i32::from(start),
        width: width * i32::from(size) - 2,
        height: 14,
        ..place
    };
    for run in &slots.runs {
        let Some(instance) = &run.instance else {
            for slot in run.start..run.start + run.size {
                canvas.rect(strip(slot, 1), "slot", &format!("slot {slot} is free"));
            }
            continue;
        };
        let at = strip(run.start, run.size);
        canvas.rect(at, "mig", &format!("{} {} {}", run.text(), instance.profile, instance.uuids.join(" ")));
        let slices = instance.profile.split('.').next().unwrap_or_default();
        canvas.text_middle(at.x + at.width / 2, at.y + 10, "tiny", slices);
    }
}

fn draw_nic(number: usize, nic: &Nic, place: Place, canvas: &mut Canvas) {
    let (tone, word) = match nic.state {
        PortState::Active => (Tone::Calm, "active"),
        PortState::Down => (Tone::Bad, "down"),
        PortState::Unknown => (Tone::Doubt, "not known"),
    };
    let layer = match nic.link_layer {
        LinkLayer::InfiniBand => "IB",
        LinkLayer::Ethernet => "Eth",
        LinkLayer::Unknown => "?",
    };
    let rate = nic.rate_gbps.map_or_else(String::new, |r| format!(" {r}G"));
    let at = nic.pci.map_or_else(String::new, |p| p.to_string());
    let rest: String = function(&nic.function, number).iter().map(|fact| format!(", {fact}")).collect();
    canvas.rect(place, tone.class(), &format!("NIC{number} {} {at} {word}{rest}", nic.name));
    canvas.text(place.x + 8, place.y + 15, "strong", &format!("NIC{number}"));
    canvas.text_end(place.x + place.width - 8, place.y + 15, tone.word_class(), word);
    canvas.fitted(place.x + 8, place.y + 29, "small", &format!("{} · {layer}{rate}", nic.name), place.width - 16);
}

/// What the colours and frames mean: only what this picture shows.
fn legend(node: &NodeTopology, top: i32, canvas: &mut Canvas) -> i32 {
    let parts = node.parts();
    let gpu = |is: fn(&Health) -> bool| parts.gpus.iter().any(|g| is(&g.health));
    let nic = |state: PortState| parts.nics.iter().any(|n| n.state == state);
    let runs = || parts.gpus.iter().filter_map(slots).flat_map(|s| s.runs);
    let entries = [
        (gpu(|h| matches!(h, Health::Healthy)), Tone::Good.class(), "healthy GPU"),
        (gpu(|h| matches!(h, Health::Unhealthy(_))) || nic(PortState::Down), Tone::Bad.class(), "unhealthy or down"),
        (gpu(|h| matches!(h, Health::Unknown(_))) || nic(PortState::Unknown), Tone::Doubt.class(), "not known"),
        (nic(PortState::Active), Tone::Calm.class(), "NIC with an active port"),
        (runs().any(|r| r.instance.is_some()), "mig", "MIG instance"),
        (runs().any(|r| r.instance.is_none()), "slot", "free MIG slot"),
    ];
    let mut x = MARGIN;
    for (_, class, text) in entries.iter().filter(|(is_shown, _, _)| *is_shown) {
        canvas.rect(Place { x, y: top, width: 14, height: 12 }, class, text);
        canvas.text(x + 20, top + 10, "small", text);
        x += 20 + shapes::width(text) + 18;
    }
    let is_linked = (0..parts.gpus.len()).any(|g| nvlinks_of(node, g).0 > 0);
    let lines = if is_linked { " · lines: NVLink, wider for more links" } else { "" };
    canvas.text(MARGIN, top + 10 + LINE, "small", &format!("frames: zone, dashed: PCIe bridge{lines}"));
    top + 12 + LINE
}

fn notes(node: &NodeTopology) -> Vec<String> {
    let parts = node.parts();
    let sick = parts.gpus.iter().filter(|g| !g.health.reason().is_empty());
    let mut notes: Vec<String> = sick.map(|g| format!("{}: {}", g.index, g.health.reason())).collect();
    notes.extend(parts.findings.iter().map(|f| format!("{} {}: {}", f.code, f.device, f.text)));
    if let Some(more) = notes.len().checked_sub(NOTES_MAX + 1) {
        notes.truncate(NOTES_MAX);
        notes.push(format!("and {} more: see berth topo", more + 1));
    }
    notes
}

#[cfg(test)]
mod tests;
