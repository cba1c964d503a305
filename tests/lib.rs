//! Tests across services; see `tests/`.
