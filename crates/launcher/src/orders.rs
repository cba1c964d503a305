//! What the one who waits for a command is told while it runs.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};

use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

/// What can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// End the command and everything that it started.
    End,
    /// The command has ended.
    Over,
}

/// Where orders come in.
#[derive(Debug)]
pub(crate) struct Orders {
    pub(crate) receiver: Receiver<Order>,
    pub(crate) sender: Sender<Order>,
    /// Why a command ended that somebody had ended without cancelling it.
    pub(crate) because: &'static str,
}

impl Orders {
    /// Orders that nobody has given yet.
    pub(crate) fn new(because: &'static str) -> Self {
        let (sender, receiver) = mpsc::channel();
        Self {
            receiver,
            sender,
            because,
        }
    }

    /// From now on, SIGTERM to this process is the order to end.
    pub(crate) fn from_signals(because: &'static str) -> io::Result<Self> {
        let orders = Self::new(because);
        let ender = orders.sender.clone();
        let mut signals = Signals::new([SIGTERM])?;
        std::thread::spawn(move || {
            for _ in signals.forever() {
                // The receiver is gone when the command has ended.
                let _unheard = ender.send(Order::End).is_err();
            }
        });
        Ok(orders)
    }
}
