//! Lines of a capture as cells, each with the column where it stands. Knows tabs, blanks and ANSI escapes, and no meaning.

/// Headings that hold blanks; a paste without tabs has lost their borders.
const HEADINGS: [&str; 3] = ["CPU Affinity", "NUMA Affinity", "GPU NUMA ID"];

/// One cell of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    /// Without blanks around it.
    pub(super) text: String,
    /// Column of its first character in the text as it was given, from 1.
    pub(super) column: usize,
}

/// One line that is not blank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: usize,
    /// The first cell of a line with tabs may be empty.
    pub(super) cells: Vec<Cell>,
    /// Whether tabs part the cells; else blanks do, and empty cells cannot be seen.
    pub(super) tabbed: bool,
}

impl Line {
    /// The line in one piece, blanks made single.
    pub(super) fn words(&self) -> String {
        let words: Vec<&str> = self.cells.iter().flat_map(|c| c.text.split_whitespace()).collect();
        words.join(" ")
    }
}

/// The lines that are not blank.
pub(super) fn lines(text: &str) -> Vec<Line> {
    let numbered = text.lines().zip(1_usize..);
    numbered.filter_map(|(line, number)| split(line, number)).collect()
}

fn split(line: &str, number: usize) -> Option<Line> {
    let shown = without_escapes(line);
    if shown.iter().all(|(_, c)| c.is_whitespace()) {
        return None;
    }
    let tabbed = shown.iter().any(|(_, c)| *c == '\t');
    let cells = if tabbed { shown.split(|(_, c)| *c == '\t').map(cell).collect() } else { split_at_blanks(&shown) };
    Some(Line { number, cells, tabbed })
}

/// The characters that a terminal shows, each with its column. An escape is `ESC [`, parameters, and a letter or `~`.
fn without_escapes(line: &str) -> Vec<(usize, char)> {
    let mut shown = Vec::with_capacity(line.len());
    let mut rest = (1_usize..).zip(line.chars()).peekable();
    while let Some((column, c)) = rest.next() {
        if c == '\u{1b}' && rest.next_if(|(_, c)| *c == '[').is_some() {
            while rest.next().is_some_and(|(_, c)| !('\u{40}'..='\u{7e}').contains(&c)) {}
        } else {
            shown.push((column, c));
        }
    }
    shown
}

fn cell(characters: &[(usize, char)]) -> Cell {
    let first = characters.iter().find(|(_, c)| !c.is_whitespace()).or(characters.first());
    let text: String = characters.iter().map(|(_, c)| c).collect();
    Cell { text: text.trim().to_owned(), column: first.map_or(1, |(column, _)| *column) }
}

fn split_at_blanks(shown: &[(usize, char)]) -> Vec<Cell> {
    let words = shown.split(|(_, c)| c.is_whitespace()).filter(|word| !word.is_empty()).map(cell);
    let mut cells: Vec<Cell> = Vec::new();
    for word in words {
        match cells.last_mut() {
            Some(last) if HEADINGS.iter().any(|h| begins(h, &format!("{} {}", last.text, word.text))) => {
                last.text = format!("{} {}", last.text, word.text);
            }
            _ => cells.push(word),
        }
    }
    cells
}

/// Whether a heading is this text or goes on after it.
fn begins(heading: &str, text: &str) -> bool {
    heading.strip_prefix(text).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        lines(line).remove(0).cells.into_iter().map(|c| c.text).collect()
    }

    #[test]
    fn tabs_and_blanks_part_the_same_cells() {
        let tabbed = "\tGPU0\tmlx5_10\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID";
        let blank = "        GPU0    mlx5_10 CPU Affinity    NUMA Affinity   GPU NUMA ID";
        assert_eq!(texts(tabbed)[1..], texts(blank));
        assert_eq!(texts("GPU0     X      NV12    0-3     N/A"), ["GPU0", "X", "NV12", "0-3", "N/A"]);
    }

    #[test]
    fn escapes_are_no_part_of_a_cell_and_columns_are_those_of_the_text() {
        for header in ["\t\u{1b}[4mGPU0\tGPU1\u{1b}[0m", "\u{1b}[4m\tGPU0\tGPU1\u{1b}[0m"] {
            assert_eq!(texts(header), ["", "GPU0", "GPU1"]);
        }
        let line = lines("\n\t\u{1b}[4mGPU0\t X \r\n").remove(0);
        assert_eq!(line.number, 2);
        assert_eq!(line.cells.iter().map(|c| c.column).collect::<Vec<_>>(), [1, 6, 12]);
        assert_eq!(texts("a\u{1b}[4"), ["a"], "an escape that never ends");
    }
}
