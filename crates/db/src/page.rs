//! Opaque page tokens: where the next page begins.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::DbError;

/// A token that holds `position`.
pub fn encode(position: &impl Serialize) -> Result<String, DbError> {
    let text = serde_json::to_vec(position).map_err(|_| DbError::PageToken)?;
    Ok(URL_SAFE_NO_PAD.encode(text))
}

/// The position that a token holds.
///
/// # Errors
/// [`DbError::PageToken`] for anything that [`encode`] did not make.
pub fn decode<T: DeserializeOwned>(token: &str) -> Result<T, DbError> {
    let text = URL_SAFE_NO_PAD
        .decode(token)
        .map_err(|_| DbError::PageToken)?;
    serde_json::from_slice(&text).map_err(|_| DbError::PageToken)
}
