//! A mixed version proxy for Kubernetes control planes.

pub mod config;
pub mod credentials;
pub mod logging;
