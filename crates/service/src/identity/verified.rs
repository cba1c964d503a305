//! Tokens whose signature was checked: the gateway sends the same one for half a minute, and a check
//! takes 50 µs.

use std::collections::HashMap;

use ferroflow_types::Caller;

/// Tokens that are remembered at most. There are seldom more callers than that in a minute, and one that is
/// forgotten is checked again.
const TOKENS_MAX: usize = 1024;

/// Verified tokens until they expire.
#[derive(Default)]
pub(super) struct Verified(HashMap<String, (Caller, i64)>);

impl Verified {
    /// Who calls with this token; `now_s` in seconds since the epoch.
    pub(super) fn caller(&self, token: &str, now_s: i64) -> Option<Caller> {
        let (caller, expires_s) = self.0.get(token)?;
        (now_s < *expires_s).then(|| caller.clone())
    }

    /// Remembers a token that was verified.
    pub(super) fn remember(&mut self, token: &str, caller: &Caller, expires_s: i64, now_s: i64) {
        if self.0.len() >= TOKENS_MAX {
            self.0.retain(|_, (_, expires_s)| now_s < *expires_s);
        }
        if self.0.len() >= TOKENS_MAX {
            self.0.clear();
        }
        self.0.insert(token.to_owned(), (caller.clone(), expires_s));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_remembered_until_it_expires() {
        let mut verified = Verified::default();
        verified.remember("a", &Caller::local(), 100, 40);

        assert_eq!(verified.caller("a", 99), Some(Caller::local()));
        assert_eq!(verified.caller("a", 100), None);
        assert_eq!(verified.caller("b", 99), None);
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let mut verified = Verified::default();
        for at in 0..TOKENS_MAX {
            let expires_s = if at == 7 { 1000 } else { 100 };
            verified.remember(&at.to_string(), &Caller::local(), expires_s, 0);
        }

        verified.remember("late", &Caller::local(), 1000, 500);
        assert_eq!(verified.0.len(), 2, "the expired ones are forgotten");
        for at in 0..2 * TOKENS_MAX {
            verified.remember(&at.to_string(), &Caller::local(), 1000, 500);
            assert!(verified.0.len() <= TOKENS_MAX);
        }
    }
}
