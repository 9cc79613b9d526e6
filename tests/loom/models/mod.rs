mod batch;
mod borrow;
mod death;
mod epoch;
mod lock;
mod read;
mod slot;
mod watch;
