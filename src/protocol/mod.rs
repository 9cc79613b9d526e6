#![doc = include_str!("mod.md")]

pub(crate) mod bell;
pub(crate) mod index;
pub(crate) mod lock;
pub(crate) mod newest;
pub(crate) mod slot;
pub(crate) mod trail;
