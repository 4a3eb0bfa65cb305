//! A mixed version proxy for Kubernetes control planes.
//!
//! # The path of a request
//!
//! ```text
//! accept → tls → identity → classify → route → forward → account
//! ```
//!
//! [`serve`] reads as that sentence. [`accept`] takes a connection that the kernel steered here; [`tls`] terminates it as
//! the API server would, or splices it through; [`identity`] says who the request speaks for; [`classify`] says what it
//! asks for; [`route`] decides which API server answers, from one [`discovery`] snapshot; [`forward`] sends it there; and
//! [`account`] counts it. Each stage knows those before it and none behind it.
//!
//! Beside the path, each with one piece of state that only it writes: [`discovery::sync`] the snapshot, [`peers`] the list
//! of API servers, [`reload`] the TLS context, [`steering`] the kernel's maps. [`app`] puts everything together.

pub mod accept;
pub mod tls;

pub mod identity;

pub mod classify;

pub mod route;

pub mod forward;

pub mod account;

pub mod dismissal;
pub mod limits;
pub mod serve;
pub mod worker;

pub mod asker;
pub mod cut;
pub mod discovery;
pub mod own_client;
pub mod pause;
pub mod peers;
pub mod prober;
pub mod upstream;
pub mod vitals;

pub mod skew;
pub mod steering;

pub mod admin;
pub mod causes;
pub mod error;
pub mod explain;
pub mod metrics;
pub mod readiness;
pub mod status;

pub mod app;
pub mod ask;
pub mod authentication;
pub mod check;
pub mod config;
pub mod credentials;
pub mod logging;
pub mod reload;
