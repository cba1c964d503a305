//! Images that run where others were asked for.

use std::collections::BTreeMap;

/// The image that runs where `image` was asked for; `"*"` stands for all that have no entry.
pub(crate) fn resolve(images: &BTreeMap<String, String>, image: &str) -> String {
    images
        .get(image)
        .or_else(|| images.get("*"))
        .map_or(image, String::as_str)
        .to_owned()
}
