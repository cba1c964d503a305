//! REST ⇄ gRPC by descriptor (`google.api.http`, AIP-127).
//!
//! | file | holds |
//! |---|---|
//! | `template` | path templates: reading, matching, decoding |
//! | `routes` | every binding of every RPC, the most special first |
//! | `bind` | path, query and body into a message |
//! | `call` | the call and its response |
//! | `stream` | server streams: events, lines, frames, raw bytes |
//! | `content` | raw bytes as browsers may have them |

mod bind;
mod call;
mod content;
mod routes;
mod stream;
mod template;

pub(crate) use call::{Transcoder, to_json, transcode};
pub(crate) use routes::{Binding, Routes};
