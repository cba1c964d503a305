//! What the watchdog of a command is sent while the command runs.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};

use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

/// A message to the watchdog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchdogMessage {
    /// End the command and everything that it started.
    Terminate,
    /// The command has ended.
    CommandEnded,
}

/// Where the messages come in.
#[derive(Debug)]
pub(crate) struct WatchdogChannel {
    pub(crate) receiver: Receiver<WatchdogMessage>,
    pub(crate) sender: Sender<WatchdogMessage>,
    /// Why a command ended that somebody had ended without cancelling it.
    pub(crate) eviction_message: &'static str,
}

impl WatchdogChannel {
    /// A channel without a message yet.
    pub(crate) fn new(eviction_message: &'static str) -> Self {
        let (sender, receiver) = mpsc::channel();
        Self {
            receiver,
            sender,
            eviction_message,
        }
    }

    /// From now on, SIGTERM to this process is the message to terminate.
    pub(crate) fn from_signals(eviction_message: &'static str) -> io::Result<Self> {
        let channel = Self::new(eviction_message);
        let sender = channel.sender.clone();
        let mut signals = Signals::new([SIGTERM])?;
        std::thread::spawn(move || {
            for _ in signals.forever() {
                // The receiver is gone when the command has ended.
                let _command_ended = sender.send(WatchdogMessage::Terminate).is_err();
            }
        });
        Ok(channel)
    }
}
