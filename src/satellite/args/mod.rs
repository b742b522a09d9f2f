//! The command line.
//!
//! argh wants global options before the command and each option after the one that has it. People
//! write them in any order, so the words are put into that order first.

mod board;
mod image;

use std::path::PathBuf;
use std::process::ExitCode;

use argh::{FromArgs, SubCommands};
use log::LevelFilter;

use crate::archive::Wish;
use crate::config::{FEATURES, nearest};
use crate::oci::Reference;
use board::{Board, BoardVerb};
pub use image::ExportOrder;
use image::{Image, ImageVerb};

/// A satellite that holds container images on flash and serves them.
#[derive(FromArgs)]
#[argh(
    example = "Is the configuration good? Then replicate and serve:
  {command_name} check -c moonlet.toml
  {command_name} run -c moonlet.toml",
    note = "{command_name} help COMMAND says more of one. Options may stand anywhere.",
    error_code(1, "Not converged, or something was found wrong."),
    error_code(2, "A mistake in the command line or configuration, or a failure.")
)]
struct Raw {
    /// configuration file (default: $MOONLET_CONFIG, else /etc/moonlet/moonlet.toml)
    #[argh(option, short = 'c')]
    config: Option<PathBuf>,
    /// what is logged: error, warn, info, debug or trace (default: info)
    #[argh(option, default = "LevelFilter::Info")]
    log_level: LevelFilter,
    /// print the version and what is built in; -V as well
    #[argh(switch, short = 'v')]
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
    Doctor(Doctor),
    Status(Status),
    Image(Image),
    Proxy(Proxy),
    Store(Store),
    Board(Board),
}

/// Replicate and serve until stopped; SIGHUP reloads the configuration.
#[derive(FromArgs)]
#[argh(subcommand, name = "run")]
struct Run {}

/// Replicate all images, then end.
#[derive(FromArgs)]
#[argh(subcommand, name = "sync")]
struct Sync {
    /// one pass, whatever comes of it; without, passes until all is held
    #[argh(switch)]
    once: bool,
}

/// Find mistakes in the configuration, and print it with all defaults.
#[derive(FromArgs)]
#[argh(subcommand, name = "check")]
struct Check {}

/// Look for what is wrong with this device, and say what to do: configuration, files, clock, store,
/// data plan, addresses, upstreams, Ground Control.
#[derive(FromArgs)]
#[argh(subcommand, name = "doctor")]
struct Doctor {
    /// as JSON
    #[argh(switch)]
    json: bool,
}

/// Show images, progress, store and link, and what is wrong.
#[derive(FromArgs)]
#[argh(subcommand, name = "status")]
struct Status {
    /// as JSON
    #[argh(switch)]
    json: bool,
}

/// ca: what clients of the proxy have to trust.
#[derive(FromArgs)]
#[argh(subcommand, name = "proxy")]
struct Proxy {
    #[argh(subcommand)]
    verb: ProxyVerb,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum ProxyVerb {
    Ca(ProxyCa),
}

/// Print the certificate of the authority that answers for registries, as PEM.
#[derive(FromArgs)]
#[argh(subcommand, name = "ca")]
struct ProxyCa {
    /// make another one first, which all clients have to trust anew
    #[argh(switch)]
    new: bool,
}

/// stat, scrub, verify: how full and worn the store is, and whether bits decayed.
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

/// Read everything that is held, and say what has decayed.
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Look for what is wrong.
    Doctor {
        /// For scripts.
        json: bool,
    },
    /// Show everything.
    Status {
        /// For scripts.
        json: bool,
    },
    /// List images.
    ImageLs {
        /// Those that are not desired.
        cached: bool,
        /// For scripts.
        json: bool,
    },
    /// Take images from a file.
    ImageImport {
        /// The file or directory.
        file: PathBuf,
        /// Which of it, and for what.
        wish: Wish,
    },
    /// Write images to a file.
    ImageExport(ExportOrder),
    /// Keep an image that is not desired.
    ImagePin {
        /// Which.
        name: Reference,
    },
    /// Remove an image that is not desired.
    ImageRm {
        /// Which.
        name: Reference,
    },
    /// Print the certificate of the proxy's authority.
    ProxyCa {
        /// Another one is made first.
        new: bool,
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
    /// List the boards that are known.
    BoardLs,
    /// Show one.
    BoardShow {
        /// Which.
        name: String,
        /// For scripts.
        json: bool,
    },
    /// Print a configuration for one.
    BoardConfig {
        /// Which.
        name: String,
    },
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
        let raw = parse(&words).map_err(|answered| match answered {
            Answer::Help(text) => answer(&text, true),
            Answer::Mistake(text) => answer(&text, false),
        })?;
        if raw.version {
            return Err(answer(&version(), true));
        }
        let command = match raw.command {
            Some(Verb::Run(_)) => Command::Run,
            Some(Verb::Sync(Sync { once })) => Command::Sync { once },
            Some(Verb::Check(_)) => Command::Check,
            Some(Verb::Doctor(Doctor { json })) => Command::Doctor { json },
            Some(Verb::Status(Status { json })) => Command::Status { json },
            // Only an export can be mistaken here: what the others have wrong is found before.
            Some(Verb::Image(Image { verb })) => verb.command().map_err(|mistake| {
                answer(&format!("{mistake}\nmoonlet help image export says more\n"), false)
            })?,
            Some(Verb::Proxy(Proxy { verb: ProxyVerb::Ca(ProxyCa { new }) })) => {
                Command::ProxyCa { new }
            }
            Some(Verb::Store(Store { verb: StoreVerb::Stat(StoreStat { json }) })) => {
                Command::StoreStat { json }
            }
            Some(Verb::Store(Store { verb: StoreVerb::Scrub(StoreScrub { json }) })) => {
                Command::StoreScrub { json }
            }
            Some(Verb::Store(Store { verb: StoreVerb::Verify(_) })) => Command::StoreVerify,
            Some(Verb::Board(Board { verb })) => verb.command(),
            None => {
                let help = "which command?\n\n".to_owned() + &help();
                return Err(answer(&help, false));
            }
        };
        let named = || std::env::var_os("MOONLET_CONFIG").map(PathBuf::from);
        let config = raw.config.or_else(named).unwrap_or_else(|| PathBuf::from(CONFIG_PATH));
        Ok(Self { command, config, log_level: raw.log_level })
    }
}

