//! Patience with a driver whose calls may never return: asks in threads that may be given up. Knows nothing of NVML.
//!
//! A thread in a driver call cannot be ended from outside. What can be bounded is how many of them there are: one for a question about the
//! driver as a whole, and one a device. A thread whose call returned in time is asked again, since a new one costs a quiet agent more than
//! its questions do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome<T> {
    /// The answer.
    Answered(T),
    /// The call did not return in time, or an earlier one still has not.
    Hung,
}

/// A thread that does one job after the other, and ends when nobody can give it another.
#[derive(Debug)]
struct Asker {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Asker {
    /// Gives a job to the thread at hand, or else to a new one. `None` when the machine has no thread to spare.
    fn give(at_hand: Option<Self>, job: Job) -> Option<Self> {
        let job = match at_hand {
            None => job,
            Some(asker) => match asker.jobs.send(job) {
                Ok(()) => return Some(asker),
                // It ended by a panic.
                Err(unsent) => unsent.0,
            },
        };
        let (jobs, given) = channel::<Job>();
        let thread =
            Builder::new().name("nvml".to_owned()).spawn(move || given.into_iter().for_each(|job| job())).ok()?;
        jobs.send(job).ok()?;
        Some(Self { jobs, thread })
    }
}

/// Questions about one thing: a new one is asked only when no earlier one hangs.
#[derive(Debug, Default)]
pub(super) struct Patience {
    at_hand: Option<Asker>,
    given_up: Option<JoinHandle<()>>,
}

impl Patience {
    /// Whether a call of before still has not returned.
    pub(super) fn is_hung(&mut self) -> bool {
        self.given_up.take_if(|thread| thread.is_finished());
        self.given_up.is_some()
    }

    /// Asks in a thread of its own. An answer that comes too late is dropped there.
    pub(super) fn ask<T: Send + 'static>(
        &mut self,
        within: Duration,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> Outcome<T> {
        if self.is_hung() {
            return Outcome::Hung;
        }
        let (sender, receiver) = channel();
        // Nobody listens any more when the answer is late.
        let asker = Asker::give(self.at_hand.take(), Box::new(move || drop(sender.send(question()))));
        // A machine without a thread to spare is treated as one whose driver hangs: both are asked again later.
        let Some(asker) = asker else { return Outcome::Hung };
        match receiver.recv_timeout(within) {
            Ok(answer) => {
                self.at_hand = Some(asker);
                Outcome::Answered(answer)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                self.given_up = Some(asker.thread);
                Outcome::Hung
            }
        }
    }
}

/// The same question about each of several devices, by index.
#[derive(Debug, Default)]
pub(super) struct DevicePatience {
    at_hand: Option<Asker>,
    given_up: BTreeMap<u32, JoinHandle<()>>,
}

impl DevicePatience {
    /// Asks about the devices 0 to `count - 1`, one after the other in one thread. A device whose answer does not come `within` costs
    /// that thread, and the next devices get another. It is not asked again before its call returned.
    pub(super) fn ask<T: Send + 'static>(
        &mut self,
        count: u32,
        within: Duration,
        question: impl Fn(u32) -> T + Send + Sync + 'static,
    ) -> Vec<Outcome<T>> {
        self.given_up.retain(|_, thread| !thread.is_finished());
        let question = Arc::new(question);
        let mut answers = BTreeMap::new();
        let mut open: Vec<u32> = (0..count).filter(|index| !self.given_up.contains_key(index)).collect();
        while let Some(stuck) = self.ask_in_turn(&open, within, &question, &mut answers) {
            open.retain(|index| *index > stuck);
        }
        (0..count).map(|index| answers.remove(&index).map_or(Outcome::Hung, Outcome::Answered)).collect()
    }

    /// Asks in one thread; returns the device at which it was given up.
    fn ask_in_turn<T: Send + 'static>(
        &mut self,
        open: &[u32],
        within: Duration,
        question: &Arc<impl Fn(u32) -> T + Send + Sync + 'static>,
        answers: &mut BTreeMap<u32, T>,
    ) -> Option<u32> {
        open.first()?;
        let (sender, receiver) = channel();
        let job = {
            let (open, question) = (open.to_vec(), Arc::clone(question));
            move || {
                for index in open {
                    // Given up while it was in a call, it must not go on to devices that another thread asks about by now.
                    if sender.send((index, question(index))).is_err() {
                        return;
                    }
                }
            }
        };
        // Without a thread to spare, this and the next devices stay unanswered until the next time.
        let asker = Asker::give(self.at_hand.take(), Box::new(job))?;
        for index in open {
            match receiver.recv_timeout(within) {
                Ok((answered, answer)) => {
                    answers.insert(answered, answer);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    self.given_up.insert(*index, asker.thread);
                    return Some(*index);
                }
            }
        }
        self.at_hand = Some(asker);
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::Receiver;
    use std::time::Instant;

    use super::*;

    /// Long for a thread that answers at once, short for a test.
    const WITHIN: Duration = Duration::from_millis(300);

    fn wait_until(mut what: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !what() {
            assert!(Instant::now() < deadline, "it does not happen");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_device_that_hangs_costs_one_thread_and_no_other_answer() {
        let (release, blocked) = channel::<()>();
        let blocked: Arc<Mutex<Receiver<()>>> = Arc::new(Mutex::new(blocked));
        let asked = Arc::new(AtomicUsize::new(0));
        let question = {
            let asked = Arc::clone(&asked);
            move |index: u32| {
                if index == 1 {
                    asked.fetch_add(1, Ordering::SeqCst);
                    let _released = blocked.lock().map(|gate| gate.recv());
                }
                index * 10
            }
        };
        let question = Arc::new(question);
        let again = Arc::clone(&question);
        let mut patience = DevicePatience::default();
        let whole = [Outcome::Answered(0), Outcome::Hung, Outcome::Answered(20), Outcome::Answered(30)];
        assert_eq!(patience.ask(4, WITHIN, move |index| again(index)), whole);
        let again = Arc::clone(&question);
        let asked_again = Instant::now();
        assert_eq!(patience.ask(4, WITHIN, move |index| again(index)), whole);
        assert!(asked_again.elapsed() < WITHIN, "a device that is known to hang is waited for again");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "it is asked again while it hangs");

        drop(release);
        wait_until(|| patience.given_up.values().all(JoinHandle::is_finished));
        let answers = patience.ask(4, WITHIN, move |index| question(index));
        assert_eq!(answers[1], Outcome::Answered(10), "it is asked again once its call returned");
    }

    #[test]
    fn a_question_that_hangs_is_not_asked_twice() {
        let (release, blocked) = channel::<()>();
        let mut patience = Patience::default();
        assert_eq!(patience.ask(WITHIN, || 7), Outcome::Answered(7));
        assert_eq!(patience.ask(WITHIN, move || blocked.recv().is_ok()), Outcome::Hung);
        assert_eq!(patience.ask(WITHIN, || panic!("asked while the first one hangs")), Outcome::<()>::Hung);
        drop(release);
        wait_until(|| !patience.is_hung());
        assert_eq!(patience.ask(WITHIN, || 8), Outcome::Answered(8));
    }

    #[test]
    fn a_question_that_panics_is_no_answer() {
        assert_eq!(Patience::default().ask(WITHIN, || panic!("on purpose")), Outcome::<()>::Hung);
        let answers = DevicePatience::default().ask(3, WITHIN, |index| {
            assert_ne!(index, 1, "on purpose");
            index
        });
        assert_eq!(answers, [Outcome::Answered(0), Outcome::Hung, Outcome::Answered(2)]);
    }
}
