//! What import makes of captures that were damaged the way pastes and files are: it refuses with a place, or gives back what the damaged text
//! says, and says what it does not.

use super::*;

const MUTATIONS: usize = 300;
const KINDS: usize = 14;

/// A small generator of numbers, the same on every run (xorshift, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % limit.max(1)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// A text whose lines are changed one by one.
struct Damage {
    lines: Vec<String>,
    /// Lines with tabs: the header and the rows.
    table: Vec<usize>,
}

impl Damage {
    fn of(text: &str) -> Self {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let table = (0..lines.len()).filter(|i| lines[*i].contains('\t')).collect();
        Self { lines, table }
    }

    fn cells(&mut self, line: usize, change: impl FnOnce(&mut Vec<String>)) {
        let mut cells: Vec<String> = self.lines[line].split('\t').map(str::to_owned).collect();
        change(&mut cells);
        self.lines[line] = cells.join("\t");
    }

    /// Changes the cells of every line of the table.
    fn column(&mut self, change: impl Fn(usize, &mut Vec<String>)) {
        for (row, line) in self.table.clone().into_iter().enumerate() {
            self.cells(line, |cells| change(row, cells));
        }
    }
}

/// Damages a capture in one of the ways in which pastes are damaged.
fn mutated(text: &str, kind: usize, dice: &mut Dice) -> String {
    const WORDS: [&str; 14] =
        ["PIX", "PXB", "PHB", "NODE", "SYS", "NV1", "NV18", "NV99", "SYE", "X", "", "GPU0", "0-3", "\u{1b}[4m"];
    const HEADINGS: [&str; 7] = ["GPU0", "GPU9", "NIC0", "NIC77", "CPU Affinity", "NUMA", "mlx5_3"];
    const FOREIGN: [char; 9] = ['\0', '\u{feff}', '\u{a0}', '\u{200b}', '\u{1b}', '\u{7}', 'é', '"', '│'];
    let mut damage = Damage::of(text);
    let line = dice.pick(&damage.table);
    let cell_count = damage.lines[line].split('\t').count();
    let (one, other) = (dice.below(cell_count), dice.below(cell_count));
    match kind {
        0 => drop(damage.lines.remove(line)),
        1 => damage.cells(line, |cells| cells.swap(one, other)),
        2 => damage.cells(line, |cells| cells[one] = dice.pick(&WORDS).to_owned()),
        3 => damage.cells(line, |cells| drop(cells.remove(one))),
        4 => damage.cells(line, |cells| cells.insert(one, dice.pick(&WORDS).to_owned())),
        5 => damage.lines.insert(line, damage.lines[line].clone()),
        6 => damage.cells(line, |cells| cells.truncate(one)),
        7 => {
            let last = dice.pick(&damage.table);
            damage.lines.swap(line, last);
        }
        8 => damage.column(|_, cells| drop((cells.len() > one).then(|| cells.remove(one)))),
        9 => {
            let (heading, word) = (dice.pick(&HEADINGS), dice.pick(&WORDS));
            let text = |row: usize| if row == 0 { heading } else { word }.to_owned();
            damage.column(|row, cells| cells.insert(one.min(cells.len()), text(row)));
        }
        10 => {
            let header = damage.table[0];
            let heading = dice.pick(&HEADINGS).to_owned();
            damage.cells(header, |cells| {
                let last = cells.len() - 1;
                cells[one.clamp(1, last)] = heading;
            });
        }
        11 => {
            let line = dice.below(damage.lines.len());
            let at = dice.below(damage.lines[line].chars().count() + 1);
            let foreign = dice.pick(&FOREIGN);
            let before: String = damage.lines[line].chars().take(at).collect();
            let after: String = damage.lines[line].chars().skip(at).collect();
            damage.lines[line] = format!("{before}{foreign}{after}");
        }
        12 => damage.lines.iter_mut().for_each(|line| line.push('\r')),
        _ => {
            let whole = damage.lines.join("\n");
            let end = (0..=dice.below(whole.len())).rev().find(|i| whole.is_char_boundary(*i)).unwrap();
            return whole[..end].to_owned();
        }
    }
    damage.lines.join("\n")
}

