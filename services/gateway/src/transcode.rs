//! REST ⇄ gRPC by descriptor (`google.api.http`, AIP-127).
//!
//! | file | holds |
//! |---|---|
//! | `answer` | the call and its response |
//! | `body` | what a request brings |
//! | `bind` | path, query and body into a message |
//! | `field`, `value` | parameters: the field that one names, its text as a value |
//! | `unique` | JSON that gives nothing twice |
//! | `deadline` | how long a call may take |
//! | `json` | messages as JSON |
//! | `stream` | server streams: events, lines, frames, raw bytes |
//! | `content` | raw bytes as browsers may have them |

mod answer;
mod bind;
mod body;
mod content;
mod deadline;
mod field;
#[cfg(test)]
mod fuzz;
mod json;
mod stream;
mod unique;
mod value;

pub(crate) use answer::Transcoder;
pub(crate) use json::to_json;
