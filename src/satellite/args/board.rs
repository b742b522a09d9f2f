//! `moonlet board`.

use argh::FromArgs;

use super::Command;

/// ls, show, config: the boards that Moonlet is built for, and a configuration to begin with.
#[derive(FromArgs)]
#[argh(subcommand, name = "board")]
pub(super) struct Board {
    #[argh(subcommand)]
    pub(super) verb: BoardVerb,
}

#[derive(FromArgs)]
#[argh(subcommand)]
pub(super) enum BoardVerb {
    Ls(Ls),
    Show(Show),
    Config(Configure),
}

/// List the boards.
#[derive(FromArgs)]
#[argh(subcommand, name = "ls")]
pub(super) struct Ls {}

/// Show one board: its processor, its flash, its limits, and where the figures are from.
#[derive(FromArgs)]
#[argh(subcommand, name = "show")]
pub(super) struct Show {
    /// the board, as board ls has it
    #[argh(positional)]
    name: String,
    /// as JSON
    #[argh(switch)]
    json: bool,
}

/// Print a configuration for one board, to be put into /etc/moonlet/moonlet.toml.
#[derive(FromArgs)]
#[argh(subcommand, name = "config")]
pub(super) struct Configure {
    /// the board, as board ls has it
    #[argh(positional)]
    name: String,
}

impl BoardVerb {
    pub(super) fn command(self) -> Command {
        match self {
            Self::Ls(_) => Command::BoardLs,
            Self::Show(Show { name, json }) => Command::BoardShow { name, json },
            Self::Config(Configure { name }) => Command::BoardConfig { name },
        }
    }
}
