//! The program `ground-control`: the fleet's server, of which this version has the command line
//! only. It says so and serves nothing, rather than pretend.

use std::io::Write as _;
use std::process::ExitCode;

use argh::FromArgs;

/// Tells a fleet of satellites which images to hold.
#[derive(FromArgs)]
struct Args {
    /// print the version
    #[argh(switch)]
    version: bool,
}

fn main() -> ExitCode {
    let args: Args = argh::from_env();
    // Nobody may be listening.
    if args.version {
        let version = env!("CARGO_PKG_VERSION");
        let _ = writeln!(std::io::stdout(), "ground-control {version}");
        return ExitCode::SUCCESS;
    }
    let _ = writeln!(
        std::io::stderr(),
        "ground-control: serves nothing yet in this version: give each satellite its [[image]] \
         entries in moonlet.toml"
    );
    ExitCode::from(2)
}
