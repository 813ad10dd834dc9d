//! SVG elements, their classes and colours. Text widths are estimated from above: a picture has no font to ask.

use super::layout::Place;

/// What a colour says of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// A healthy GPU.
    Good,
    /// Broken.
    Bad,
    /// Not known.
    Doubt,
    /// A NIC in order.
    Calm,
}

impl Tone {
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Doubt => "doubt",
            Self::Calm => "calm",
        }
    }

    pub(super) fn word_class(self) -> &'static str {
        match self {
            Self::Good => "word-good",
            Self::Bad => "word-bad",
            Self::Doubt => "word-doubt",
            Self::Calm => "word-calm",
        }
    }
}

const STYLE: &str = "\
text{font-family:'DejaVu Sans',Verdana,Arial,sans-serif;font-size:11px;fill:#1b2128}
.title{font-size:17px;font-weight:bold}.plain{font-size:12px}.strong{font-size:12px;font-weight:bold}.faint{fill:#5c6773}.tiny{font-size:9px}
.sheet{fill:#ffffff}.zone{fill:#f3f5f8;stroke:#7d8894}.bridge{fill:#ffffff;stroke:#9aa5b1;stroke-dasharray:4 3}
.good{fill:#e0f3e4;stroke:#2c8a43}.bad{fill:#ffe0dd;stroke:#c22f29;stroke-width:2}.doubt{fill:#fff2cf;stroke:#a87700}.calm{fill:#e3edfb;stroke:#3a70b5}
.word-good{fill:#1f7034}.word-bad{fill:#a81f1a;font-weight:bold}.word-doubt{fill:#7d5900}.word-calm{fill:#2a5a97}
.nv{fill:none}.nv0{stroke:#7a3fb4}.nv1{stroke:#c9650a}.nv2{stroke:#0f7f80}.nv3{stroke:#b5195a}
.mig{fill:#d9ccf0;stroke:#7a3fb4}.slot{fill:#ffffff;stroke:#7d8894;stroke-dasharray:2 2}
.bar{fill:#ece2f6;stroke:#7a3fb4}.halo{paint-order:stroke;stroke:#ffffff;stroke-width:8px;stroke-linejoin:round}
@media (prefers-color-scheme:dark){
text{fill:#e4e9ee}.faint{fill:#9eaab6}.sheet{fill:#14181d}.zone{fill:#1d232a;stroke:#6d7884}.bridge{fill:#14181d;stroke:#5d6873}
.good{fill:#163a20;stroke:#46a85f}.bad{fill:#4a1715;stroke:#f0665f}.doubt{fill:#41330a;stroke:#d6a21a}.calm{fill:#17304f;stroke:#6aa0e6}
.word-good{fill:#7fd596}.word-bad{fill:#ff9c96}.word-doubt{fill:#f2cf6b}.word-calm{fill:#a9cbf7}
.nv0{stroke:#b78be6}.nv1{stroke:#f0994a}.nv2{stroke:#4cc4c4}.nv3{stroke:#f070a8}.bar{fill:#33234a;stroke:#b78be6}.halo{stroke:#14181d}
.mig{fill:#4a3573;stroke:#b78be6}.slot{fill:#14181d;stroke:#8e9aa6}}
";

/// Upper estimate of a text's width at the usual size, in pixels.
pub(super) fn width(text: &str) -> i32 {
    i32::try_from(text.chars().count()).unwrap_or(i32::MAX / 8) * GLYPH_TENTHS / 10 + 1
}

/// Tenths of a pixel of an average glyph at 11 px in the widest of the fonts named.
const GLYPH_TENTHS: i32 = 66;
/// The same at 12 px and bold.
const GLYPH_LARGE_TENTHS: i32 = 80;

/// Elements as they come, later ones above earlier ones.
#[derive(Debug, Default)]
pub(super) struct Canvas {
    body: String,
    right: i32,
}

impl Canvas {
    /// A box with a tooltip.
    pub(super) fn rect(&mut self, place: Place, class: &str, tooltip: &str) {
        let Place { x, y, width, height } = place;
        self.reach(x + width);
        self.body.push_str(&format!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"4\"><title>{}</title></rect>\n",
            escaped(tooltip)
        ));
    }

    /// A text that starts at `x`.
    pub(super) fn text(&mut self, x: i32, y: i32, class: &str, text: &str) {
        let tenths = if matches!(class, "title" | "plain" | "strong") { GLYPH_LARGE_TENTHS } else { GLYPH_TENTHS };
        self.reach(x + i32::try_from(text.chars().count()).unwrap_or(0) * tenths / 10);
        self.body.push_str(&format!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>\n", escaped(text)));
    }

    /// A text that ends at `x`.
    pub(super) fn text_end(&mut self, x: i32, y: i32, class: &str, text: &str) {
        self.anchored(x, y, class, text, "end");
    }

    /// A text around `x`.
    pub(super) fn text_middle(&mut self, x: i32, y: i32, class: &str, text: &str) {
        self.anchored(x, y, class, text, "middle");
    }

    fn anchored(&mut self, x: i32, y: i32, class: &str, text: &str, anchor: &str) {
        self.body.push_str(&format!(
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{}</text>\n",
            escaped(text)
        ));
    }

    /// A text cut to a width, with an ellipsis where it was cut.
    pub(super) fn fitted(&mut self, x: i32, y: i32, class: &str, text: &str, room: i32) {
        if width(text) <= room {
            return self.text(x, y, class, text);
        }
        let fit = usize::try_from(room * 10 / GLYPH_TENTHS).unwrap_or(0).saturating_sub(1);
        let cut: String = text.chars().take(fit).collect();
        self.text(x, y, class, &format!("{cut}…"));
    }

    /// A line along an SVG path.
    pub(super) fn path(&mut self, class: &str, way: &str, thickness_tenths: i32, tooltip: &str) {
        let (whole, tenths) = (thickness_tenths / 10, thickness_tenths % 10);
        self.body.push_str(&format!(
            "<path class=\"{class}\" d=\"{way}\" stroke-width=\"{whole}.{tenths}\"><title>{}</title></path>\n",
            escaped(tooltip)
        ));
    }

    fn reach(&mut self, x: i32) {
        self.right = self.right.max(x);
    }

    /// How far right anything goes.
    pub(super) fn right(&self) -> i32 {
        self.right
    }

    /// The whole document.
    pub(super) fn finish(self, width: i32, height: i32, title: &str) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
             <title>{}</title>\n<style>\n{STYLE}</style>\n\
             <rect class=\"sheet\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>\n{}</svg>\n",
            escaped(title),
            self.body
        )
    }
}

/// Text of a report is foreign text: it must not become markup.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML has no way to say these at all.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
