//! Real power loss: a virtual machine, its disk with a cache that forgets, and what the host knows.
//!
//! On the host: [`disk`] is the medium and its volatile cache, [`nbd`] serves it, [`initramfs`] packs this
//! test binary as the machine's only program, [`machine`] boots it and cuts its power, [`oracle`] knows
//! what may be there afterwards, [`rounds`] conducts. In the machine: [`guest`]. Both sides draw the same
//! [`work`].

pub(crate) mod disk;
pub(crate) mod guest;
pub(crate) mod initramfs;
pub(crate) mod machine;
pub(crate) mod nbd;
pub(crate) mod oracle;
pub(crate) mod rounds;
pub(crate) mod work;
