//! REST ⇄ gRPC by descriptor (`google.api.http`, AIP-127).
//!
//! | file | holds |
//! |---|---|
//! | `answer` | the call and its response |
//! | `body` | what a request brings |
//! | `bind` | path, query and body into a message |
//! | `json` | messages as JSON |
//! | `stream` | server streams: events, lines, frames, raw bytes |
//! | `content` | raw bytes as browsers may have them |

mod answer;
mod bind;
mod body;
mod content;
mod json;
mod stream;

pub(crate) use answer::Transcoder;
pub(crate) use json::to_json;
