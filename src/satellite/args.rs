//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use argh::FromArgs;
use log::LevelFilter;

/// A satellite that holds container images on flash and serves them.
#[derive(FromArgs)]
struct Raw {
    /// configuration file (default: $MOONLET_CONFIG, else /etc/moonlet/moonlet.toml)
    #[argh(option)]
    config: Option<PathBuf>,
    /// what is logged: error, warn, info, debug or trace (default: info)
    #[argh(option, default = "LevelFilter::Info")]
    log_level: LevelFilter,
    /// print the version
    #[argh(switch)]
    version: bool,
    #[argh(subcommand)]
    command: Option<Verb>,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Verb {
    Run(Run),
    Sync(Sync),
    Check(Check),
    Status(Status),
    Image(Image),
    Store(Store),
}

/// Serve what is held and keep it up to date, until told to stop.
#[derive(FromArgs)]
#[argh(subcommand, name = "run")]
struct Run {}

/// Make held what is desired, then end.
#[derive(FromArgs)]
#[argh(subcommand, name = "sync")]
struct Sync {
    /// one pass, whatever comes of it; without, passes until all is held
    #[argh(switch)]
    once: bool,
}

/// Check the configuration and print it with all defaults.
#[derive(FromArgs)]
#[argh(subcommand, name = "check")]
struct Check {}

/// Show the images and how far they are.
#[derive(FromArgs)]
#[argh(subcommand, name = "status")]
struct Status {
    /// as JSON
    #[argh(switch)]
    json: bool,
}

/// Images.
#[derive(FromArgs)]
#[argh(subcommand, name = "image")]
struct Image {
    #[argh(subcommand)]
    verb: ImageVerb,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum ImageVerb {
    Ls(ImageLs),
}

/// List the images.
#[derive(FromArgs)]
#[argh(subcommand, name = "ls")]
struct ImageLs {
    /// as JSON
    #[argh(switch)]
    json: bool,
}

/// The blob log.
#[derive(FromArgs)]
#[argh(subcommand, name = "store")]
struct Store {
    #[argh(subcommand)]
    verb: StoreVerb,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum StoreVerb {
    Stat(StoreStat),
    Scrub(StoreScrub),
    Verify(StoreVerify),
}

/// Show how far the satellite that runs is with looking for bit rot; on a terminal, until its pass
/// is over.
#[derive(FromArgs)]
#[argh(subcommand, name = "scrub")]
struct StoreScrub {
    /// as JSON
    #[argh(switch)]
    json: bool,
}

/// Read everything that is held, and say what has rotted.
#[derive(FromArgs)]
#[argh(subcommand, name = "verify")]
struct StoreVerify {}

/// Show the log in figures.
#[derive(FromArgs)]
#[argh(subcommand, name = "stat")]
struct StoreStat {
    /// as JSON
    #[argh(switch)]
    json: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve and keep up to date.
    Run,
    /// Reconcile, then end.
    Sync {
        /// After one pass, converged or not.
        once: bool,
    },
    /// Print the effective configuration.
    Check,
    /// Show everything.
    Status {
        /// For scripts.
        json: bool,
    },
    /// List images.
    ImageLs {
        /// For scripts.
        json: bool,
    },
    /// Show the log's figures.
    StoreStat {
        /// For scripts.
        json: bool,
    },
    /// Show the progress of the background's search for rot.
    StoreScrub {
        /// For scripts.
        json: bool,
    },
    /// Look for rot in all that is held.
    StoreVerify,
}

/// The command line, understood.
#[derive(Debug)]
pub struct Args {
    /// What to do.
    pub command: Command,
    /// The configuration file.
    pub config: PathBuf,
    /// What is logged.
    pub log_level: LevelFilter,
}

impl Args {
    /// Reads the process's arguments; help, the version and mistakes are answered at once.
    pub fn from_env() -> Result<Self, ExitCode> {
        let words: Vec<String> =
            std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let raw = Raw::from_args(&["moonlet"], &words).map_err(|early| {
            let text = early.output.trim_end().to_owned() + "\n";
            answer(&text, early.status.is_ok())
        })?;
        if raw.version {
            return Err(answer(concat!("moonlet ", env!("CARGO_PKG_VERSION"), "\n"), true));
        }
        let command = match raw.command {
            Some(Verb::Run(_)) => Command::Run,
            Some(Verb::Sync(Sync { once })) => Command::Sync { once },
            Some(Verb::Check(_)) => Command::Check,
            Some(Verb::Status(Status { json })) => Command::Status { json },
            Some(Verb::Image(Image { verb: ImageVerb::Ls(ImageLs { json }) })) => {
                Command::ImageLs { json }
            }
            Some(Verb::Store(Store { verb: StoreVerb::Stat(StoreStat { json }) })) => {
                Command::StoreStat { json }
            }
            Some(Verb::Store(Store { verb: StoreVerb::Scrub(StoreScrub { json }) })) => {
                Command::StoreScrub { json }
            }
            Some(Verb::Store(Store { verb: StoreVerb::Verify(_) })) => Command::StoreVerify,
            None => return Err(answer("no command given: moonlet --help lists them\n", false)),
        };
        let named = || std::env::var_os("MOONLET_CONFIG").map(PathBuf::from);
        let config = raw.config.or_else(named).unwrap_or_else(|| PathBuf::from(CONFIG_PATH));
        Ok(Self { command, config, log_level: raw.log_level })
    }
}

fn answer(text: &str, is_wanted: bool) -> ExitCode {
    if is_wanted {
        // Nobody may be listening; there is nobody to tell, then.
        let _ = super::show::print(text);
        return ExitCode::SUCCESS;
    }
    super::show::complain(text.trim_end());
    ExitCode::from(super::EXIT_ERROR)
}

const CONFIG_PATH: &str = "/etc/moonlet/moonlet.toml";
