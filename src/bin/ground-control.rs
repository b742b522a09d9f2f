//! The program `ground-control`.

fn main() -> std::process::ExitCode {
    moonlet::ground::main()
}
