//! Pipelines: definitions, runs of them, their tasks and artifacts.
//!
//! ```text
//! api  ──►  app  ──►  store ──►  domain          RPC CreateRun → app::create_run
//!            ▲                     ▲             → store::runs::insert → event run.created
//! workers ───┘  (actors of runs) ──┘             → workers::runs
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `api` | one file per gRPC service: decode, call `app`, encode |
//! | `app` | use cases; each opens the transaction and writes state and event together |
//! | `domain` | pure: the plan, the engine, expressions, placeholders, fingerprints |
//! | `store` | SQL, one file per aggregate |
//! | `workers` | the actors that drive runs |

mod app;
mod domain;
mod store;
mod workers;
