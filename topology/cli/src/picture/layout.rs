//! Where everything stands: frames around columns, every GPU's foot on one line. Integers only, no SVG.

use crate::render::nesting::Item;

use super::shapes::width;

/// A box: left, top, width, height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) width: i32,
    pub(super) height: i32,
}

/// Wide enough for a row of eight MIG slots of 15 and for `H100 80GB HBM3`.
const GPU_WIDTH: i32 = 136;
const GPU_HEIGHT: i32 = 72;
const NIC_WIDTH: i32 = 136;
const NIC_HEIGHT: i32 = 38;
const GAP: i32 = 10;
const PAD: i32 = 9;
const TITLE_LINE: i32 = 14;
const ZONE_WIDTH_MIN: i32 = 190;
/// NICs on top of each other where no GPU stands below them.
const NIC_STACK_MAX: usize = 3;

/// A zone or bridge with its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) title: Vec<String>,
    pub(super) is_zone: bool,
    columns: Vec<Column>,
    nics: Vec<usize>,
    width: i32,
    /// From the foot line up to the top edge.
    rise: i32,
    /// Frames inside each other below the foot line.
    depth: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Column {
    Gpu(usize),
    Frame(Frame),
}

impl Column {
    fn width(&self) -> i32 {
        match self {
            Self::Gpu(_) => GPU_WIDTH,
            Self::Frame(frame) => frame.width,
        }
    }

    fn rise(&self) -> i32 {
        match self {
            Self::Gpu(_) => GPU_HEIGHT,
            Self::Frame(frame) => frame.rise,
        }
    }
}

/// Rows and columns of the NICs of a frame, and the width of each.
struct NicGrid {
    per_row: usize,
    rows: usize,
    width: i32,
}

impl Frame {
    /// A zone with what is in it; positions below `gpu_count` are GPUs.
    pub(super) fn zone(title: Vec<String>, items: Vec<Item>, gpu_count: usize) -> Self {
        Self::new(title, true, items, gpu_count)
    }

    fn new(title: Vec<String>, is_zone: bool, items: Vec<Item>, gpu_count: usize) -> Self {
        let (mut columns, mut nics) = (Vec::new(), Vec::new());
        for item in items {
            match item {
                Item::Device(position) if position < gpu_count => columns.push(Column::Gpu(position)),
                Item::Device(position) => nics.push(position),
                Item::Frame { label, items } => {
                    columns.push(Column::Frame(Self::new(vec![label], false, items, gpu_count)));
                }
            }
        }
        let mut frame = Self { title, is_zone, columns, nics, width: 0, rise: 0, depth: 1 };
        let grid = frame.nic_grid();
        let nic_columns = if frame.columns.is_empty() { row_width(grid.per_row, NIC_WIDTH) } else { 0 };
        let title_width = frame.title.iter().map(|t| width(t) + 16).max().unwrap_or(0);
        let least = if is_zone { ZONE_WIDTH_MIN } else { title_width };
        frame.width = (frame.columns_width().max(nic_columns) + 2 * PAD).max(least);
        let columns_rise = frame.columns.iter().map(Column::rise).max().unwrap_or(0);
        frame.rise = columns_rise + stack(grid.rows, frame.columns.is_empty()) + frame.title_height();
        let below = |c: &Column| if let Column::Frame(f) = c { f.depth } else { 0 };
        frame.depth = 1 + frame.columns.iter().map(below).max().unwrap_or(0);
        frame
    }

    fn title_height(&self) -> i32 {
        TITLE_LINE * i32::try_from(self.title.len()).unwrap_or(1) + PAD
    }

    fn columns_width(&self) -> i32 {
        let gaps = GAP * i32::try_from(self.columns.len().saturating_sub(1)).unwrap_or(0);
        self.columns.iter().map(Column::width).sum::<i32>() + gaps
    }

