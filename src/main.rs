//! The `recstore` command. All of it is in [`cli`], which uses the library as any user would.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
