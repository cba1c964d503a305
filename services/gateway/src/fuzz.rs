//! Inputs that nobody meant, made of a corpus by seeded changes: nothing panics, and what is accepted
//! is sound.
//!
//! `FERROFLOW_FUZZ` says how many inputs of each kind are tried, and `FERROFLOW_FUZZ_SEED` where
//! the changes begin.

use std::sync::LazyLock;
use std::time::Instant;

use crate::contracts::Contracts;
use crate::route::Routes;

/// Inputs of each kind, unless told otherwise.
const EXECUTIONS: u64 = 5_000;

/// Longer inputs are cut: nothing in them is new.
const LENGTH_MAX: usize = 4096;

/// An input may cost the process this much memory.
const MEMORY_MAX_KIB: u64 = 64 * 1024;

/// The routes of a service that is bound in every way there is.
pub(crate) static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
    let contracts: Contracts =
        crate::contracts::tests::compiled(include_str!("../tests/it/echo.proto"));
    Routes::build(contracts.pool()).unwrap()
});

fn env_number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }
}

/// Changes an input a few times: cuts, copies, joins with another, sets bytes and words.
fn mutate(input: &mut Vec<u8>, corpus: &[&[u8]], dictionary: &[&str], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(7) {
            0 => {
                let end = (at + 1 + random.below(8)).min(input.len());
                input.drain(at.min(end)..end);
            }
            1 => {
                let end = (at + 1 + random.below(16)).min(input.len());
                let copy = input[at.min(end)..end].to_vec();
                input.splice(at..at, copy);
            }
            2 => {
                let other = corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            3 if at < input.len() => input[at] = random.next().to_le_bytes()[0],
            4 if at < input.len() => input[at] ^= 1 << random.below(8),
            _ => {
                let word = dictionary[random.below(dictionary.len())].as_bytes();
                input.splice(at..at, word.iter().copied());
            }
        }
    }
    input.truncate(LENGTH_MAX);
}

/// The most memory that this process ever had.
fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

/// Tries inputs, and counts those that are accepted.
pub(crate) fn fuzz(what: &str, corpus: &str, dictionary: &[&str], accepts: impl Fn(&str) -> bool) {
    let corpus: Vec<&[u8]> = corpus.lines().map(str::as_bytes).collect();
    let executions = env_number("FERROFLOW_FUZZ").unwrap_or(EXECUTIONS);
    let seed = env_number("FERROFLOW_FUZZ_SEED").unwrap_or(1);
    for line in &corpus {
        accepts(std::str::from_utf8(line).unwrap());
    }
    let (before, begun) = (memory_kib(), Instant::now());
    let mut accepted = 0;
    for execution in 0..executions {
        let mut random = Random(seed.wrapping_mul(0x1_0000_0001).wrapping_add(execution));
        let mut input = corpus[random.below(corpus.len())].to_vec();
        mutate(&mut input, &corpus, dictionary, &mut random);
        accepted += u64::from(accepts(&String::from_utf8_lossy(&input)));
    }
    let more = memory_kib() - before;
    let seconds = begun.elapsed().as_secs_f64();
    println!("{what}: {executions} inputs, {accepted} accepted, {more} KiB more, {seconds:.0} s");
    assert!(accepted > 0, "{what}: nothing is accepted");
    assert!(more <= MEMORY_MAX_KIB, "{what}: {more} KiB more");
}
