//! Is a history of calls on one register strictly linearizable?
//!
//! Linearizable: each call took effect at one instant between its begin and its end (Herlihy and Wing, 1990).
//! Strictly so: a call that its process did not live to see the end of took effect before the death, or never
//! (Aguilera and Frolund, 2003). So such a call ends at the death, and may have done nothing.
//!
//! The search is Wing and Gong's with Lowe's cache: it takes a call that nothing must come before, applies it, and goes
//! on with the rest; a set of calls that led to the same state before is not tried again.

use std::collections::HashSet;

/// Steps of a search before it is given up: a good history takes some per call.
const STEPS_MAX: u64 = 3_000_000;

/// What a call did, by what it told. Values are unique; 0 is the absent record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Deed {
    /// The record had this value.
    Read(u64),
    /// It got this value, whatever it was before.
    Write(u64),
    /// It got the second value, and had the first one before.
    Swap(u64, u64),
    /// It was absent afterwards; it was there before, if that is known.
    Delete(Option<bool>),
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    pub(crate) deed: Deed,
    /// Its process died in it: it may have done nothing.
    pub(crate) cut_off: bool,
    /// Who made it.
    pub(crate) by: u64,
}

impl Deed {
    fn apply(self, state: u64) -> Option<u64> {
        match self {
            Deed::Read(value) => (value == state).then_some(state),
            Deed::Write(value) => Some(value),
            Deed::Swap(from, to) => (from == state).then_some(to),
            Deed::Delete(None) => Some(0),
            Deed::Delete(Some(was_there)) => (was_there == (state != 0)).then_some(0),
        }
    }
}

impl Call {
    /// The states that it can lead to, the n-th of them; the likelier one first.
    fn outcome(&self, state: u64, n: u8, was_seen: bool) -> Option<u64> {
        if (n == 0) == was_seen { self.deed.apply(state) } else { Some(state).filter(|_| self.cut_off) }
    }

    /// Whether somebody told of the value that it wrote, or it is known to have been made.
    fn was_seen(&self, values: &HashSet<u64>) -> bool {
        match self.deed {
            Deed::Write(value) | Deed::Swap(_, value) if self.cut_off => values.contains(&value),
            _ => true,
        }
    }
}

/// Begins and ends of calls that were not applied yet, in the order of time, as a list.
struct Timeline {
    /// Which call, and whether this is its end.
    events: Vec<(usize, bool)>,
    next: Vec<usize>,
    before: Vec<usize>,
    begin_of: Vec<usize>,
    end_of: Vec<usize>,
}

impl Timeline {
    fn new(calls: &[Call]) -> Self {
        let mut events: Vec<(u64, usize, bool)> = Vec::new();
        for (n, call) in calls.iter().enumerate() {
            events.push((call.begun, n, false));
            events.push((call.ended, n, true));
        }
        events.sort_unstable_by_key(|&(time, n, is_end)| (time, is_end, n));
        let (mut begin_of, mut end_of) = (vec![0; calls.len()], vec![0; calls.len()]);
        for (at, &(_, n, is_end)) in (1..).zip(&events) {
            if is_end { end_of[n] = at } else { begin_of[n] = at }
        }
        let count = events.len();
        let events = std::iter::once((usize::MAX, false)).chain(events.iter().map(|e| (e.1, e.2))).collect();
        let next = (1..=count + 1).collect();
        let before = std::iter::once(0).chain(0..=count).collect();
        Self { events, next, before, begin_of, end_of }
    }

    fn first(&self) -> usize {
        self.next[0]
    }

    fn take_out(&mut self, at: usize) {
        let (before, next) = (self.before[at], self.next[at]);
        self.next[before] = next;
        if next < self.before.len() {
            self.before[next] = before;
        }
    }

    fn put_back(&mut self, at: usize) {
        let (before, next) = (self.before[at], self.next[at]);
        self.next[before] = at;
        if next < self.before.len() {
            self.before[next] = at;
        }
    }

    fn take_call(&mut self, n: usize) {
        self.take_out(self.begin_of[n]);
        self.take_out(self.end_of[n]);
    }

    fn put_call(&mut self, n: usize) {
        self.put_back(self.end_of[n]);
        self.put_back(self.begin_of[n]);
    }
}

/// Why there is no order: the call that can't be reached, and the longest order that was found before it.
#[derive(Debug)]
pub(crate) struct Impossible {
    pub(crate) stuck: Call,
    pub(crate) state: u64,
    pub(crate) order: Vec<Call>,
}

