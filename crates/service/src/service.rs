//! What a service is to whoever puts services together: one row of a table.

use ferroflow_db::{Db, Migration};
use ferroflow_types::{Secret, ValueLimit};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tonic::service::Routes;

use crate::runner::Runner;

/// A service of the platform.
///
/// Its section of the settings, its flags, `serve NAME`, its database, its socket or address, the
/// relay of its events and the gateway's way to it follow from this alone.
pub trait Service: 'static {
    /// Its name: the command that starts it alone, its socket, the audience of identity tokens. One
    /// that ends in `-svc`, so that it is no name of a command-line flag of anything else.
    const NAME: &'static str;
    /// What it is about, in one word: its section of the settings, the file of its database and the
    /// lease of its relay.
    const DOMAIN: &'static str;
    /// What `serve NAME --help` says of it.
    const ABOUT: &'static str;
    /// The gRPC services that it answers, by their full names.
    const GRPC: &'static [&'static str];
    /// Their encoded `FileDescriptorSet` with imports, when they are not contracts of `ferroflow_proto`.
    const CONTRACTS: Option<&'static [u8]> = None;
    /// The tables of its database.
    const MIGRATIONS: &'static [Migration];

    /// Its section of the settings.
    type Config: Settings;
    /// Those of its settings that can be given on the command line, in the shape of the section. The
    /// ids of flags and of the group (`#[group(id = …)]`) are those of no other service.
    type Flags: clap::Args + Serialize;
    /// What it is given beside [`CommonDeps`].
    type Deps: Send;
    /// Why it cannot start.
    type Error: std::error::Error + Send + Sync;

    /// Starts what works in the background, which belongs to `runner`, and says how calls are answered.
    fn start(
        config: &Self::Config,
        common: CommonDeps,
        deps: Self::Deps,
        runner: &mut Runner,
    ) -> impl Future<Output = Result<Routes, Self::Error>> + Send;
}

/// What every service has among its settings.
pub trait Settings: Serialize + DeserializeOwned + Default + Send + Sync {
    /// The TCP address of its gRPC when it is a process of its own; a UNIX socket in the data folder
    /// unless given.
    fn listen(&self) -> Option<&str>;
    /// The PostgreSQL URL of its database; a file in the data folder unless given.
    fn database(&self) -> Option<&Secret>;
}

/// The settings of a service that has none of its own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BasicSettings {
    /// [`Settings::listen`].
    #[serde(with = "ferroflow_types::unset::text")]
    pub listen: Option<String>,
    /// [`Settings::database`].
    #[serde(with = "ferroflow_types::unset::text")]
    pub database: Option<Secret>,
}

impl Settings for BasicSettings {
    fn listen(&self) -> Option<&str> {
        self.listen.as_deref()
    }

    fn database(&self) -> Option<&Secret> {
        self.database.as_ref()
    }
}

/// What every service is given.
#[derive(Clone)]
pub struct CommonDeps {
    /// Its database, with its tables. What it says in the outbox there is relayed to the event log.
    pub db: Db,
    /// What no other process on that database is called; the same again after a restart.
    pub replica: String,
    /// How large values may be, and the messages that carry them.
    pub values: ValueLimit,
}

/// The flags of a service that has none of its own.
#[derive(Debug, Clone, Copy, Default, clap::Args, Serialize)]
#[group(skip)]
pub struct NoFlags {}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;

    #[test]
    fn several_services_may_have_no_flags() {
        let command = NoFlags::augment_args(clap::Command::new("up"));
        NoFlags::augment_args(command).debug_assert();
    }
}
