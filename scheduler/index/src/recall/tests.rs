//! A list reads the same whatever was remembered before it, and a broken one is never taken.

use super::*;
use crate::roll::Standing;

struct Draws(u64);

impl Draws {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }
}

fn snapshot(serial: u64, names: &[String]) -> Snapshot {
    let nodes = names.iter().enumerate().map(|(position, name)| (name.as_str(), position, Standing::default()));
    Snapshot { roll: Arc::new(Roll::of(serial, nodes)), ..Snapshot::default() }
}

/// Names of which many begin alike and some are the beginning of others.
fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| if i % 3 == 0 { format!("n{i}") } else { format!("node-of-the-same-beginning-{i}") }).collect()
}

fn joined(names: &[&str]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(",")
}

fn check(reader: &Reader, snapshot: &Snapshot, asked: &[&str]) {
    let list = joined(asked);
    let listed = reader.read(snapshot, list.as_bytes()).unwrap();
    assert_eq!(listed.len(), asked.len(), "{list}");
    for (at, (name, position)) in asked.iter().zip(listed.positions()).enumerate() {
        let expected = snapshot.position(name).unwrap_or(usize::try_from(NONE).unwrap());
        assert_eq!(position, expected, "{name} in {list}");
        let quoted = listed.quoted(list.as_bytes(), at).unwrap();
        assert_eq!(quoted, format!("\"{name}\"").as_bytes(), "{list}");
    }
    assert_eq!(listed.quoted(list.as_bytes(), asked.len()), None);
    let is_kept = |at: &usize| !at.is_multiple_of(3);
    let places: Vec<usize> = (0..asked.len()).filter(is_kept).collect();
    let runs: Vec<&[u8]> = listed.quoted_runs(list.as_bytes(), &places).collect();
    let expected: Vec<&str> = places.iter().map(|at| asked[*at]).collect();
    assert_eq!(runs.join(&b','), joined(&expected).into_bytes(), "{list}");
}

#[test]
fn any_list_reads_as_its_names_one_by_one_whatever_was_remembered() {
    let mut draws = Draws(7);
    let reader = Reader::default();
    let mut all = names(200);
    let mut snapshot_now = snapshot(1, &all);
    for round in 0..800_u64 {
        if round % 100 == 99 {
            // Other nodes, and the same ones at other positions.
            all.rotate_left(31);
            all.truncate(150 + draws.below(40));
            all.push(format!("new-{round}"));
            snapshot_now = snapshot(round, &all);
        }
        let mut asked: Vec<&str> = all.iter().map(String::as_str).collect();
        let piece = [1, 5, 14, 71, 500][draws.below(5)];
        let mut pieces: Vec<&[&str]> = asked.chunks(piece).collect();
        for last in (1..pieces.len()).rev() {
            pieces.swap(last, draws.below(last + 1));
        }
        asked = pieces.concat();
        for _ in 0..draws.below(5) {
            asked.remove(draws.below(asked.len()));
            let stranger = ["stranger", "", "n", "node-of-the-same-beginning-"][draws.below(4)];
            asked.insert(draws.below(asked.len() + 1), stranger);
            let again = asked[draws.below(asked.len())];
            asked.insert(draws.below(asked.len() + 1), again);
        }
        asked.truncate(if draws.below(3) == 0 { draws.below(asked.len()) } else { asked.len() });
        check(&reader, &snapshot_now, &asked);
    }
}

#[test]
fn a_list_with_one_byte_changed_is_read_as_it_is_written_or_not_at_all() {
    let mut draws = Draws(13);
    let all = names(90);
    let snapshot = snapshot(1, &all);
    let reader = Reader::default();
    let asked: Vec<&str> = all.iter().map(String::as_str).collect();
    let list = joined(&asked);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..4_000 {
        let mut broken = list.clone().into_bytes();
        match draws.below(3) {
            0 => broken.truncate(draws.below(broken.len())),
            1 => drop(broken.remove(draws.below(broken.len()))),
            _ => {
                let at = draws.below(broken.len());
                broken[at] = [b'"', b',', b'\\', b'x', b' ', 0, 0xff][draws.below(7)];
            }
        }
        let names: Option<Vec<&str>> = plain(&broken);
        match (reader.read(&snapshot, &broken), names) {
            (Some(listed), Some(names)) => {
                let positions: Vec<Option<usize>> =
                    listed.positions().map(|p| Some(p).filter(|p| *p < all.len())).collect();
                assert_eq!(positions, names.iter().map(|n| snapshot.position(n)).collect::<Vec<_>>());
                read += 1;
            }
            (None, None) => refused += 1,
            (listed, names) => panic!("{:?}: {listed:?}, {names:?}", String::from_utf8_lossy(&broken)),
        }
        // Whatever came, the whole list is still known.
        check(&reader, &snapshot, &asked);
    }
    assert!(read > 300 && refused > 300, "{read} {refused}");
}