/// Looks for an order of the calls in which each tells what was so, on a register that was `initial` before.
pub(crate) fn check(calls: &[Call], initial: u64) -> Result<(), Box<Impossible>> {
    let mut timeline = Timeline::new(calls);
    let mut applied = vec![0u64; calls.len().div_ceil(64)];
    let mut seen: HashSet<(Box<[u64]>, u64)> = HashSet::new();
    let mut stack: Vec<(usize, u64, u8)> = Vec::new();
    let mut state = initial;
    let mut farthest: Option<Impossible> = None;
    let values: HashSet<u64> = calls
        .iter()
        .filter_map(|call| match call.deed {
            Deed::Read(value) | Deed::Swap(value, _) => Some(value),
            _ => None,
        })
        .collect();
    let was_seen: Vec<bool> = calls.iter().map(|call| call.was_seen(&values)).collect();
    let mut steps = 0;
    let mut at = timeline.first();
    let mut outcome = 0;
    while timeline.first() < timeline.events.len() {
        let (n, is_end) = timeline.events[at];
        if !is_end {
            if outcome > 1 {
                (at, outcome) = (timeline.next[at], 0);
                continue;
            }
            let Some(after) = calls[n].outcome(state, outcome, was_seen[n]) else {
                outcome += 1;
                continue;
            };
            applied[n / 64] |= 1 << (n % 64);
            if seen.insert((applied.clone().into_boxed_slice(), after)) {
                stack.push((n, state, outcome));
                timeline.take_call(n);
                state = after;
                (at, outcome) = (timeline.first(), 0);
            } else {
                applied[n / 64] &= !(1 << (n % 64));
                outcome += 1;
            }
            continue;
        }
        if farthest.as_ref().is_none_or(|f| f.order.len() < stack.len()) {
            let order = stack.iter().map(|&(n, ..)| calls[n]).collect();
            farthest = Some(Impossible { stuck: calls[n], state, order });
        }
        steps += 1;
        let next = if steps < STEPS_MAX { stack.pop() } else { None };
        let Some((n, was, tried)) = next else {
            return Err(Box::new(farthest.expect("set just above")));
        };
        applied[n / 64] &= !(1 << (n % 64));
        timeline.put_call(n);
        state = was;
        (at, outcome) = (timeline.begin_of[n], tried + 1);
    }
    Ok(())
}

/// The checker itself: what it must let through, and what it must not.
pub(crate) fn checks_itself() {
    let call = |begun, ended, deed| Call { begun, ended, deed, cut_off: false, by: 0 };
    let cut = |begun, ended, deed| Call { begun, ended, deed, cut_off: true, by: 0 };
    use Deed::{Delete, Read, Swap, Write};
    let good: &[&[Call]] = &[
        &[],
        &[call(1, 2, Write(7)), call(3, 4, Read(7))],
        &[call(1, 4, Write(7)), call(2, 3, Read(0)), call(5, 6, Read(7))],
        &[call(1, 4, Write(7)), call(2, 3, Read(7))],
        &[call(1, 8, Write(7)), call(2, 7, Write(8)), call(3, 4, Read(8)), call(5, 6, Read(7))],
        // A death: before it or never.
        &[cut(1, 4, Write(7)), call(5, 6, Read(0))],
        &[cut(1, 4, Write(7)), call(2, 3, Read(0)), call(5, 6, Read(7))],
        &[call(1, 2, Write(7)), call(3, 4, Delete(Some(true))), call(5, 6, Delete(Some(false)))],
        &[call(1, 2, Write(7)), call(3, 9, Swap(7, 8)), call(4, 8, Swap(8, 9)), call(10, 11, Read(9))],
    ];
    for (n, calls) in good.iter().enumerate() {
        assert!(check(calls, 0).is_ok(), "good history {n}");
    }
    let bad: &[&[Call]] = &[
        &[call(1, 2, Write(7)), call(3, 4, Read(0))],
        &[call(1, 6, Write(7)), call(2, 3, Read(7)), call(4, 5, Read(0))],
        // It appears after the death.
        &[cut(1, 4, Write(7)), call(5, 6, Read(0)), call(7, 8, Read(7))],
        &[call(1, 2, Write(7)), cut(3, 6, Delete(None)), call(7, 8, Read(7)), call(9, 10, Read(0))],
        // Back again.
        &[call(1, 2, Write(7)), cut(3, 6, Write(8)), call(7, 8, Read(8)), call(9, 10, Read(7))],
        &[call(1, 2, Write(7)), call(3, 9, Swap(7, 8)), call(4, 8, Swap(7, 9))],
        &[call(1, 2, Delete(Some(true)))],
        &[call(1, 2, Read(9))],
    ];
    for (n, calls) in bad.iter().enumerate() {
        assert!(check(calls, 0).is_err(), "bad history {n}");
    }
}
