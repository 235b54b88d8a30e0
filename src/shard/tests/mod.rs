//! Tests of the namespace through its commands: a file for each family, random histories against
//! a model, golden bytes of what is stored.

mod chores;
mod files;
mod golden;
mod history;
mod namespace;
mod sessions;
mod speed;
mod uploads;
