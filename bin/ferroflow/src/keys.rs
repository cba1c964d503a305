//! The keys by which services know that a gateway calls.

use anyhow::{Context as _, bail};
use ferroflow_service::identity::{Keys, PublicKey};

use crate::config::Identity;

/// The keys of a process that signs and verifies.
pub(crate) fn load_or_generate(identity: &Identity) -> anyhow::Result<Keys> {
    match &identity.private_key_file {
        // Whoever verifies is in this process too, so nobody else needs the key.
        None => Ok(Keys::generate()?),
        Some(file) => load_private(file),
    }
}

/// The keys that gateways share.
pub(crate) fn load_private(file: &str) -> anyhow::Result<Keys> {
    let text = std::fs::read_to_string(file);
    let text = text.with_context(|| format!("identity.private_key_file: cannot read {file}"))?;
    Keys::from_pem(&text).with_context(|| format!("identity.private_key_file {file}"))
}

/// The key by which services verify what gateways sign.
pub(crate) fn load_public(identity: &Identity) -> anyhow::Result<PublicKey> {
    match (&identity.public_key_file, &identity.private_key_file) {
        (None, None) => bail!(
            "identity.public_key_file is empty, and gateways are processes of their own: name the \
             public key (or certificate) of the private key that they sign with"
        ),
        (None, Some(private)) => Ok(load_private(private)?.public()),
        (Some(file), _) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("identity.public_key_file: cannot read {file}"))?;
            PublicKey::from_pem(&text).with_context(|| format!("identity.public_key_file {file}"))
        }
    }
}
