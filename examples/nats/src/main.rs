//! The `recstore-nats` command. `recstore mirror` and `recstore pull` start it.

fn main() -> std::process::ExitCode {
    recstore_nats::cli::run()
}
