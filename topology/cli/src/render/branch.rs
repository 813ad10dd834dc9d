//! Lines that hang below other lines, drawn as `├─` and `└─`.

/// One line with what hangs below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Branch {
    text: String,
    children: Vec<Branch>,
}

impl Branch {
    /// A line with nothing below it.
    pub(crate) fn leaf(text: impl Into<String>) -> Self {
        Self { text: text.into(), children: Vec::new() }
    }

    /// A line with others below it.
    pub(crate) fn with(text: impl Into<String>, children: Vec<Self>) -> Self {
        Self { text: text.into(), children }
    }
}

/// Draws the branches below a heading that the caller has printed.
pub(crate) fn draw(branches: &[Branch]) -> String {
    let mut out = String::new();
    draw_below("", branches, &mut out);
    out
}

fn draw_below(prefix: &str, branches: &[Branch], out: &mut String) {
    for (i, branch) in branches.iter().enumerate() {
        let last = i + 1 == branches.len();
        let (joint, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        out.push_str(prefix);
        out.push_str(joint);
        out.push_str(&branch.text);
        out.push('\n');
        draw_below(&format!("{prefix}{below}"), &branch.children, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_child_closes_its_line() {
        let tree =
            [Branch::with("a", vec![Branch::leaf("b"), Branch::with("c", vec![Branch::leaf("d")])]), Branch::leaf("e")];
        assert_eq!(draw(&tree), "├─ a\n│  ├─ b\n│  └─ c\n│     └─ d\n└─ e\n");
    }
}
