//! The program `moonlet`.

fn main() -> std::process::ExitCode {
    moonlet::satellite::main()
}