/// Why there is nothing to do.
#[derive(Debug)]
enum Answer {
    /// Somebody asked for help.
    Help(String),
    /// What was typed is nothing that can be done.
    Mistake(String),
}

fn parse(words: &[String]) -> Result<Raw, Answer> {
    let words = ordered(words).map_err(Answer::Mistake)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let Some(mistake) = unknown_command(&words) {
        return Err(Answer::Mistake(mistake));
    }
    Raw::from_args(&["moonlet"], &words).map_err(|early| {
        let text = early.output.trim_end();
        if early.status.is_ok() {
            return Answer::Help(format!("{text}\n"));
        }
        let hint = match text.strip_prefix("Unrecognized argument: ") {
            Some(word) => format!("; did you mean {}?", nearest(word, &OPTIONS)),
            None => String::new(),
        };
        Answer::Mistake(format!("{text}{hint}\nmoonlet --help lists commands and options"))
    })
}

/// Which program this is, and what was not left out of it.
fn version() -> String {
    let mut text = concat!("moonlet ", env!("CARGO_PKG_VERSION"), "\nfeatures:").to_owned();
    for (feature, _) in FEATURES.iter().filter(|(_, is_there)| *is_there) {
        text.push(' ');
        text.push_str(feature);
    }
    text + "\n"
}

fn help() -> String {
    match parse(&["--help".to_owned()]) {
        Err(Answer::Help(text) | Answer::Mistake(text)) => text,
        Ok(_) => String::new(),
    }
}

/// The words as argh takes them: global options, commands, then the options of those. A call for
/// help leaves the commands only, and comes last.
fn ordered(words: &[String]) -> Result<Vec<String>, String> {
    let (mut global, mut commands, mut options) = (Vec::new(), Vec::new(), Vec::new());
    let mut is_help = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        match name {
            "-h" | "--help" | "help" => is_help = true,
            "-V" | "-v" | "--version" => global.push("--version".to_owned()),
            "-c" | "--config" | "--log-level" => {
                let long = if name == "-c" { "--config" } else { name };
                let value = value.or_else(|| words.next().cloned());
                let value = value.ok_or_else(|| format!("{name}: expected a value after it"))?;
                global.extend([long.to_owned(), value]);
            }
            name if VALUED.contains(&name) => {
                let value = value.or_else(|| words.next().cloned());
                let value = value.ok_or_else(|| format!("{name}: expected a value after it"))?;
                options.extend([name.to_owned(), value]);
            }
            _ if word.starts_with('-') => options.push(word.clone()),
            _ => commands.push(word.clone()),
        }
    }
    if is_help {
        commands.push("--help".to_owned());
        return Ok(commands);
    }
    Ok(global.into_iter().chain(commands).chain(options).collect())
}

