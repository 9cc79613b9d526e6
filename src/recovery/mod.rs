#![doc = include_str!("mod.md")]

pub(crate) mod adopt;
pub(crate) mod evidence;
pub(crate) mod identity;
pub(crate) mod rebuild;
pub(crate) mod recover;
pub(crate) mod salvage;
pub(crate) mod search;
pub(crate) mod sound;
pub(crate) mod verify;
