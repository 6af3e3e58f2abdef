use clap::{Args, Command, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::error::CliError;
use super::{Cli, print};

#[derive(Args)]
pub(super) struct Completions {
    /// The shell that is to complete them
    shell: Shell,
}

impl Completions {
    /// Prints the script that has the shell complete commands, their flags and what these may be.
    pub(super) fn run(&self) -> Result<(), CliError> {
        let all = Cli::command();
        let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
        let mut command = Command::new("trine").version(env!("CARGO_PKG_VERSION")).subcommands(shown);
        let mut script = Vec::new();
        generate(self.shell, &mut command, "trine", &mut script);
        print::raw(&String::from_utf8_lossy(&script))
    }
}
