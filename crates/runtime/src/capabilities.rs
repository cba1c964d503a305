//! What attempts can have where they run, beside a command.

use std::path::PathBuf;

/// What a runtime gives; the same for as long as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Where attempts are.
    pub site: Site,
    /// What an attempt without a command of its own runs.
    pub entry_points: EntryPoints,
    /// Where outputs may go.
    pub outputs: Destinations,
}

/// Where attempts are, and who finds them there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// On this machine, for one process: another replica does not find them.
    Machine,
    /// In a cluster, for every replica. Attempts may use its objects: secrets, volume claims.
    Cluster,
}

/// Whether what an image runs by itself is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryPoints {
    /// It is not: an attempt names its program.
    Unknown,
    /// It is, and is run where an attempt names no program.
    OfImages,
}

/// Where outputs may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destinations {
    /// To files of this machine.
    Files,
    /// There, and to an object store.
    FilesAndStores,
}

/// The folder that the attempts of an owner share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedFolder {
    /// Where commands find it.
    pub path: PathBuf,
    /// The volume claim that it is, in a cluster.
    pub claim: Option<String>,
}
