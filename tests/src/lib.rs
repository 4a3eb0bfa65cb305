//! Holds what mvproxy's tests, benchmarks and demo stand on: a stand-in kube-apiserver, its store and its certificates.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a panic is how a test fails"))]

pub mod client;
pub mod netns;
pub mod network;
pub mod pki;
pub mod standin;
pub mod store;