/// What is wrong with a command that there is not, and the nearest one that there is.
fn unknown_command(words: &[&str]) -> Option<String> {
    let mut words = words.iter().skip_while(|word| word.starts_with("--version"));
    let mut first = words.next()?;
    while matches!(*first, "--config" | "--log-level") {
        words.next()?;
        first = words.next()?;
    }
    let unknown = |word: &str, known: &[&'static argh::CommandInfo]| {
        let names: Vec<&str> = known.iter().map(|command| command.name).collect();
        (!word.starts_with('-') && !names.contains(&word)).then(|| {
            let meant = nearest(word, &names);
            format!("no command {word:?}: did you mean {meant}?\nmoonlet --help lists them")
        })
    };
    let second = words.next().copied().unwrap_or("-");
    unknown(first, Verb::COMMANDS).or_else(|| match *first {
        "image" => unknown(second, ImageVerb::COMMANDS),
        "proxy" => unknown(second, ProxyVerb::COMMANDS),
        "store" => unknown(second, StoreVerb::COMMANDS),
        "board" => unknown(second, BoardVerb::COMMANDS),
        _ => None,
    })
}

fn answer(text: &str, is_wanted: bool) -> ExitCode {
    if is_wanted {
        // A reader that has gone wants nothing more.
        let _ = super::show::print(text);
        return ExitCode::SUCCESS;
    }
    super::show::complain(text.trim_end());
    ExitCode::from(super::EXIT_ERROR)
}

const CONFIG_PATH: &str = "/etc/moonlet/moonlet.toml";
/// Options of commands that have a value.
const VALUED: [&str; 6] = ["--name", "--platform", "--lacking", "--sign", "--sequence", "--for"];
/// For "did you mean".
const OPTIONS: [&str; 13] = [
    "--config",
    "--log-level",
    "--version",
    "--help",
    "--json",
    "--once",
    "--all",
    "--name",
    "--platform",
    "--lacking",
    "--sign",
    "--sequence",
    "--for",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(text: &str) -> String {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        super::ordered(&words).unwrap().join(" ")
    }

    fn mistake(text: &str) -> String {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        match parse(&words) {
            Err(Answer::Mistake(text)) => text,
            Err(Answer::Help(text)) => panic!("help: {text}"),
            Ok(_) => panic!("{text} is good"),
        }
    }

    fn help(text: &str) -> String {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        match parse(&words) {
            Err(Answer::Help(text)) => text,
            Err(Answer::Mistake(text)) => panic!("mistake: {text}"),
            Ok(_) => panic!("{text} is no call for help"),
        }
    }

    #[test]
    fn options_may_stand_anywhere() {
        let expected = "--config f --log-level debug status --json";
        for text in [
            "--config f --log-level debug status --json",
            "status --json --config f --log-level debug",
            "status -c f --json --log-level=debug",
            "--json -c f status --log-level debug",
        ] {
            let mut found: Vec<_> = ordered(text).split(' ').map(str::to_owned).collect();
            let mut wanted: Vec<_> = expected.split(' ').map(str::to_owned).collect();
            assert!(found.ends_with(&["status".to_owned(), "--json".to_owned()]), "{text}");
            found.sort();
            wanted.sort();
            assert_eq!(found, wanted, "{text}");
        }
        assert_eq!(ordered("run -V"), "--version run");
        assert_eq!(ordered("store --config=a=b stat"), "--config a=b store stat");
        let import = "image import file --name app:1 --platform all";
        assert_eq!(ordered("image --name=app:1 import --platform all file"), import);
    }

    #[test]
    fn help_is_given_wherever_it_is_asked_for() {
        for text in ["--help", "-h", "help", "-c f --help", "-h --log-level nonsense"] {
            let help = help(text);
            for part in ["Replicate and serve until stopped", "moonlet run -c", "--config", "2 "] {
                assert!(help.contains(part), "{text}: no {part:?} in {help}");
            }
        }
        for text in ["help sync", "sync -h", "--help sync", "sync --once --help -c f"] {
            assert!(help(text).contains("--once"), "{text}");
        }
        assert!(help("store help").contains("verify"));
    }

    #[test]
    fn mistakes_name_what_was_meant() {
        assert!(mistake("stauts").contains("\"stauts\": did you mean status?"));
        assert!(mistake("-c f rnu").contains("did you mean run?"));
        assert!(mistake("store verfy").contains("did you mean verify?"));
        assert!(mistake("status --jsn").contains("did you mean --json?"));
        assert!(mistake("run extra").contains("extra"));
        assert!(mistake("run --config").contains("--config"));
        assert!(mistake("image import file --name").contains("--name: expected a value"));
        assert!(mistake("image import file --name a/B").contains("image reference \"a/B\""));
        assert!(mistake("run --log-level loud").contains("log-level"));
    }
}
