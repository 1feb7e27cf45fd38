//! Health checking: probes, what their results mean, and what every backend gets by them.
//!
//! From the bottom: `probe` asks once; `check` makes standings of results, `schedule` says when to ask again, `lane` is
//! the thread that does both; `member` makes a backend's state of its checks, `decide` a service's decisions of its
//! members, which `slow_start` and `response` scale as time goes by; `fleet` holds them all. Pure but for `probe`, `lane`, `hook` and `passive`; knows neither maps nor daemon.

pub mod check;
pub mod decide;
pub mod ewma;
pub mod fleet;
pub mod hook;
pub mod job;
pub mod lane;
pub mod member;
pub mod passive;
pub mod probe;
pub mod response;
pub mod schedule;
pub mod slow_start;
pub mod task;
pub mod tell;
pub mod view;
pub mod words;
