//! A store as the local end of NATS JetStream: a bucket that is kept equal to a store, and a store that is kept equal to a bucket.
//!
//! * [`connect`]: options of a connection, as users of `nats` know them.
//! * [`bucket`]: a key-value bucket as the far end of a [`recstore::mirror::Mirror`].
//! * [`pull`]: a local replica of a bucket.
//! * [`monitor`]: a look at the server's monitoring port.
//! * [`cli`]: the command.
//!
//! All of it is synchronous outside: a connection has a current-thread runtime of its own, which runs while a call waits.

pub mod bucket;
pub mod cli;
pub mod connect;
pub mod monitor;
pub mod pull;