/// Every cell of the text comes back, or the note says otherwise; no cell comes back that neither stands there nor follows.
fn cells_come_back(name: &str, damaged: &str, imported: &Imported) {
    let given = Table::read(damaged);
    let node = topology(&imported.machine, &imported.machine.name, &Salt::default()).unwrap();
    let said = imported.assumptions.join("\n");
    let links = &node.parts().links;
    assert_eq!(links.device_count(), given.devices.len(), "{name} after {damaged}");
    // Reports list NICs by name; the damage may have renamed one.
    if said.contains("NICs come back in the order of their names") {
        return;
    }
    let implied = implied(&given);
    for (a, b) in (0..given.devices.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
        let got = links.link(a, b).unwrap().class().to_string();
        let pair = format!("{}-{}", given.devices[b], given.devices[a]);
        let begin = match given.word(a, b) {
            Some(word) if word == got => continue,
            Some(word) => format!("captured {word}, comes back as {got}: "),
            None if got == "?" || implied[a][b].is_some_and(|level| level.word() == got) => continue,
            None => format!("not captured, comes back as {got}, "),
        };
        let told = said.lines().any(|l| l.starts_with(&begin) && l.contains(&pair));
        assert!(told, "{name}: {pair}: {begin} and nothing is said:\n{damaged}\n{said}");
    }
}

/// The other columns of rows that are as long as in the capture come back too.
fn columns_come_back(name: &str, capture: &str, damaged: &str, imported: &Imported) {
    let tail = |text: &str, label: &str| {
        let row = text.lines().find(|l| l.split('\t').next() == Some(label));
        row.map(|l| l.split('\t').count())
    };
    let given = Table::read(damaged);
    let node = topology(&imported.machine, &imported.machine.name, &Salt::default()).unwrap();
    let said = imported.assumptions.join("\n");
    for (gpu, affinity) in node.parts().gpus.iter().zip(&given.affinity) {
        let label = gpu.index.to_string();
        if tail(damaged, &label) != tail(capture, &label) {
            continue;
        }
        let nearest = gpu.nearest_zones.clone().unwrap_or_else(|| gpu.zone.into_iter().collect());
        let nearest = berth_model::CpuSet::from_cpus(nearest.into_iter().map(|z| u32::from(z.0)));
        for (heading, captured) in affinity {
            let got = match heading.as_str() {
                "CPU Affinity" => gpu.cpus.to_string(),
                "NUMA Affinity" => nearest.to_string(),
                _ => gpu.memory_zone.map_or_else(String::new, |z| z.to_string()),
            };
            let is_same = *captured == got || (captured == "N/A" && got.is_empty());
            // What is not in the row follows from other rows, or stays unknown.
            let told = said.contains(&format!("{heading} of {label}: captured"));
            assert!(
                is_same || captured.is_empty() || captured == "N/A" || told,
                "{name}: {heading} of {label} is {captured:?}, comes back as {got:?}:\n{damaged}\n{said}"
            );
        }
    }
}

#[test]
fn a_damaged_capture_is_refused_with_its_place_or_comes_back_as_it_is_given_or_says_why_not() {
    let captures = captures();
    let mut dice = Dice(0x5eed_0004);
    let (mut refused, mut taken) = ([0; KINDS], [0; KINDS]);
    for round in 0..MUTATIONS {
        let (name, text) = &captures[round % captures.len()];
        // Twenty-eight captures and fourteen kinds meet in all combinations only where the kind moves on by one in every turn.
        let kind = (round + round / captures.len()) % KINDS;
        let damaged = mutated(text, kind, &mut dice);
        match import(&damaged, name) {
            Ok(imported) => {
                taken[kind] += 1;
                let again = Machine::parse(&imported.text);
                assert_eq!(again.as_ref(), Ok(&imported.machine), "{name}: its machine file is another machine");
                cells_come_back(name, &damaged, &imported);
                columns_come_back(name, text, &damaged, &imported);
            }
            Err(error) => {
                let line_count = damaged.lines().count().max(1);
                assert!((1..=line_count).contains(&error.line) && error.column >= 1, "{name}: {error}");
                assert!(!error.problem.is_empty() && !error.problem.contains(char::is_control), "{error:?}");
                refused[kind] += 1;
            }
        }
    }
    assert_eq!(refused.iter().chain(&taken).sum::<i32>(), 300);
    assert!(refused.iter().zip(&taken).all(|(a, b)| a + b >= 20), "{refused:?} refused, {taken:?} taken");
    let (all_refused, all_taken) = (refused.iter().sum::<i32>(), taken.iter().sum::<i32>());
    assert!(all_refused > 75 && all_taken > 30, "{refused:?} refused, {taken:?} taken: the damage is of one kind");
    assert_eq!(refused[12], 0, "line ends of another system are no damage");
}

#[test]
fn columns_that_a_row_lacks_are_said() {
    let (name, text) = captures().into_iter().find(|(name, _)| name == "dgx-h100-8gpu-12nic").unwrap();
    let cut = text.replacen("\t0-55,112-167\t0\t\tN/A", "", 1);
    assert_ne!(cut, text);
    let said = import(&cut, &name).unwrap().assumptions.join("\n");
    assert!(said.contains("row GPU0 has no CPU Affinity, NUMA Affinity, GPU NUMA ID"), "{said}");
}