    /// Above columns the NICs share their width, else they stand on top of each other.
    fn nic_grid(&self) -> NicGrid {
        let count = self.nics.len();
        if self.columns.is_empty() {
            let per_row = count.div_ceil(NIC_STACK_MAX).max(1);
            return NicGrid { per_row, rows: count.div_ceil(per_row), width: NIC_WIDTH };
        }
        let inner = self.columns_width();
        let fit = usize::try_from((inner + GAP) / (NIC_WIDTH + GAP)).unwrap_or(1).max(1);
        let per_row = fit.min(count).max(1);
        let gaps = GAP * i32::try_from(per_row - 1).unwrap_or(0);
        let width = (inner - gaps) / i32::try_from(per_row).unwrap_or(1);
        NicGrid { per_row, rows: count.div_ceil(per_row), width }
    }

    /// Places the frame with its left edge at `x` and its GPUs' feet at `foot`. Zones reach from `top` to the
    /// sheet's lower edge, like their neighbours.
    fn place(&self, x: i32, foot: i32, top: i32, sheet: &mut Sheet) {
        let height = if self.is_zone { sheet.bottom } else { foot + PAD * self.depth } - top;
        sheet.frames.push((self.clone(), Place { x, y: top, width: self.width, height }));
        let grid = self.nic_grid();
        let rise = self.columns.iter().map(Column::rise).max().unwrap_or(0);
        let mut left = x + PAD;
        for column in &self.columns {
            match column {
                Column::Gpu(gpu) => {
                    let y = foot - GPU_HEIGHT;
                    sheet.devices.push((*gpu, Place { x: left, y, width: GPU_WIDTH, height: GPU_HEIGHT }));
                }
                Column::Frame(frame) => frame.place(left, foot, foot - frame.rise, sheet),
            }
            left += column.width() + GAP;
        }
        let first = foot - rise - stack(grid.rows, self.columns.is_empty());
        for (i, nic) in self.nics.iter().enumerate() {
            let (row, column) = (i / grid.per_row, i % grid.per_row);
            let (row, column) = (i32::try_from(row).unwrap_or(0), i32::try_from(column).unwrap_or(0));
            let place = Place {
                x: x + PAD + column * (grid.width + GAP),
                y: first + row * (NIC_HEIGHT + GAP),
                width: grid.width,
                height: NIC_HEIGHT,
            };
            sheet.devices.push((*nic, place));
        }
    }
}

fn row_width(count: usize, each: i32) -> i32 {
    i32::try_from(count).unwrap_or(1) * (each + GAP) - GAP
}

/// Height of rows of NICs, with the gap to what stands below them.
fn stack(rows: usize, is_at_foot: bool) -> i32 {
    let rows = i32::try_from(rows).unwrap_or(0);
    let height = rows * (NIC_HEIGHT + GAP);
    if is_at_foot && rows > 0 { height - GAP } else { height }
}

/// Everything in its place.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sheet {
    /// Frames, outer ones before inner ones.
    pub(super) frames: Vec<(Frame, Place)>,
    /// Matrix position and place of each GPU and NIC.
    pub(super) devices: Vec<(usize, Place)>,
    /// The line on which all GPUs stand.
    pub(super) foot: i32,
    /// Lower edge of the lowest frame.
    pub(super) bottom: i32,
    /// Right edge of the last frame.
    pub(super) right: i32,
}

impl Sheet {
    /// Puts zones side by side, their upper edges at `top`.
    pub(super) fn lay(zones: Vec<Frame>, left: i32, top: i32, gap: i32) -> Self {
        let rise = zones.iter().map(|z| z.rise).max().unwrap_or(0);
        let depth = zones.iter().map(|z| z.depth).max().unwrap_or(0);
        let foot = top + rise;
        let mut sheet = Self { foot, bottom: foot + PAD * depth, ..Self::default() };
        let mut x = left;
        for zone in zones {
            let width = zone.width;
            zone.place(x, foot, top, &mut sheet);
            sheet.right = x + width;
            x += width + gap;
        }
        sheet
    }

    /// Where a device stands.
    pub(super) fn device(&self, position: usize) -> Option<Place> {
        self.devices.iter().find(|(p, _)| *p == position).map(|(_, place)| *place)
    }
}
