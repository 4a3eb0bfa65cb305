//! Runs `mvproxy`: command line to configuration, to credentials, to the running proxy.

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use mvproxy::app::{self, AppError};
use mvproxy::ask;
use mvproxy::causes::chain;
use mvproxy::check;
use mvproxy::config::{self, Ask, CheckRequest, Config, Invocation, Rejected};
use mvproxy::credentials::Credentials;
use mvproxy::{logging, steering};

/// What stands in the way is the environment: a port, a privilege, the kernel.
const ENVIRONMENT: u8 = 1;
/// What stands in the way is the configuration.
const CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    let config = match config::parse(std::env::args_os()) {
        Ok(Invocation::Run(config)) => *config,
        Ok(Invocation::Check(request)) => return check_node(&request),
        Ok(Invocation::Uninstall(folder)) => return uninstall(&folder),
        Ok(Invocation::Ask(question)) => return answer(&question),
        Ok(Invocation::Show(text)) => return show(&text),
        Err(rejected) => return refuse(&all_mistakes(&rejected)),
    };
    if let Err(error) = logging::init(&config) {
        return refuse(&[chain(&error)]);
    }
    let credentials = match Credentials::load(&config) {
        Ok(credentials) => credentials,
        Err(mistakes) => return refuse(&lines(&mistakes)),
    };
    match run_app(config, &credentials) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mvproxy: error: {}", chain(&error));
            ExitCode::from(ENVIRONMENT)
        }
    }
}

/// Hands over to the proxy; returns when it has drained.
fn run_app(config: Config, credentials: &Credentials) -> Result<(), AppError> {
    app::run(config, credentials)
}

/// Prints what there is to mend, finding by finding where people read.
fn check_node(request: &CheckRequest) -> ExitCode {
    match check::run(request) {
        Ok(_) if !request.mistakes.is_empty() => ExitCode::from(CONFIGURATION),
        Ok(report) if report.would_run => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(ENVIRONMENT),
        Err(error) => {
            eprintln!("mvproxy: error: {error}");
            ExitCode::from(ENVIRONMENT)
        }
    }
}

/// Empties the kernel and says of what.
fn uninstall(folder: &Path) -> ExitCode {
    match steering::uninstall(folder) {
        Ok(removed) if removed.is_empty() => println!("nothing is pinned in {}", folder.display()),
        Ok(removed) => removed.iter().for_each(|path| println!("removed {}", path.display())),
        Err(error) => {
            eprintln!("mvproxy: error: {}", chain(&error));
            return ExitCode::from(ENVIRONMENT);
        }
    }
    ExitCode::SUCCESS
}

/// Prints what a running proxy says.
fn answer(question: &Ask) -> ExitCode {
    match ask::ask(question) {
        // A closed pipe, as from `mvproxy skew | head`, is no failure.
        Ok(text) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("mvproxy: error: {}", chain(&error));
            ExitCode::from(ENVIRONMENT)
        }
    }
}

/// Prints help or version; clap knows whether that is what was asked for.
fn show(text: &clap::Error) -> ExitCode {
    // A closed pipe, as from `mvproxy --help | head`, is no failure.
    let _ = text.print();
    ExitCode::from(u8::try_from(text.exit_code()).unwrap_or(CONFIGURATION))
}

/// The mistakes of the configuration, and those in the files that it does name.
fn all_mistakes(rejected: &Rejected) -> Vec<String> {
    let mut all = lines(&rejected.mistakes);
    if let Some(Err(found)) = rejected.draft.as_deref().map(Credentials::load) {
        let named =
            found.iter().filter(|mistake| mistake.file().is_none_or(|file| !file.as_os_str().is_empty()));
        let more: Vec<String> =
            named.map(|mistake| chain(mistake)).filter(|line| !all.contains(line)).collect();
        all.extend(more);
    }
    all
}

fn refuse(mistakes: &[String]) -> ExitCode {
    for mistake in mistakes {
        eprintln!("mvproxy: error: {mistake}");
    }
    ExitCode::from(CONFIGURATION)
}

fn lines<E: Error + 'static>(errors: &[E]) -> Vec<String> {
    errors.iter().map(|error| chain(error)).collect()
}
