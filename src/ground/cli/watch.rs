//! Looks at one thing again and again, until it is as it is to be.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::output::{complain, is_terminal, print, say};
use super::{EXIT_DIFFERENT, Failure};

/// What is seen of a thing.
pub trait View {
    /// A line that says where it is.
    fn line(&self) -> String;
    /// The whole picture, in lines.
    fn draw(&self) -> String;
    /// The code to exit with, when there is nothing more to wait for.
    fn end(&self) -> Option<ExitCode>;
}

/// On a terminal the picture is drawn again in its place, elsewhere a line when it changes. After
/// `timeout` seconds the exit code is that of a difference.
pub fn watch<V: View>(
    timeout: Option<u64>,
    read: impl Fn() -> Result<V, Failure>,
) -> Result<ExitCode, Failure> {
    let begun = Instant::now();
    let is_over = || timeout.is_some_and(|seconds| begun.elapsed() >= Duration::from_secs(seconds));
    let (mut lines, mut last, mut problem) = (0, String::new(), String::new());
    loop {
        let view = match read() {
            // A link that fails, or a server that is started again, is no answer to what is asked;
            // but that it was reached once shows that it is the right one.
            Err(failure) if !last.is_empty() && failure.is_passing() && !is_over() => {
                if problem != failure.message {
                    complain(&format!("{}; still watching", failure.message));
                    problem = failure.message;
                    lines = 0;
                }
                std::thread::sleep(INTERVAL);
                continue;
            }
            view => view?,
        };
        problem.clear();
        let line = view.line();
        if is_terminal() {
            let up = if lines > 0 { format!("\x1b[{lines}A\x1b[J") } else { String::new() };
            let drawn = view.draw();
            lines = drawn.matches('\n').count();
            // Without wrapping: a narrow terminal cuts lines off, and their number stays known.
            print(&format!("\x1b[?7l{up}{drawn}\x1b[?7h"))?;
        } else if line != last {
            say(line.trim_end())?;
        }
        last = line;
        if let Some(code) = view.end() {
            return Ok(code);
        }
        if is_over() {
            return Ok(ExitCode::from(EXIT_DIFFERENT));
        }
        std::thread::sleep(INTERVAL);
    }
}

const INTERVAL: Duration = Duration::from_secs(2);
