//! Texts that are not shown.

use serde::{Deserialize, Serialize};

/// A text that is not shown.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
// Serialized as it is: settings are merged in that form before they are read.
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text, for the one who must know it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "***" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_and_written_as_a_text_and_shown_to_nobody() {
        let secret: Secret = serde_json::from_str("\"open sesame\"").unwrap();
        assert_eq!(secret.expose(), "open sesame");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"open sesame\"");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(format!("{:?}", Secret::default()), "none");
    }
}
