//! How deep the next reading of a running agent goes. Pure: counts readings, so that whoever polls faster sees everything sooner.
//!
//! A driver answers some hundreds of questions about eight GPUs, a kernel tree has thousands of files, and on a healthy node they say the
//! same for months. What an event or a glance tells is read at once; the rest waits for its turn.

/// Of so many readings one reads all but links and what a boot settles: PCIe width, modes, MIG instances, fabric, huge pages, policies,
/// virtual functions. Half a minute at the agent's usual interval: no placement that they change is wrong for longer.
pub const ROUND_OF: u32 = 6;
/// Of so many readings one reads everything, links too. Five minutes at the usual interval: links that fail tell so by an event, and this
/// is for the event that was lost. On a DGX H100 it is 432 calls to the driver.
pub const WHOLE_OF: u32 = 60;
/// So many rounds after news everything is read again: links that fail or train go on doing so for a while.
const ROUNDS_AFTER_NEWS: u32 = 2;

/// How deep a reading goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Looks whether anything changed.
    Glance,
    /// Reads what may change without an event.
    Round,
    /// Reads everything.
    Whole,
}

/// Where in the rhythm an agent is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rhythm {
    since_round: u32,
    since_whole: u32,
    whole_rounds_due: u32,
}

impl Rhythm {
    /// The depth of the next reading. `has_news` says that an event or a glance told of a change, or that nothing was read yet.
    pub fn next(&mut self, has_news: bool) -> Depth {
        self.since_round = self.since_round.saturating_add(1);
        self.since_whole = self.since_whole.saturating_add(1);
        if has_news {
            self.whole_rounds_due = ROUNDS_AFTER_NEWS;
            return self.done(Depth::Whole);
        }
        if self.since_whole >= WHOLE_OF {
            return self.done(Depth::Whole);
        }
        if self.since_round < ROUND_OF {
            return Depth::Glance;
        }
        if self.whole_rounds_due > 0 {
            self.whole_rounds_due = self.whole_rounds_due.saturating_sub(1);
            return self.done(Depth::Whole);
        }
        self.done(Depth::Round)
    }

    fn done(&mut self, depth: Depth) -> Depth {
        self.since_round = 0;
        if depth == Depth::Whole {
            self.since_whole = 0;
        }
        depth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depths(rhythm: &mut Rhythm, count: u32) -> Vec<Depth> {
        (0..count).map(|_| rhythm.next(false)).collect()
    }

    #[test]
    fn news_are_read_at_once_and_twice_more() {
        let mut rhythm = Rhythm::default();
        assert_eq!(rhythm.next(true), Depth::Whole);
        let after = depths(&mut rhythm, 3 * ROUND_OF);
        let deep: Vec<Depth> = after.into_iter().filter(|depth| *depth != Depth::Glance).collect();
        assert_eq!(deep, [Depth::Whole, Depth::Whole, Depth::Round]);
    }

    #[test]
    fn in_peace_rounds_are_many_glances_apart_and_whole_readings_many_rounds() {
        let mut rhythm = Rhythm::default();
        let _settled = (rhythm.next(true), depths(&mut rhythm, 2 * ROUND_OF));
        let peace = depths(&mut rhythm, WHOLE_OF);
        let at = |wanted: Depth| {
            let places = (1_u32..).zip(&peace).filter(move |(_, depth)| **depth == wanted);
            places.map(|(place, _)| place).collect::<Vec<_>>()
        };
        assert_eq!(at(Depth::Whole), [WHOLE_OF]);
        assert_eq!(at(Depth::Round), (1..WHOLE_OF / ROUND_OF).map(|round| round * ROUND_OF).collect::<Vec<_>>());
    }

    #[test]
    fn news_in_every_reading_are_read_in_every_reading() {
        let mut rhythm = Rhythm::default();
        assert!((0..100).all(|_| rhythm.next(true) == Depth::Whole));
    }
}
