//! `recstore completions` and `recstore man`: this command for a shell and for `man`.

use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use super::failure::Failure;
use super::output::{Output, counted, note};

/// Print the completions for a shell
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore completions bash > ~/.local/share/bash-completion/completions/recstore
  recstore completions zsh > ~/.zfunc/_recstore          with ~/.zfunc in $fpath
  recstore completions fish > ~/.config/fish/completions/recstore.fish")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "recstore", &mut script);
        let mut out = Output::new();
        out.bytes(&script)?;
        out.finish()
    }
}

/// Write the manual pages, one for each subcommand
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore man ~/.local/share/man/man1     then: man recstore, man recstore-load")]
pub(crate) struct Man {
    /// The directory for them; created if it is absent
    directory: PathBuf,
}

impl Man {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let cannot = |error| Failure::Other(format!("{}: {error}", self.directory.display()));
        fs::create_dir_all(&self.directory).map_err(cannot)?;
        let mut command = Cli::command();
        command.build();
        let is_shown = |command: &&clap::Command| !command.is_hide_set() && command.get_name() != "help";
        let subcommands = command.get_subcommands().filter(is_shown).cloned();
        let pages: Vec<clap::Command> = std::iter::once(command.clone()).chain(subcommands).collect();
        for page in &pages {
            // `recstore load` has the page recstore-load(1).
            let name = page.get_bin_name().unwrap_or("recstore").replace(' ', "-");
            let mut text = Vec::new();
            let page = clap_mangen::Man::new(page.clone()).title(&name);
            page.render(&mut text).map_err(cannot)?;
            fs::write(self.directory.join(format!("{name}.1")), text).map_err(cannot)?;
        }
        note(format_args!(
            "{}: {} written",
            self.directory.display(),
            counted(pages.len() as u64, "manual page")
        ));
        Ok(())
    }
}