/// What a strict reader takes for a list of names without escapes.
fn plain(list: &[u8]) -> Option<Vec<&str>> {
    if list.is_empty() {
        return Some(Vec::new());
    }
    let list = std::str::from_utf8(list).ok()?.strip_prefix('"')?.strip_suffix('"')?;
    let names: Vec<&str> = list.split("\",\"").collect();
    let is_plain = |name: &&str| !name.contains(['"', '\\']) && !name.bytes().any(|b| b < b' ');
    names.iter().all(is_plain).then_some(names)
}

#[test]
fn a_list_that_leaves_names_out_costs_no_look_up() {
    let all = names(1000);
    let snapshot = snapshot(1, &all);
    let reader = Reader::default();
    check(&reader, &snapshot, &all.iter().map(String::as_str).collect::<Vec<_>>());
    let some: Vec<&str> = all.iter().enumerate().filter(|(at, _)| at % 5 != 3).map(|(_, name)| name.as_str()).collect();
    let list = joined(&some);
    let known = reader.known.load_full();
    let mut walk = Walk::new(list.as_bytes(), &known);
    assert!(walk.all(&snapshot.roll).is_some());
    assert_eq!((walk.lookups, walk.listed.len()), (0, 800));
}

#[test]
fn a_list_in_other_pieces_costs_a_look_up_for_each_piece() {
    let all = names(1000);
    let snapshot = snapshot(1, &all);
    let reader = Reader::default();
    let asked: Vec<&str> = all.iter().map(String::as_str).collect();
    check(&reader, &snapshot, &asked);
    let mut pieces: Vec<&[&str]> = asked.chunks(50).collect();
    pieces.reverse();
    let list = joined(&pieces.concat());
    let known = reader.known.load_full();
    let mut walk = Walk::new(list.as_bytes(), &known);
    assert!(walk.all(&snapshot.roll).is_some());
    assert!(walk.lookups <= 21, "{} of 1000 names were looked up", walk.lookups);
}

#[test]
fn names_in_an_order_of_their_own_are_learnt_once() {
    let mut draws = Draws(3);
    let all = names(1000);
    let snapshot = snapshot(1, &all);
    let reader = Reader::default();
    let mut asked: Vec<&str> = all.iter().map(String::as_str).collect();
    check(&reader, &snapshot, &asked);
    let learnt = reader.known.load_full();
    for _ in 0..5 {
        for last in (1..asked.len()).rev() {
            asked.swap(last, draws.below(last + 1));
        }
        check(&reader, &snapshot, &asked);
        assert!(Arc::ptr_eq(&learnt, &reader.known.load_full()), "another order of the same names is nothing new");
    }
}

#[test]
fn lists_that_go_through_the_cluster_piece_by_piece_are_learnt_until_all_was_listed() {
    let all = names(1000);
    let snapshot = snapshot(1, &all);
    let reader = Reader::default();
    // In an order that is not that of the positions, a fifth at a time, as sampling takes them.
    let cluster: Vec<&str> = (0..1000).map(|i| all[i * 7 % 1000].as_str()).collect();
    let lookups = |from: usize| {
        let list = joined(&cluster[from..from + 200]);
        let known = reader.known.load_full();
        let mut walk = Walk::new(list.as_bytes(), &known);
        assert!(walk.all(&snapshot.roll).is_some());
        walk.lookups
    };
    for _ in 0..2 {
        for from in (0..1000).step_by(200) {
            check(&reader, &snapshot, &cluster[from..from + 200]);
        }
    }
    let learnt = reader.known.load_full();
    assert_eq!((learnt.ordered, learnt.positions.len()), (1000, 1000));
    for from in (0..800).step_by(100) {
        assert!(lookups(from) <= 2, "from {from}: {}", lookups(from));
    }
    assert!(Arc::ptr_eq(&learnt, &reader.known.load_full()));
}
