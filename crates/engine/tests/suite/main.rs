//! The engine with components made for the purpose: graphs and their mistakes, columns, starts and
//! ends, and a simulation of everything that can go wrong at once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod columns;
mod gather;
mod graphs;
mod lifecycle;
mod parts;
mod prepare;
mod rejects;
mod required;
mod sim;
mod told;
