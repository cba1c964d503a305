//! How much is put together for one task.

use std::cell::Cell;

use ferroflow_types::ValueLimit;

/// Bytes that the inputs of a task, or the texts of its command, may have together. A short
/// specification that names a large value a thousand times would otherwise need gigabytes of memory
/// before anything could be refused.
#[derive(Debug)]
pub(crate) struct Budget {
    all: u64,
    left: Cell<u64>,
}

impl Budget {
    /// What a message between services carries is what a task can be given.
    pub(crate) fn new(limit: ValueLimit) -> Self {
        let all = limit.message() as u64;
        Self {
            all,
            left: Cell::new(all),
        }
    }

    /// Counts what is about to be added.
    ///
    /// # Errors
    /// A sentence, if there is no room for it.
    pub(crate) fn take(&self, bytes: u64) -> Result<(), String> {
        self.check(bytes)?;
        self.left.set(self.left.get() - bytes);
        Ok(())
    }

    /// Whether so many bytes could be added.
    ///
    /// # Errors
    /// A sentence, if there is no room for them.
    pub(crate) fn check(&self, bytes: u64) -> Result<(), String> {
        if bytes <= self.left.get() {
            return Ok(());
        }
        Err(format!(
            "what the task is given is more than {} bytes together (a limit that follows from \
             value_max): pass large values as artifacts",
            self.all
        ))
    }
}
