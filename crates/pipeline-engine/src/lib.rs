//! Pipelines without a service: what a compiled pipeline means, and what a run of it does next.
//!
//! ```text
//! documents ──► plan::Plan ──► engine::RunState::decide(event) ──► effects
//!                  (once)            │ (for each event)               │
//!                                    ▼                                ▼
//!                           tasks, transitions                invocation, fingerprint
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`plan`] | a pipeline, checked: components, tasks, edges |
//! | `ir` | the documents that a plan is built from |
//! | `expr` | conditions of tasks and selectors of values |
//! | [`engine`] | how a run gets from its plan to its end |
//! | [`outline`] | what the tasks of a run are in its plan |
//! | [`invocation`] | what one attempt is given: command, environment, files, limits |
//! | `placeholder`, `arguments`, `executor_input` | the texts of a command |
//! | `platform`, `task_config` | what `platforms.kubernetes` asks for |
//! | [`fingerprint`] | by what a result is found again |
//! | [`artifact`], [`values`] | what tasks hand on |
//! | [`task_path`] | where a task is in its run |
//! | [`run_parameters`], [`macros`] | what a run is given |
//! | `budget` | how much is put together for one task |
//!
//! Nothing here reads a clock, a file or an environment, or waits: the same events give the same
//! decisions. What a server stores, answers and starts is the service's.
#![warn(missing_docs)]

mod arguments;
pub mod artifact;
mod budget;
pub mod engine;
mod executor_input;
mod expr;
pub mod fingerprint;
mod go_layout;
pub mod invocation;
mod ir;
pub mod macros;
pub mod outline;
mod placeholder;
pub mod plan;
mod platform;
pub mod run_parameters;
mod task_config;
pub mod task_path;
pub mod values;
